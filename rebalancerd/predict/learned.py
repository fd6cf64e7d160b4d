"""LearnedCost: a simulated pre-copy whose constants were fitted to real migrations, corrected by what they really took.

Three layers: the constants of the simulation (``calibration``); regressors of log(actual ÷ simulated) for duration,
downtime and bytes, and of the guest's slowdown itself; and upper bounds by conformal calibration on migrations the rest
had not seen (Lei et al. 2018, "Distribution-free predictive inference for regression"), scaled by a regressor of how far
off the prediction usually is. A classifier predicts P(does not converge). Where an input is unknown, or unlike anything
the model was trained on, its bounds are never below those of physics.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.cost import Candidate
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.alike import Alike
from rebalancerd.predict.calibration import Calibrated, Calibration
from rebalancerd.predict.cost import MISSING, Physics
from rebalancerd.predict.cost_columns import Column, CostColumns
from rebalancerd.predict.cost_features import CHANCE_FEATURES, FEATURES, FIGURE_COLUMNS, features
from rebalancerd.predict.cost_inputs import CostInputs
from rebalancerd.predict.cost_state import CostState, check_state
from rebalancerd.predict.estimators import predicted
from rebalancerd.predict.settings import PredictSettings

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
UNLIKE = "like_training"  # named in inputs_missing where a feature lies outside what the model was trained on
CHANCE_COLUMNS = {view: [FEATURES.index(name) for name in names] for view, names in CHANCE_FEATURES.items()}
CORRECTION_MOST = 1.5  # log; a larger correction says that something else is wrong, and the bound is to say so
WIDENING_MOST = 3.0  # log
LEAST_SPREAD = 0.02


class LearnedCost:
    """A fitted cost model; implements ``interface.CostModel``. Post-copy is given no credit, as in physics."""

    features = FEATURES

    def __init__(self, state: CostState, model_id: str, settings: PredictSettings) -> None:
        self.state: dict[str, Any] = dict(state)
        self.model_id = model_id
        self._state, self._settings = state, settings
        self._constants = Calibration.of(state["calibration"])

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
        if not len(inputs):
            return physics.columns()
        found, base = features(physics, self._constants)
        unlike = inputs.known & _unlike(found, self._state["lows"], self._state["highs"])
        missing = np.column_stack((physics.missing(), unlike))
        doubtful = np.asarray(missing.any(axis=1))
        # simulated at seven levels: asked only where their bounds are needed
        cautious = physics.columns() if doubtful.any() else None
        columns = {
            name: _cautious(column, getattr(cautious, name) if cautious is not None else None, doubtful, inputs.known)
            for name, column in self._columns(found, base, physics.kind).items()
        }
        columns["seconds"] = _lifted(columns["seconds"], columns["downtime_seconds"])
        return CostColumns(
            **columns,
            basis=np.where(inputs.known, 1, 0).astype(np.int8),
            bases=("physics", self.model_id),
            missing=missing,
            missing_names=(*MISSING, UNLIKE),
        )

    def _columns(self, found: Floats, base: Calibrated, kind: NDArray[np.intp]) -> dict[str, Column]:
        """Every figure as the model has it, whatever is doubtful; candidates that look alike are asked for once."""
        alike = Alike.of(*found.T, kind)
        made = self._alike_columns(found[alike.first], base, kind[alike.first])
        return {name: Column(value=c.value[alike.kind], upper=c.upper[alike.kind]) for name, c in made.items()}

    def _alike_columns(self, found: Floats, base: Calibrated, kind: NDArray[np.intp]) -> dict[str, Column]:
        made: dict[str, Column] = {}
        for name in ("seconds", "downtime_seconds", "bytes"):
            ratio = self._state["shares"][name] * mean_of(self._state["regressors"][name], found)
            ratio = np.clip(ratio, -CORRECTION_MOST, CORRECTION_MOST)
            value = getattr(base, name)[kind] * np.exp(ratio)
            width = self._state["quantiles"][name] * spread_of(self._state["spreads"][name], found)
            made[name] = Column.of(value, value * np.exp(np.minimum(WIDENING_MOST, width)))
        value = np.clip(mean_of(self._state["regressors"]["slowdown"], found), 0.0, 1.0)
        width = self._state["quantiles"]["slowdown"] * spread_of(self._state["spreads"]["slowdown"], found)
        made["slowdown"] = Column.of(value, np.clip(value + width, 0.0, 1.0))
        seen = is_seen(found)
        chance, upper = np.empty(len(found)), np.empty(len(found))
        for view, mine in (("seen", seen), ("unseen", ~seen)):
            if mine.any():
                chance[mine] = chance_of(self._state["classifiers"][view], found[mine], view)
                upper[mine] = lifted_chance(chance[mine], self._state["chance_factors"][view])
        made["non_convergence"] = Column.of(chance, upper)
        return made


def is_seen(found: Floats) -> Bools:
    """Whether the dirty curve was looked into as far as the allowed downtime, shape (N,)."""
    seen: Bools = found[:, FEATURES.index("switch_seen")] == 1.0
    return seen


def mean_of(regressors: Sequence[Any], found: Floats) -> Floats:
    """Mean prediction from all features, of which a figure's regressors take their own; shape (N,)."""
    told = found[:, FIGURE_COLUMNS]
    total: Floats = np.mean([predicted(r, told) for r in regressors], axis=0)
    return total


def spread_of(regressor: Any, found: Floats) -> Floats:
    """How far off the prediction usually is; a floor keeps a lucky neighbourhood from promising too much."""
    return np.maximum(predicted(regressor, found[:, FIGURE_COLUMNS]), LEAST_SPREAD)


def chance_of(classifiers: Sequence[Any], found: Floats, view: str) -> Floats:
    """P(does not converge), shape (N,), never quite sure; of all features, of which a view's classifiers take their own."""
    told = found[:, CHANCE_COLUMNS[view]]
    chances = np.mean([c.predict_proba(told)[:, 1] for c in classifiers], axis=0)
    clipped: Floats = np.clip(chances, 0.001, 0.999)
    return clipped


def lifted_chance(chance: Floats, factor: float) -> Floats:
    """Upper bound of a chance p: its odds times ``factor``."""
    odds = chance / (1 - chance) * factor
    lifted: Floats = np.clip(odds / (1 + odds), 0.002, 1.0)
    return lifted


def _unlike(found: Floats, lows: Floats, highs: Floats) -> Bools:
    """Whether any known feature lies outside the training data's range."""
    with np.errstate(invalid="ignore"):
        outside: Bools = np.asarray(((found < lows) | (found > highs)).any(axis=1))
    return outside


def _cautious(column: Column, physics: Column | None, doubtful: Bools, known: Bools) -> Column:
    """A doubtful row's bound is not below that of physics; of a VM that is not there nothing is known."""
    if physics is None:
        return column
    value = np.where(known, column.value, physics.value)
    upper = np.where(doubtful, np.maximum(column.upper, physics.upper), column.upper)
    return Column.of(value, np.where(known, upper, physics.upper))


def _lifted(seconds: Column, downtime: Column) -> Column:
    """No migration is shorter than its downtime."""
    return Column.of(np.maximum(seconds.value, downtime.value), np.maximum(seconds.upper, downtime.upper))
