"""The naive ways of forecasting: what a learned model must beat, and what answers while it does not.

Each is a point forecast; its distribution is the point plus the errors the same way made lately for the same VM. Where a
VM's own errors are too few, it is the wider of those of all VMs and an assumed spread. Windows count steps (2 h are 24
steps of 5 minutes).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.forecast import Forecast, Forecaster
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.recorded import DAY_STEPS, limit, present, recorded

Floats = NDArray[np.float32]

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
MEAN_STEPS = 24
EWMA_ALPHA = 0.3
AR_LAGS = 24
AR_PENALTY = 1e-3
AR_LEAST_ROWS = 10 * AR_LAGS
ORIGINS = 48  # of the past, at which each way is tried out
OWN_ERRORS_LEAST = 12
ASSUMED_OF_LOAD, ASSUMED_OF_SIZE = 0.20, 0.02  # one standard deviation where no error is on record
NORMAL_QUANTILES = (-1.6449, -0.6745, 0.0, 0.6745, 1.6449)

# values (N, T) and steps ahead (H,) to point forecasts (N, H), NaN where nothing is known
Way = Callable[[Floats, Sequence[int]], Floats]


def persistence(values: Floats, steps: Sequence[int]) -> Floats:
    """The present goes on."""
    return _flat(present(values), steps)


def mean_2h(values: Floats, steps: Sequence[int]) -> Floats:
    """Mean of the last ``MEAN_STEPS`` steps."""
    return _flat(_weighted(values[:, -MEAN_STEPS:], np.ones(min(MEAN_STEPS, values.shape[1]))), steps)


def ewma(values: Floats, steps: Sequence[int]) -> Floats:
    """Exponentially weighted mean with ``EWMA_ALPHA`` for the newest value."""
    width = min(values.shape[1], MEAN_STEPS)
    return _flat(_weighted(values[:, -width:], (1 - EWMA_ALPHA) ** np.arange(width)[::-1]), steps)


def autoregression(values: Floats, steps: Sequence[int]) -> Floats:
    """AR(24) by ridge regression over all VMs of the panel, direct for each step ahead; persistence where it cannot be fitted."""
    return applied(fitted_autoregression(values, steps), values)


def fitted_autoregression(values: Floats, steps: Sequence[int]) -> NDArray[np.float64]:
    """Coefficients (AR_LAGS, H) of the change from the present, on the lags' differences from the present."""
    width = values.shape[1]
    last = width - 1 - max(steps, default=0)
    coefficients = np.zeros((AR_LAGS, len(steps)))
    if last < AR_LAGS - 1:
        return coefficients
    origins = np.unique(np.linspace(AR_LAGS - 1, last, min(ORIGINS, last - AR_LAGS + 2)).astype(int))
    lags = np.concatenate([values[:, t - AR_LAGS + 1 : t + 1] for t in origins])
    now = lags[:, -1:]
    change = np.concatenate([values[:, t + np.asarray(steps)] for t in origins]) - now
    lags = lags - now
    whole = np.isfinite(lags).all(axis=1) & np.isfinite(change).all(axis=1)
    if whole.sum() < AR_LEAST_ROWS:
        return coefficients
    x, y = lags[whole].astype(np.float64), change[whole].astype(np.float64)
    gram = x.T @ x
    gram[np.diag_indices(AR_LAGS)] += AR_PENALTY * max(float(np.trace(gram)) / AR_LAGS, 1e-12)
    solved: NDArray[np.float64] = np.linalg.solve(gram, x.T @ y)
    return solved


def applied(coefficients: NDArray[np.float64], values: Floats) -> Floats:
    """Point forecasts (N, H) of an autoregression; a lag that is not known counts as the present."""
    now = present(values)
    lags = np.zeros((values.shape[0], AR_LAGS), dtype=np.float32)
    width = min(AR_LAGS, values.shape[1])
    if width:
        lags[:, -width:] = np.nan_to_num(values[:, -width:] - now[:, None])
    change: Floats = (lags @ coefficients.astype(np.float32)).astype(np.float32)
    return now[:, None] + change


