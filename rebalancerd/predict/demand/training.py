"""Training of the demand model on recorded load of any number of VMs: public traces, a cluster's own history, synthetic load.

    train_demand([TrainingSeries(values=shares, step_seconds=300.0, start=epoch), ...], seed=1, model_id="demand-…")

The base model is trained on traces whose licence allows it plus ``synthetic.synthetic_series``, all with ``clock=False``
(another cluster keeps other hours); a cluster's own model on its own history, one series per uninterrupted stretch, plus
the base's series if there are few of its own. What blends and calibrates is fitted on windows that were kept back: other
VMs, or the last part of the time where that is long.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.features import FEATURES, KNOTS, Features
from rebalancerd.predict.demand.learned import (
    MEAN_2H,
    MIDDLE,
    LearnedDemand,
    linear_change,
    linear_table,
    raw_at_knots,
    stretched,
    table_of,
)
from rebalancerd.predict.demand.learned_state import LINEAR_INPUTS, DemandState
from rebalancerd.predict.demand.naive import LEVELS
from rebalancerd.predict.demand.windows import TrainingSeries, Windows, windows_of

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]
Bools = NDArray[np.bool_]

WINDOWS = 60_000
LEAST_WINDOWS = 2_000
LEAST_KEPT_BACK = 400
RIDGE_PENALTY = 3e-4  # of the mean square of the inputs
OUTSIDE = 0.05  # share of what comes that may lie beyond either outer quantile
STRETCH_BOUNDS = (0.6, 2.5)
BINS = 200
MEDIAN_GRID = 10  # weights in tenths
MEAN_SIZE: dict[str, Any] = {"max_iter": 100, "max_leaf_nodes": 20, "min_samples_leaf": 80, "learning_rate": 0.06}
QUANTILE_SIZE: dict[str, Any] = {"max_iter": 80, "max_leaf_nodes": 15, "min_samples_leaf": 80, "learning_rate": 0.08}

__all__ = ["TrainingSeries", "train_demand"]


def train_demand(
    panels: Sequence[TrainingSeries], *, seed: int, model_id: str = "", windows: int = WINDOWS
) -> LearnedDemand:
    """Fit a model. ``windows``: how many are sampled at most. Equal input and seed give equal models.

    Raises ValueError if too little is recorded to learn from.
    """
    if not panels:
        raise ValueError("no recorded load to learn demand from")
    sampled = windows_of(panels, windows, seed)
    fitted, kept = ~sampled.kept_back, sampled.kept_back
    if fitted.sum() < LEAST_WINDOWS or kept.sum() < LEAST_KEPT_BACK:
        need = f"{LEAST_WINDOWS} and {LEAST_KEPT_BACK} are needed"
        raise ValueError(f"{fitted.sum()} windows to learn demand from and {kept.sum()} to calibrate on: {need}")
    state = _fit(sampled, fitted, seed, any(s.long if s.clock is None else s.clock for s in panels))
    _calibrate(state, sampled, kept)
    # what was kept back has told how far the parts are to be believed, and teaches now
    state["means"] = [_fit_mean(sampled, fitted | kept, state["ridge"][k], k, seed) for k in range(len(KNOTS))]
    return LearnedDemand(state, model_id or f"demand-{seed}")


def _fit(sampled: Windows, fitted: Bools, seed: int, clock: bool) -> DemandState:
    """All parts, as yet neither blended nor calibrated."""
    found = sampled.found
    ridge: Numbers = np.zeros((len(KNOTS), LINEAR_INPUTS))
    means: list[Any] = []
    quantiles: dict[str, list[Any]] = {f"{level:g}": [] for level in LEVELS}
    for k in range(len(KNOTS)):
        rows = fitted & np.isfinite(sampled.came[:, k]) & np.isfinite(found.now)
        ridge[k] = _ridge(linear_table(found, k)[rows], (sampled.came[:, k] - found.base[:, k])[rows])
        line = linear_change(ridge[k], found, k)
        table = _coarse(table_of(found, k, line)[rows])
        scale, off = found.scale[rows], (sampled.came[:, k] - found.base[:, k])[rows]
        weight = scale / scale.mean()
        means.append(_fit_mean(sampled, fitted, ridge[k], k, seed))
        for level in LEVELS:
            quantiles[f"{level:g}"].append(_trees(table, off / scale, weight, level=level, seed=seed))
    return DemandState(
        features=list(FEATURES),
        knots=list(KNOTS),
        levels=list(LEVELS),
        ridge=ridge,
        trees_share=np.ones(len(KNOTS)),
        means=means,
        quantiles=quantiles,
        median=np.tile([1.0, 0.0, 0.0], (len(KNOTS), 1)),
        stretch=np.ones((len(KNOTS), 2)),
        clock=clock,
    )


def _fit_mean(sampled: Windows, chosen: Bools, ridge: Numbers, knot: int, seed: int) -> Any:
    """Trees of what the linear part leaves of the mean at a knot, from those windows."""
    found, came = sampled.found, sampled.came[:, knot]
    rows = chosen & np.isfinite(came) & np.isfinite(found.now)
    line = linear_change(ridge, found, knot)
    table, scale = _coarse(table_of(found, knot, line)[rows]), found.scale[rows]
    left = (came - found.base[:, knot] - line)[rows]
    return _trees(table, left / scale, (scale / scale.mean()) ** 2, level=None, seed=seed)


def _ridge(x: Floats, y: Floats) -> Numbers:
    """Coefficients without an intercept: a VM that never changes is forecast not to."""
    wide = x.astype(np.float64)
    gram = wide.T @ wide
    penalty = RIDGE_PENALTY * max(float(np.trace(gram)) / len(gram), 1e-12)
    return np.asarray(
        np.linalg.solve(gram + penalty * np.eye(len(gram)), wide.T @ y.astype(np.float64)), dtype=np.float64
    )


def _trees(x: Numbers, y: Floats, weight: Floats, *, level: float | None, seed: int) -> Any:
    """Errors are weighted so that, in shares of a VM's size, every window counts alike."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    size = MEAN_SIZE if level is None else QUANTILE_SIZE
    model = HistGradientBoostingRegressor(
        loss="squared_error" if level is None else "quantile",
        quantile=level,
        max_features=0.5,
        l2_regularization=5.0 if level is None else 0.0,
        early_stopping=False,
        random_state=seed,
        **size,
    )
    return model.fit(x, y, sample_weight=weight)


