"""Training of the cost model on migrations that have ended: the shipped ones, and a cluster's own.

Everything that is promised of a bound is calibrated on rows that the parts behind it had not seen: each group (a family
of workloads in shipped data, a stretch of time in a cluster's own) is predicted by a model of the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.cluster.units import MIB
from rebalancerd.predict.calibration import Calibration, Measured, fit_calibration
from rebalancerd.predict.cost import Physics
from rebalancerd.predict.cost_features import FEATURES, FIGURE_COLUMNS, features
from rebalancerd.predict.cost_inputs import CostInputs
from rebalancerd.predict.cost_state import REGRESSED, CostState
from rebalancerd.predict.dataset import sound
from rebalancerd.predict.estimators import classifiers, fit, regressors, spread_regressor
from rebalancerd.predict.learned import (
    CHANCE_COLUMNS,
    LEAST_SPREAD,
    LearnedCost,
    chance_of,
    is_seen,
    mean_of,
    spread_of,
)
from rebalancerd.predict.likeness import likeness
from rebalancerd.predict.scoring import CHANCE_LIMIT, CostScore, score_cost
from rebalancerd.predict.settings import PredictSettings

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_ROWS, LEAST_FAILING = 60, 8
LEAST_VIEW_ROWS = 40
VISIBLE_BYTES = 4.0 * MIB  # less is what the guest's own kernel does
OWN_GROUPS = 5
COVERAGE = 0.91  # of the bounds on unseen groups; a little above the 90 % that is promised
CHANCE_MISSED = 0.02  # share of unseen runs that never ended and may fall below CHANCE_LIMIT
CHANCE_AIMED = 0.015  # a little under what is promised
CAUTIOUS_FACTOR = 10.0
DISTURBED_WEIGHT = 0.3
CONCURRENT_WEIGHT = 0.6  # what one of two takes depends on the other, which nobody knows before
OWN_ROWS_EVEN = 30.0  # so many own rows weigh as much as all shipped ones together
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
REFIT_ITERATIONS = 300  # of constants that start from those of all rows


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows as arrays, shape (N,): weights, groups, outcome, and what was told of each figure (NaN: nothing)."""

    rows: list[LabelledMigration]
    physics: Physics
    weights: Floats
    groups: NDArray[np.int64]
    succeeded: Bools
    told: dict[str, Floats]

    def measured(self) -> Measured:
        """For the fit of the constants."""
        return Measured(
            succeeded=self.succeeded,
            seconds=self.told["seconds"],
            downtime_seconds=self.told["downtime_seconds"],
            bytes=self.told["bytes"],
            weights=self.weights,
        )


@dataclass(frozen=True, slots=True)
class _Table:
    """Features (N, F) under some constants, and each figure's target."""

    found: Floats
    targets: dict[str, Floats]

    @property
    def of_figures(self) -> Floats:
        """The features that a figure's regressors take."""
        return self.found[:, FIGURE_COLUMNS]


def train_cost(
    rows: Sequence[LabelledMigration],
    settings: PredictSettings,
    *,
    own: Sequence[LabelledMigration] = (),
    seed: int,
    model_id: str = "",
) -> LearnedCost:
    """Fit a model on shipped rows and a cluster's own, the shipped ones weighted by their likeness to the latter.

    Rows that cannot be (``dataset.sound``) are left out. Raises ValueError if too few are left to learn from.
    """
    shipped, own = ([r for r in part if sound(r) is None] for part in (rows, own))
    failing = sum(not r.succeeded for r in (*shipped, *own))
    if len(shipped) + len(own) < LEAST_ROWS:
        raise ValueError(f"{len(shipped) + len(own)} usable rows: {LEAST_ROWS} are needed to learn from")
    if failing < LEAST_FAILING:
        raise ValueError(f"{failing} rows that did not converge: {LEAST_FAILING} are needed")
    every = _rows(shipped, own, settings)
    constants = fit_calibration(every.physics, every.measured())
    every = _weighted(every, constants, len(shipped))
    if own:
        constants = fit_calibration(every.physics, every.measured(), constants)
    table = _table(every, constants)
    unseen = _unseen_tables(every, constants, settings)
    parts: dict[str, dict[str, Any]] = {"regressors": {}, "shares": {}, "spreads": {}, "quantiles": {}}
    for name in REGRESSED:
        fitted = _fit_figure(every, table, unseen, name, seed)
        for part, value in zip(parts, fitted, strict=True):
            parts[part][name] = value
    chance = _fit_chance(every, table, unseen)
    state = CostState(
        features=list(FEATURES),
        calibration=constants.values(),
        regressors=parts["regressors"],
        shares=parts["shares"],
        spreads=parts["spreads"],
        quantiles=parts["quantiles"],
        classifiers=chance.classifiers,
        chance_factors=chance.factors,
        lows=np.where(np.isnan(table.found), np.inf, table.found).min(axis=0),
        highs=np.where(np.isnan(table.found), -np.inf, table.found).max(axis=0),
    )
    return LearnedCost(state, model_id or f"cost-{seed}", settings)


