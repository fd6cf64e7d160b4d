"""The scikit-learn estimators of the cost model, small enough for a few hundred rows and fast enough for 100,000."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def regressors(seed: int) -> list[Any]:
    """Regressors whose mean is the prediction; each takes NaN for what is not known."""
    from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

    boosted = HistGradientBoostingRegressor(
        loss="absolute_error",
        max_iter=120,
        learning_rate=0.06,
        max_leaf_nodes=8,
        min_samples_leaf=8,
        l2_regularization=1.0,
        max_features=0.5,
        early_stopping=False,
        random_state=seed,
    )
    averaged = ExtraTreesRegressor(n_estimators=100, min_samples_leaf=2, max_features=0.6, random_state=seed)
    return [boosted, averaged]


def spread_regressor(seed: int) -> Any:
    """Of how far off a prediction is: deliberately blunt."""
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(n_estimators=60, min_samples_leaf=10, max_features=0.6, random_state=seed)


def classifiers(seed: int) -> list[Any]:
    """Of what does not converge; each takes NaN for what is not known."""
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier

    boosted = HistGradientBoostingClassifier(
        max_iter=60,
        learning_rate=0.06,
        max_leaf_nodes=6,
        min_samples_leaf=8,
        l2_regularization=2.0,
        max_features=0.5,
        early_stopping=False,
        random_state=seed,
    )
    averaged = ExtraTreesClassifier(n_estimators=100, min_samples_leaf=3, max_features=0.6, random_state=seed)
    return [boosted, averaged]


def fit(model: Any, found: Floats, target: Floats, weights: Floats) -> Any:
    """Fit with weights; returns the model."""
    return model.fit(found, target, sample_weight=weights)
