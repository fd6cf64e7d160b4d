"""What of a panel's history can be believed, and the present value of each VM in it."""

from math import ceil

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.panel import Panel

Floats = NDArray[np.float32]

FRESH_STEPS = 6  # an older value is history, not the present
DAY_STEPS = 288  # at the default step; windows count steps, so that another step has the same shape
ABSURD_SHARE = 16.0  # more than any VM can use of its own size


def recorded(values: NDArray[np.floating]) -> Floats:
    """A copy with NaN for what no load can be: negative, infinite, many times the VM's size."""
    out = np.array(values, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        out[~((out >= 0) & (out <= ABSURD_SHARE))] = np.nan
    return out


def present(values: Floats) -> Floats:
    """The last known value of the last ``FRESH_STEPS`` columns; else the mean of what is known; NaN where nothing is. (N,)."""
    rows, width = values.shape
    out = np.full(rows, np.nan, dtype=np.float32)
    for column in range(max(0, width - FRESH_STEPS), width):
        known = np.isfinite(values[:, column])
        out[known] = values[known, column]
    stale = np.flatnonzero(np.isnan(out))
    if len(stale) and width:
        old = values[stale]
        count = np.isfinite(old).sum(axis=1)
        total = np.nansum(old, axis=1)
        out[stale] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return out


def limit(values: Floats) -> Floats:
    """The most a forecast may say: the VM's size, or what it was seen to use beyond it. (N,)."""
    if not values.shape[1]:
        return np.ones(values.shape[0], dtype=np.float32)
    highest: Floats = np.fmax(np.fmax.reduce(values, axis=1), np.float32(1.0))
    return highest


def season_steps(panel: Panel) -> int:
    """Steps after which load is expected to come again."""
    return max(1, round(panel.season_seconds / panel.step_seconds))


def season_ago(step: int, season: int, seasons: int = 1) -> int:
    """How many columns before the last one the value lies that is ``seasons`` seasons before ``step`` steps ahead.

    For a season shorter than the horizon, as many more seasons as lie in the past.
    """
    return season * (ceil(step / season) + seasons - 1) - step
