"""The scikit-learn estimators of the cost model, small enough for a few hundred rows and fast enough for 100,000."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# inverse of how strongly the weights are held down, as did best on families of the training rows that were left out
STRICTNESS = {"seen": 5.0, "unseen": 1.0}
AT_ONCE = 8192  # rows, of which each takes a few kB


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


def classifiers(view: str) -> list[Any]:
    """Of what does not converge, by how far the dirty curve was looked into; each takes NaN for what is not known."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scaled = make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=STRICTNESS[view])
    )
    return [scaled]


def fit(model: Any, found: Floats, target: Floats | NDArray[np.bool_], weights: Floats) -> Any:
    """Fit with weights, those of a pipeline to its last step; returns the model."""
    steps = getattr(model, "steps", None)
    name = "sample_weight" if steps is None else f"{steps[-1][0]}__sample_weight"
    return model.fit(found, target, **{name: weights})


def predicted(model: Any, found: Floats) -> Floats:
    """What a regressor says of features (N, F), shape (N,).

    Support vectors are summed up by matrix products, which libsvm's own loop takes many times as long for.
    """
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.svm import SVR

    steps = getattr(model, "steps", None)
    if steps is None or not isinstance(steps[-1][1], SVR):
        told: Floats = np.asarray(model.predict(found), dtype=np.float64)
        return told
    machine, scaled = steps[-1][1], model[:-1].transform(found)
    parts = [
        rbf_kernel(scaled[at : at + AT_ONCE], machine.support_vectors_, gamma=machine.gamma) @ machine.dual_coef_[0]
        for at in range(0, max(1, len(scaled)), AT_ONCE)
    ]
    summed: Floats = np.concatenate(parts) + machine.intercept_[0]
    return summed
