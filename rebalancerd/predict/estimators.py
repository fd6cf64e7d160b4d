"""The scikit-learn estimators of the cost model, small enough for a few hundred rows and fast enough for 100,000."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def regressors(name: str, seed: int) -> list[Any]:
    """Regressors of one figure, whose mean is the prediction; each takes NaN for what is not known."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    if name == "slowdown":
        return [
            _boosted(
                seed, loss="absolute_error", max_iter=60, max_leaf_nodes=6, min_samples_leaf=10, l2_regularization=2.0
            )
        ]
    # smooth and flat far from the data: beyond it nothing is corrected but by a constant
    return [
        make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), SVR(C=0.5, epsilon=0.02, gamma=0.02))
    ]


def spread_regressor(seed: int) -> Any:
    """Of how far off a prediction is: deliberately blunt."""
    return _boosted(seed, max_iter=40, max_leaf_nodes=4, min_samples_leaf=15, l2_regularization=5.0)


def _boosted(seed: int, **size: Any) -> Any:
    """Boosted trees of that size, slow to learn and each blind to half of the features."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        learning_rate=0.05, max_features=0.5, early_stopping=False, random_state=seed, **size
    )


def classifiers() -> list[Any]:
    """Of what does not converge; each takes NaN for what is not known."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return [make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=0.3))]


def fit(model: Any, found: Floats, target: Floats | NDArray[np.bool_], weights: Floats) -> Any:
    """Fit with weights, those of a pipeline to its last step; returns the model."""
    steps = getattr(model, "steps", None)
    name = "sample_weight" if steps is None else f"{steps[-1][0]}__sample_weight"
    return model.fit(found, target, **{name: weights})