@dataclass(frozen=True, slots=True)
class NaiveForecaster:
    """A naive way with a distribution; implements ``forecast.Forecaster``."""

    basis: str
    way: Way

    def forecast(self, panel: Panel, steps: Sequence[int]) -> Forecast:
        """Point forecasts and quantiles at ``LEVELS``. A VM nothing is known of may ask for anything from 0 to its size."""
        steps = tuple(steps)
        values = recorded(panel.values)
        if self.way is autoregression:
            coefficients = fitted_autoregression(values, steps)
            point = applied(coefficients, values)
            errors = _errors(lambda part, _: applied(coefficients, part), values, steps)
        else:
            point = self.way(values, steps)
            errors = _errors(self.way, values, steps)
        spread = _spread(errors, point)
        quantiles = np.nan_to_num(point)[..., None] + spread
        mean = point.copy()
        unknown = np.isnan(point[:, 0]) if steps else np.zeros(len(point), dtype=np.bool_)
        mean[unknown] = 0.5
        quantiles[unknown] = LEVELS
        top = limit(values)
        return Forecast(
            steps=steps,
            mean=np.clip(mean, 0.0, top[:, None]),
            levels=LEVELS,
            quantiles=np.clip(quantiles, 0.0, top[:, None, None]).astype(np.float32),
            basis=self.basis,
        )


NAIVE: Mapping[str, Forecaster] = {
    name: NaiveForecaster(name, way)
    for name, way in (("persistence", persistence), ("mean_2h", mean_2h), ("ewma", ewma), ("ar", autoregression))
}


def _flat(point: Floats, steps: Sequence[int]) -> Floats:
    return np.repeat(point[:, None], len(steps), axis=1)


def _weighted(values: Floats, weights: NDArray[np.float64]) -> Floats:
    """Weighted mean of what is known, (N,); the stale mean of ``present`` where the window holds nothing."""
    known = np.isfinite(values)
    weighed = known.astype(np.float32) @ weights.astype(np.float32)
    total = np.nan_to_num(values) @ weights.astype(np.float32)
    return np.where(weighed > 0, total / np.maximum(weighed, 1e-9), np.nan).astype(np.float32)


def _errors(way: Way, values: Floats, steps: Sequence[int]) -> Floats:
    """Errors (N, O, H) the way would have made at past origins of the last day, NaN where not known."""
    width = values.shape[1]
    newest = width - 1 - max(steps, default=0)
    oldest = max(0, newest - DAY_STEPS)
    origins = np.unique(np.linspace(oldest, newest, ORIGINS).astype(int)) if newest >= 0 else np.empty(0, dtype=int)
    out = np.full((len(values), len(origins), len(steps)), np.nan, dtype=np.float32)
    for i, t in enumerate(origins):
        out[:, i] = values[:, t + np.asarray(steps)] - way(values[:, max(0, t + 1 - DAY_STEPS) : t + 1], steps)
    return out


def _spread(errors: Floats, point: Floats) -> Floats:
    """Quantiles of the errors, (N, H, Q), the middle one 0; assumed ones where a VM has too few errors of its own."""
    rows, _, width = errors.shape
    growth = np.sqrt((np.arange(width, dtype=np.float32) + 1) / max(1, width))
    assumed = (ASSUMED_OF_LOAD * np.nan_to_num(point) + ASSUMED_OF_SIZE) * growth
    out: Floats = (assumed[..., None] * np.array(NORMAL_QUANTILES, dtype=np.float32)).astype(np.float32)
    enough = np.isfinite(errors).sum(axis=1).min(axis=1, initial=errors.shape[1]) >= OWN_ERRORS_LEAST if width else None
    if enough is None or not errors.shape[1]:
        return out
    ordered = np.sort(errors[enough], axis=1)  # NaN last
    count = np.isfinite(ordered).sum(axis=1)
    own = np.empty((len(ordered), width, len(LEVELS)), dtype=np.float32)
    for q, level in enumerate(LEVELS):
        place = np.clip(np.floor(level * count), 0, count - 1).astype(np.intp)
        own[..., q] = np.take_along_axis(ordered, place[:, None, :], axis=1)[:, 0]
    middle = LEVELS.index(0.5)
    pooled = np.nanquantile(errors[enough], LEVELS, axis=(0, 1)).T if enough.any() else np.zeros((width, len(LEVELS)))
    out[~enough] = np.where(np.abs(pooled) > np.abs(out[~enough]), pooled, out[~enough])
    out[enough] = own
    # the point is the way's own answer: it stays the median, whatever bias its errors have
    np.minimum(out[..., :middle], 0.0, out=out[..., :middle])
    np.maximum(out[..., middle + 1 :], 0.0, out=out[..., middle + 1 :])
    out[..., middle] = 0.0
    return out if rows else out[:0]
