"""LearnedCost: physics corrected by what real migrations took, with bounds calibrated on migrations it had not seen.

For duration, downtime and bytes it predicts log(actual ÷ physics), for the guest's slowdown the share itself, each as the
mean of a few scikit-learn regressors over the same features; a second regressor predicts how far off that usually is,
and conformal calibration (Lei et al. 2018, "Distribution-free predictive inference for regression") turns it into an
upper bound. A classifier predicts P(does not converge). Where an input is unknown, or unlike anything it was trained
on, its bounds are never below those of physics.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.cost import Candidate
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.cost import MISSING, Physics
from rebalancerd.predict.cost_columns import Column, CostColumns
from rebalancerd.predict.cost_features import FEATURES, features
from rebalancerd.predict.cost_inputs import CostInputs
from rebalancerd.predict.cost_state import CostState, check_state
from rebalancerd.predict.settings import PredictSettings

Floats = NDArray[np.float64]
UNLIKE = "like_training"  # named in inputs_missing where a feature lies outside what the model was trained on
RATIO_MOST = 3.0  # no correction by more than e³: beyond that something else is wrong, and the bound says so


class LearnedCost:
    """A fitted cost model; implements ``interface.CostModel``. Post-copy is given no credit, as in physics."""

    features = FEATURES

    def __init__(self, state: CostState, model_id: str, settings: PredictSettings) -> None:
        self.state: dict[str, Any] = dict(state)
        self.model_id = model_id
        self._state, self._settings = state, settings

    @classmethod
    def of_state(cls, state: dict[str, Any], model_id: str, settings: PredictSettings) -> "LearnedCost":
        """A model from what was read from a file. Raises ValueError naming what is wrong with it."""
        return cls(check_state(state), model_id, settings)

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> CostColumns:
        """One cost per candidate, in their order; ``inputs_missing`` names what widened the bounds."""
        return self._predict(CostInputs.of_snapshot(snapshot, candidates, self._settings.deadline_seconds))

    def predict_facts(self, facts: Sequence[MigrationFacts], deadline_seconds: Sequence[float]) -> CostColumns:
        """The same of migrations on record, each with its own deadline (seconds)."""
        return self._predict(CostInputs.of_facts(facts, deadline_seconds))

    def _predict(self, inputs: CostInputs) -> CostColumns:
        physics = Physics(inputs, self._settings)
        base, found = physics.columns(), features(physics)
        unlike = inputs.known & _unlike(found, self._state["lows"], self._state["highs"])
        missing = np.column_stack((physics.missing(), unlike))
        doubtful = missing.any(axis=1)
        columns = {name: self._corrected(name, base, found, doubtful) for name in ("seconds", "downtime_seconds", "bytes")}
        return CostColumns(
            seconds=_lifted(columns["seconds"], columns["downtime_seconds"]),
            downtime_seconds=columns["downtime_seconds"],
            bytes=columns["bytes"],
            slowdown=self._slowdown(base, found, doubtful),
            non_convergence=self._non_convergence(base, found, doubtful),
            basis=np.where(inputs.known, 1, 0).astype(np.int8),
            bases=("physics", self.model_id),
            missing=missing,
            missing_names=(*MISSING, UNLIKE),
        )

    def _corrected(self, name: str, base: CostColumns, found: Floats, doubtful: NDArray[np.bool_]) -> Column:
        physics: Column = getattr(base, name)
        ratio = np.clip(_mean(self._state["regressors"][name], found), -RATIO_MOST, RATIO_MOST)
        spread = _spread(self._state["spreads"][name], found)
        with np.errstate(invalid="ignore"):
            value = physics.value * np.exp(ratio)
            upper = value * np.exp(np.minimum(RATIO_MOST, self._state["quantiles"][name] * spread))
        return _within(value, upper, physics, doubtful)

    def _slowdown(self, base: CostColumns, found: Floats, doubtful: NDArray[np.bool_]) -> Column:
        value = np.clip(_mean(self._state["regressors"]["slowdown"], found), 0.0, 1.0)
        spread = _spread(self._state["spreads"]["slowdown"], found)
        upper = np.clip(value + self._state["quantiles"]["slowdown"] * spread, 0.0, 1.0)
        return _within(value, upper, base.slowdown, doubtful)

    def _non_convergence(self, base: CostColumns, found: Floats, doubtful: NDArray[np.bool_]) -> Column:
        chances = np.mean([c.predict_proba(found)[:, 1] for c in self._state["classifiers"]], axis=0)
        value = np.clip(chances, 0.001, 0.999)
        upper = np.clip(chances * self._state["chance_factor"], 0.002, 1.0)
        return _within(value, upper, base.non_convergence, doubtful)


def _mean(regressors: Sequence[Any], found: Floats) -> Floats:
    total: Floats = np.mean([r.predict(found) for r in regressors], axis=0)
    return total


def _spread(regressor: Any, found: Floats) -> Floats:
    """How far off the prediction usually is; a floor keeps a lucky neighbourhood from promising too much."""
    return np.maximum(np.asarray(regressor.predict(found), dtype=np.float64), 0.02)


def _unlike(found: Floats, lows: Floats, highs: Floats) -> NDArray[np.bool_]:
    """Whether any known feature lies outside the training data's range."""
    with np.errstate(invalid="ignore"):
        outside: NDArray[np.bool_] = ((found < lows) | (found > highs)).any(axis=1)
    return outside


def _within(value: Floats, upper: Floats, physics: Column, doubtful: NDArray[np.bool_]) -> Column:
    """The column; a doubtful row's bound is not below that of physics, and a row of which nothing is known stays so."""
    nothing = ~np.isfinite(physics.upper) | ~np.isfinite(value)
    value = np.where(nothing, physics.value, value)
    upper = np.where(nothing, physics.upper, np.where(doubtful, np.maximum(upper, physics.upper), upper))
    return Column.of(value, upper)


def _lifted(seconds: Column, downtime: Column) -> Column:
    """No migration is shorter than its downtime."""
    return Column.of(np.maximum(seconds.value, downtime.value), np.maximum(seconds.upper, downtime.upper))
