"""LearnedDemand: ridge regression and boosted trees over all VMs, with quantiles that were calibrated on VMs kept back.

The mean is ``base`` plus a linear change plus what trees add to it (squared error); quantiles are trees of their own
(pinball error), the median blended with the naive ways as far as they did better on data kept back, and the distances of
the outer quantiles from the median stretched so that the promised share of data kept back lies between them (conformalised
quantile regression: Romano, Patterson, Candès 2019). Steps between the learned ones are interpolated in √step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.features import KNOTS, Features, base_at, features
from rebalancerd.predict.demand.forecast import Forecast
from rebalancerd.predict.demand.learned_state import DemandState, check_demand_state
from rebalancerd.predict.demand.naive import LEVELS
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.past import Past, past_of
from rebalancerd.predict.demand.recorded import limit
from rebalancerd.predict.demand.threads import one_thread

Floats = NDArray[np.float32]

MIDDLE = LEVELS.index(0.5)
CHUNK = 4096
MEAN_2H = 3  # among features.MEANS
LONGEST_GROWTH = 2.0  # of the spread beyond the last knot


@dataclass(frozen=True, slots=True)
class AtKnots:
    """What the parts say at the learned steps, in shares: ``mean`` (N, K), ``quantiles`` (N, K, Q), not decreasing."""

    mean: Floats
    quantiles: Floats


class LearnedDemand:
    """Implements ``forecast.Forecaster``. Answers the same for the same panel, and serves CPU and memory alike."""

    def __init__(self, state: DemandState, basis: str = "demand") -> None:
        self.state, self._basis = state, basis

    @property
    def basis(self) -> str:
        """The model's id."""
        return self._basis

    @classmethod
    def of_state(cls, state: Mapping[str, Any], basis: str) -> "LearnedDemand":
        """The model whose ``state`` that is. Raises ValueError naming what is missing or of another kind."""
        return cls(check_demand_state(state), basis)

    def recalibrated(self, factor_low: float, factor_high: float) -> "LearnedDemand":
        """The same model with the lower and upper quantiles' distances from the median multiplied. Raises ValueError unless both are positive."""
        if not (0 < factor_low < np.inf and 0 < factor_high < np.inf):
            raise ValueError(f"factors of calibration must be positive: {factor_low}, {factor_high}")
        factors = np.asarray(self.state["stretch"], dtype=np.float64) * [factor_low, factor_high]
        state: DemandState = {**self.state, "stretch": factors}
        return LearnedDemand(state, self._basis)

    def forecast(self, panel: Panel, steps: Sequence[int]) -> Forecast:
        """Forecast every VM. One that nothing is known of may ask for anything from 0 to its size."""
        steps = tuple(int(s) for s in steps)
        past = past_of(panel, KNOTS)
        shape = (len(past), len(steps))
        mean, quantiles = np.empty(shape, np.float32), np.empty((*shape, len(LEVELS)), np.float32)
        with one_thread():
            for start in range(0, len(past), CHUNK):
                part = slice(start, start + CHUNK)
                mean[part], quantiles[part] = self._part(past.part(part), steps)
        top = limit(past.values)
        return Forecast(
            steps=steps,
            mean=np.clip(mean, 0.0, top[:, None]),
            levels=LEVELS,
            quantiles=np.clip(quantiles, 0.0, top[:, None, None]),
            basis=self._basis,
        )

    def _part(self, past: Past, steps: tuple[int, ...]) -> tuple[Floats, Floats]:
        found = features(past, KNOTS, clock=bool(self.state["clock"]))
        known = np.isfinite(found.now)
        at = at_knots(self.state, found)
        base = base_at(past, np.nan_to_num(found.now), found.season_weight, steps)
        between, growth = _between(steps)
        mean = base + (at.mean - found.base) @ between
        quantiles = base[..., None] + np.einsum("nkq,kh->nhq", at.quantiles - found.base[..., None], between)
        middle = quantiles[..., MIDDLE : MIDDLE + 1]
        quantiles = middle + (quantiles - middle) * growth[:, None]
        mean[~known] = 0.5
        quantiles[~known] = LEVELS
        return mean.astype(np.float32), quantiles.astype(np.float32)