def _physics(rows: Sequence[LabelledMigration], settings: PredictSettings) -> Physics:
    return Physics(CostInputs.of_facts([r.facts for r in rows], [r.deadline_seconds for r in rows]), settings)


def _rows(shipped: list[LabelledMigration], own: list[LabelledMigration], settings: PredictSettings) -> _Rows:
    rows = [*shipped, *own]
    succeeded = np.array([r.succeeded for r in rows], dtype=np.bool_)
    names = sorted({r.family for r in shipped})
    groups = [names.index(r.family) for r in shipped]
    groups += [len(names) + i * OWN_GROUPS // max(1, len(own)) for i in range(len(own))]
    weights = np.array([DISTURBED_WEIGHT if r.disturbed else 1.0 for r in rows])
    weights *= [CONCURRENT_WEIGHT if r.concurrent > 1 else 1.0 for r in rows]
    told = {
        name: np.array([np.nan if (v := getattr(r, name)) is None or not r.succeeded else float(v) for r in rows])
        for name in REGRESSED
    }
    return _Rows(rows, _physics(rows, settings), weights, np.array(groups, dtype=np.int64), succeeded, told)


def _weighted(every: _Rows, constants: Calibration, shipped: int) -> _Rows:
    """The rows with the shipped ones weighted by likeness to the own, and the own ones by how many they are."""
    found, _ = features(every.physics, constants)
    weights = every.weights.copy()
    weights[:shipped] *= likeness(found[:shipped], found[shipped:])
    own = len(weights) - shipped
    if shipped and own:
        weights[shipped:] *= max(1.0, weights[:shipped].sum() / OWN_ROWS_EVEN)
    return _Rows(every.rows, every.physics, weights, every.groups, every.succeeded, every.told)


def _table(every: _Rows, constants: Calibration) -> _Table:
    found, base = features(every.physics, constants)
    kind = every.physics.kind
    targets = {}
    for name in REGRESSED:
        if name == "slowdown":
            targets[name] = every.told[name]
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            target = np.log(every.told[name] / getattr(base, name)[kind])
        targets[name] = np.where(np.isfinite(target), target, np.nan)
    return _Table(found, targets)


def _unseen_tables(every: _Rows, constants: Calibration, settings: PredictSettings) -> dict[int, _Table]:
    """For every group the whole table under constants fitted without that group."""
    tables = {}
    for group in np.unique(every.groups):
        kept = np.flatnonzero(every.groups != group)
        refitted = constants
        if len(kept):
            measured = every.measured()
            part = Measured(
                succeeded=measured.succeeded[kept],
                seconds=measured.seconds[kept],
                downtime_seconds=measured.downtime_seconds[kept],
                bytes=measured.bytes[kept],
                weights=measured.weights[kept],
            )
            rows = [every.rows[i] for i in kept]
            refitted = fit_calibration(_physics(rows, settings), part, constants, iterations=REFIT_ITERATIONS)
        tables[int(group)] = _table(every, refitted)
    return tables


def _fit_figure(
    every: _Rows, table: _Table, unseen: dict[int, _Table], name: str, seed: int
) -> tuple[list[Any], float, Any, float]:
    """Regressors on everything, the share of them that is applied, a regressor of how far off, the bound's quantile."""
    told = np.isfinite(table.targets[name])
    correction, target = np.zeros(len(told)), np.full(len(told), np.nan)
    for group, other in unseen.items():
        out, kept = told & (every.groups == group), told & (every.groups != group)
        target[out] = other.targets[name][out]
        if kept.any() and out.any():
            models = [
                fit(m, other.of_figures[kept], other.targets[name][kept], every.weights[kept])
                for m in regressors(name, seed)
            ]
            correction[out] = mean_of(models, other.found[out])
    share = 1.0 if name == "slowdown" else _best_share(target[told], correction[told], every.weights[told])
    off = target - share * correction
    far = np.abs(off)
    scale = np.full(len(told), np.nan)
    for group, other in unseen.items():
        out, kept = told & (every.groups == group), told & (every.groups != group)
        if out.any():
            model = (
                fit(spread_regressor(seed), other.of_figures[kept], far[kept], every.weights[kept])
                if kept.any()
                else None
            )
            scale[out] = LEAST_SPREAD if model is None else spread_of(model, other.found[out])
    quantile = max(0.0, _weighted_quantile(off[told] / scale[told], every.weights[told], COVERAGE))
    final = [
        fit(m, table.of_figures[told], table.targets[name][told], every.weights[told]) for m in regressors(name, seed)
    ]
    spread = fit(spread_regressor(seed), table.of_figures[told], far[told], every.weights[told])
    return final, share, spread, float(quantile)


def _best_share(target: Floats, correction: Floats, weights: Floats) -> float:
    """How much of the correction leaves the least weighted absolute error on rows it was not fitted on."""
    errors = [float(np.average(np.abs(target - share * correction), weights=weights)) for share in SHARES]
    return SHARES[int(np.argmin(errors))]


@dataclass(frozen=True, slots=True)
class _Chance:
    """Classifiers of what never ends, and the factor on their odds that makes an upper bound, by view."""

    classifiers: dict[str, list[Any]]
    factors: dict[str, float]


def _fit_chance(every: _Rows, table: _Table, unseen: dict[int, _Table]) -> _Chance:
    """A view with too few rows of its own is learned from all.

    Runs that never ended of guests that were not seen to dirty anything are left out: nothing could have told, and they
    would blur what can.
    """
    failing = ~every.succeeded
    told_of = ~failing | np.array([_dirties(r) for r in every.rows], dtype=np.bool_)
    chance = _Chance({}, {})
    seen = is_seen(table.found)
    for view, own in (("seen", seen), ("unseen", ~seen)):
        enough = own.sum() >= LEAST_VIEW_ROWS and (failing & own).sum() >= LEAST_FAILING
        rows = told_of & (own if enough else True)
        told = np.full(len(failing), np.nan)
        for group, other in unseen.items():
            out, kept = rows & (every.groups == group), rows & (every.groups != group)
            if out.any() and failing[kept].any() and not failing[kept].all():
                told[out] = chance_of(_classifiers(every, other, kept, view), other.found[out], view)
        chance.factors[view] = _chance_factor(told[failing & np.isfinite(told)])
        chance.classifiers[view] = _classifiers(every, table, rows, view)
    return chance


def _classifiers(every: _Rows, table: _Table, rows: Bools, view: str) -> list[Any]:
    """Fitted on those rows."""
    told, failing = table.found[rows][:, CHANCE_COLUMNS[view]], ~every.succeeded[rows]
    return [fit(m, told, failing, every.weights[rows]) for m in classifiers(view)]


def _chance_factor(chances: Floats) -> float:
    """What the odds must be multiplied by so that all but ``CHANCE_MISSED`` of runs that never end pass ``CHANCE_LIMIT``.

    ``chances``: said of some that were not learned from. They are too few to read so small a quantile off, so it is that
    of a normal distribution fitted to their log odds, as a prediction for one more (Student's t); never less cautious
    than the quantile itself.
    """
    if len(chances) < 2:
        return CAUTIOUS_FACTOR
    from scipy.stats import t

    odds = np.log(chances / (1 - chances))
    count = len(odds)
    predicted = float(odds.mean() + t.ppf(CHANCE_AIMED, count - 1) * odds.std(ddof=1) * np.sqrt(1 + 1 / count))
    least = min(predicted, float(np.sort(odds)[int(CHANCE_MISSED * count)]))
    return float(np.clip(1.001 * np.exp(np.log(CHANCE_LIMIT / (1 - CHANCE_LIMIT)) - least), 1.0, 1000.0))


def _dirties(row: LabelledMigration) -> bool:
    """Whether its guest was seen to dirty memory at all."""
    return row.facts.dirty is not None and row.facts.dirty.points[-1].unique_bytes >= VISIBLE_BYTES


def _weighted_quantile(values: Floats, weights: Floats, share: float) -> float:
    """The smallest value at which the weights of all values up to it reach the share of all weights plus one more row."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    at = int(np.searchsorted(reached, share * (reached[-1] + weights.mean())))
    return float(values[order][min(at, len(values) - 1)])


__all__ = ["CHANCE_LIMIT", "CostScore", "score_cost", "train_cost"]