def _coarse(table: Numbers) -> Numbers:
    """Every column at no more than ``BINS`` values, the middles of as many equally full bins.

    scikit-learn works bins out anew for every fit, and slowly where rows have weights; of so few values it takes each for
    a bin. A column of which nothing is known cannot be binned: as a constant it is never split on.
    """
    out = table.copy()
    for column in out.T:
        known = np.isfinite(column)
        if not known.any():
            column[:] = 0.0
            continue
        edges = np.unique(np.quantile(column[known], np.linspace(0, 1, BINS + 1)[1:-1], method="lower"))
        place = np.searchsorted(edges, column[known], side="right")
        total = np.bincount(place, weights=column[known], minlength=len(edges) + 1)
        count = np.bincount(place, minlength=len(edges) + 1)
        column[known] = (total / np.maximum(count, 1))[place]
    return out


def _calibrate(state: DemandState, sampled: Windows, kept: Bools) -> None:
    """Blend and stretch, on windows kept back, in place."""
    rows = np.flatnonzero(kept & np.isfinite(sampled.found.now))
    found = _some(sampled.found, rows)
    came = sampled.came[rows]
    raw = raw_at_knots(state, found)
    now, mean_2h = found.now, found.now + found.linear[:, MEAN_2H]
    top = np.maximum(1.0, now)
    for k in range(len(KNOTS)):
        told = np.isfinite(came[:, k])
        y = came[told, k]
        line = found.base[told, k] + linear_change(state["ridge"][k], found, k)[told]
        added = raw.mean[told, k] - line
        state["trees_share"][k] = min(1.0, max(0.0, float(added @ (y - line)) / max(float(added @ added), 1e-12)))
        candidates = np.stack([raw.quantiles[told, k, MIDDLE], now[told], mean_2h[told]], axis=1)
        state["median"][k] = _best_blend(candidates, y)
        middle = candidates @ state["median"][k].astype(np.float32)
        quantiles = stretched(raw.quantiles[told, k], middle, np.ones(2), top[told])
        below, above = quantiles[:, MIDDLE] - quantiles[:, 0], quantiles[:, -1] - quantiles[:, MIDDLE]
        off = y - quantiles[:, MIDDLE]
        state["stretch"][k] = _stretch(-off, below), _stretch(off, above)


def _best_blend(candidates: Floats, came: Floats) -> Numbers:
    """Weights on the candidates (M, 3), tenths that sum to 1, of the least mean absolute error."""
    grid = [(i, j, MEDIAN_GRID - i - j) for i, j in product(range(MEDIAN_GRID + 1), repeat=2) if i + j <= MEDIAN_GRID]
    weights = np.array(grid, dtype=np.float32) / MEDIAN_GRID
    errors = [float(np.mean(np.abs(candidates @ w - came))) for w in weights]
    best: Numbers = weights[int(np.argmin(errors))].astype(np.float64)
    return best


def _stretch(off: Floats, reach: Floats) -> float:
    """The factor on ``reach`` beyond which ``off`` lies with probability ``OUTSIDE``; where both are nothing, nothing is told."""
    told = (reach > 1e-6) | (np.abs(off) > 1e-6)
    if not told.any():
        return 1.0
    with np.errstate(divide="ignore"):
        ratio = np.where(
            reach[told] > 1e-6, off[told] / np.maximum(reach[told], 1e-6), np.where(off[told] > 0, np.inf, 0.0)
        )
    ordered = np.sort(ratio)
    at = min(len(ordered) - 1, int(np.ceil((1 - OUTSIDE) * (len(ordered) + 1))) - 1)
    return float(np.clip(ordered[at], *STRETCH_BOUNDS))


def _some(found: Features, rows: NDArray[np.intp]) -> Features:
    return Features(*(getattr(found, name)[rows] for name in Features.__slots__))