def at_knots(state: DemandState, found: Features) -> AtKnots:
    """The calibrated answer at the learned steps."""
    raw = raw_at_knots(state, found)
    now, mean_2h = found.now, found.now + np.nan_to_num(found.linear[:, MEAN_2H])
    top = np.maximum(1.0, now)
    quantiles = np.empty_like(raw.quantiles)
    for k in range(len(KNOTS)):
        blend, stretch = np.asarray(state["median"])[k], np.asarray(state["stretch"])[k]
        middle = blend[0] * raw.quantiles[:, k, MIDDLE] + blend[1] * now + blend[2] * mean_2h
        quantiles[:, k] = stretched(raw.quantiles[:, k], middle, stretch, top)
    return AtKnots(raw.mean, quantiles)


def stretched(quantiles: Floats, middle: Floats, factors: NDArray[np.float64], top: Floats) -> Floats:
    """Quantiles (N, Q) about another median, the distances from it multiplied by a lower and an upper factor, in bounds."""
    factor = np.where(np.arange(quantiles.shape[1]) < MIDDLE, factors[0], factors[1])
    away = quantiles - middle[:, None]
    away[:, :MIDDLE] = np.minimum(away[:, :MIDDLE], 0.0)
    away[:, MIDDLE + 1 :] = np.maximum(away[:, MIDDLE + 1 :], 0.0)
    away[:, MIDDLE] = 0.0
    out = np.clip(middle[:, None] + away * factor, 0.0, top[:, None])
    return np.sort(out, axis=1).astype(np.float32)


def raw_at_knots(state: DemandState, found: Features) -> AtKnots:
    """What the parts say before calibration."""
    rows = len(found.now)
    mean = np.empty((rows, len(KNOTS)), dtype=np.float32)
    quantiles = np.empty((rows, len(KNOTS), len(LEVELS)), dtype=np.float32)
    for k in range(len(KNOTS)):
        line = linear_change(np.asarray(state["ridge"])[k], found, k)
        table = table_of(found, k, line)
        share = float(np.asarray(state["trees_share"])[k])
        mean[:, k] = found.base[:, k] + line + share * found.scale * state["means"][k].predict(table)
        for q, level in enumerate(LEVELS):
            quantiles[:, k, q] = found.base[:, k] + found.scale * state["quantiles"][f"{level:g}"][k].predict(table)
    top = np.maximum(1.0, found.now)[:, None]
    return AtKnots(np.clip(mean, 0.0, top), np.sort(np.clip(quantiles, 0.0, top[..., None]), axis=2))


def linear_change(coefficients: NDArray[np.float64], found: Features, knot: int) -> Floats:
    """What the linear part adds to ``base`` at a knot, in shares: (N,)."""
    change: Floats = linear_table(found, knot) @ coefficients.astype(np.float32)
    return change


def linear_table(found: Features, knot: int) -> Floats:
    """Inputs of the linear part at a knot: (N, L)."""
    base = (found.base[:, knot] - found.now)[:, None]
    table: Floats = np.nan_to_num(np.concatenate([found.linear, found.linear_of_knot[:, knot], base], axis=1))
    return table


def table_of(found: Features, knot: int, line: Floats) -> NDArray[np.float64]:
    """Inputs of the trees at a knot, in the order of ``features.FEATURES``: (N, F)."""
    of_knot = found.of_knot[:, knot].copy()
    of_knot[:, -1] = line / found.scale
    table: NDArray[np.float64] = np.concatenate([found.common, of_knot], axis=1, dtype=np.float64)
    return table


def _between(steps: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Weights (K, H) of the knots at each step, and how much wider than at the last knot (H,)."""
    roots = np.sqrt(np.array(KNOTS, dtype=float))
    at = np.sqrt(np.array(steps, dtype=float))
    weights = np.stack([np.interp(at, roots, row) for row in np.eye(len(KNOTS))]).reshape(len(KNOTS), len(steps))
    growth = np.clip(at / roots[-1], 1.0, LONGEST_GROWTH)
    return weights.astype(np.float32), growth.astype(np.float32)
