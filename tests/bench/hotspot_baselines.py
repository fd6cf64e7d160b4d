"""The usual ways to tell that a host will be hot, as scores of what the host itself did; each learned on training groups."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LAGS, TWO_HOURS = 24, 24
EWMA_ALPHA = 0.3
LR_SAMPLES, LR_AHEAD, LR_SAFETY = 10, 1, 1.2  # CloudSim's local regression


def persistence(past: Floats) -> Floats:
    """The present load."""
    return past[:, -1]


def max_2h(past: Floats) -> Floats:
    """The highest of two hours."""
    highest: Floats = past[:, -TWO_HOURS:].max(axis=1)
    return highest


def mean_2h(past: Floats) -> Floats:
    """The mean of two hours."""
    mean: Floats = past[:, -TWO_HOURS:].mean(axis=1)
    return mean


def ewma(past: Floats) -> Floats:
    """Exponentially weighted mean."""
    weights = (1 - EWMA_ALPHA) ** np.arange(past.shape[1])[::-1]
    told: Floats = past @ weights / weights.sum()
    return told


def n_sigma(past: Floats) -> Floats:
    """Mean of two hours plus two standard deviations."""
    part = past[:, -TWO_HOURS:]
    told: Floats = part.mean(axis=1) + 2 * part.std(axis=1)
    return told


def lr(past: Floats) -> Floats:
    """A line through the last ten samples, one step on, times its safety factor (Beloglazov and Buyya 2012, without weights)."""
    part = past[:, -LR_SAMPLES:]
    at = np.arange(LR_SAMPLES) - (LR_SAMPLES - 1) / 2
    slope = part @ at / (at @ at)
    told: Floats = LR_SAFETY * (part.mean(axis=1) + slope * ((LR_SAMPLES - 1) / 2 + LR_AHEAD))
    return told


SCORES: Mapping[str, Callable[[Floats], Floats]] = {
    "persistence": persistence,
    "max_2h": max_2h,
    "mean_2h": mean_2h,
    "ewma": ewma,
    "n_sigma": n_sigma,
    "lr": lr,
}


def lag_features(past: Floats) -> Floats:
    """Lags of the host's load and statistics of them: what plain boosting is given."""
    part = past[:, -LAGS:]
    return np.column_stack(
        [part, part.mean(axis=1), part.std(axis=1), part.max(axis=1), part.min(axis=1), ewma(past), past.mean(axis=1)]
    )


def fit_boosting(past: Floats, hot: Bools, seed: int) -> Any:
    """Plain gradient boosting on the host's own lags."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=200, learning_rate=0.06, random_state=seed, early_stopping=False)
    return model.fit(lag_features(past), hot)


def fit_calibration(scores: Floats, hot: Bools) -> Any:
    """Isotonic regression of what came on a score."""
    from sklearn.isotonic import IsotonicRegression

    return IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, hot)
