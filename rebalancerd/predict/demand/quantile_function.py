"""A distribution drawn through a few quantiles, sampled at evenly spread levels, with a mean of its own."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TAIL_REACH = 0.35  # of the outer quantile's distance from the median, beyond it at the very end


def stratified(mean: Floats, levels: Sequence[float], quantiles: Floats, top: Floats, count: int) -> Floats:
    """``count`` values per row at the levels (k+½)/count, not decreasing: shape (R, count).

    ``mean`` (R,), ``quantiles`` (R, Q) at ``levels``, ``top`` (R,): the most a value can be. Linear between quantiles.
    The mean of the values is ``mean`` as far as bounds allow, while they keep the 5 %, 50 % and 95 % quantiles: first the
    tails beyond 5 % and 95 % give way, then what lies between those three, most in their midst.
    """
    at = (np.arange(count) + 0.5) / count
    low, middle, high = (quantiles[:, _at(levels, p)] for p in (0.05, 0.5, 0.95))
    lowest = np.clip(low - TAIL_REACH * (middle - low), 0.0, low)
    highest = np.clip(high + TAIL_REACH * (high - middle), high, np.maximum(top, high))
    knots = np.concatenate([lowest[:, None], quantiles, highest[:, None]], axis=1)
    out: Floats = knots @ _weights((0.0, *levels, 1.0), at)
    rising = mean >= out.mean(axis=1)
    three = np.stack([low, middle, high], axis=1)
    tails = np.where(rising[:, None], np.stack([low, top], axis=1), np.stack([np.zeros_like(low), high], axis=1))
    tails = np.sort(tails, axis=1)
    below, above = at < 0.05, at > 0.95
    _towards(out, np.where(below[None, :], tails[:, :1], tails[:, 1:]), mean, (below | above).astype(np.float32))
    left, right = (at >= 0.05) & (at < 0.5), (at > 0.5) & (at <= 0.95)
    upward = np.where(left[None, :], three[:, 1:2], three[:, 2:])
    downward = np.where(left[None, :], three[:, :1], three[:, 1:2])
    hat = np.where(left, (at - 0.05) * (0.5 - at), (at - 0.5) * (0.95 - at)) * (left | right) * (4 / 0.45**2)
    _towards(out, np.where(rising[:, None], upward, downward), mean, hat.astype(np.float32))
    out.sort(axis=1)
    return out


def _towards(out: Floats, extreme: Floats, mean: Floats, yielding: Floats) -> None:
    """Move every row towards its extreme, each level as far as it yields and the row's mean still needs, in place."""
    room = (extreme - out) * yielding
    reach = room.mean(axis=1)
    lacking = mean - out.mean(axis=1)
    share = np.divide(lacking, reach, out=np.zeros_like(lacking), where=np.abs(reach) > 1e-9)
    out += np.clip(share, 0.0, 1.0)[:, None] * room


def _at(levels: Sequence[float], level: float) -> int:
    return tuple(levels).index(level)


def _weights(levels: Sequence[float], at: NDArray[np.float64]) -> Floats:
    """Matrix (Q, count) of linear interpolation between levels."""
    unit = np.eye(len(levels))
    return np.stack([np.interp(at, levels, row) for row in unit]).astype(np.float32)
