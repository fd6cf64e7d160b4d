"""Training of the cost model on migrations that have ended: the shipped ones, and a cluster's own.

Everything that is promised of a bound is calibrated on rows that the regressors behind it had not seen: each group
(a family of workloads in shipped data, a stretch of time in a cluster's own) is predicted by a model of the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.predict.cost import Physics
from rebalancerd.predict.cost_columns import CostColumns
from rebalancerd.predict.cost_features import FEATURES, features
from rebalancerd.predict.cost_inputs import CostInputs
from rebalancerd.predict.cost_state import REGRESSED, CostState
from rebalancerd.predict.dataset import sound
from rebalancerd.predict.estimators import classifiers, fit, regressors, spread_regressor
from rebalancerd.predict.learned import LearnedCost
from rebalancerd.predict.likeness import likeness
from rebalancerd.predict.settings import PredictSettings

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_ROWS, LEAST_FAILING = 60, 8
OWN_GROUPS = 5
COVERAGE = 0.92  # of the bounds on unseen groups; a little above the 90 % that is promised
CHANCE_LIMIT = 0.3  # where a planner by default stops admitting
CHANCE_MISSED = 0.02  # share of unseen runs that never ended and may fall below that limit
DISTURBED_WEIGHT = 0.3
OWN_WEIGHT = 3.0
BAD_ERROR = 0.25


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows as arrays: features (N, F), weights, groups, and for each regressed figure its target (NaN: not told)."""

    found: Floats
    weights: Floats
    groups: NDArray[np.int64]
    succeeded: Bools
    targets: dict[str, Floats]
    scales: dict[str, Floats]


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
    table = _table([r for r in rows if sound(r) is None], [r for r in own if sound(r) is None], settings)
    if len(table.weights) < LEAST_ROWS:
        raise ValueError(f"{len(table.weights)} usable rows: {LEAST_ROWS} are needed to learn from")
    if (~table.succeeded).sum() < LEAST_FAILING:
        raise ValueError(f"{(~table.succeeded).sum()} rows that did not converge: {LEAST_FAILING} are needed")
    fitted: dict[str, Any] = {"regressors": {}, "spreads": {}, "quantiles": {}}
    for name in REGRESSED:
        models, spread, quantile = _fit_figure(table, name, seed)
        fitted["regressors"][name], fitted["spreads"][name], fitted["quantiles"][name] = models, spread, quantile
    chance, factor = _fit_chance(table, seed)
    lows = np.where(np.isnan(table.found), np.inf, table.found).min(axis=0)
    highs = np.where(np.isnan(table.found), -np.inf, table.found).max(axis=0)
    state = CostState(
        features=list(FEATURES),
        regressors=fitted["regressors"],
        spreads=fitted["spreads"],
        quantiles=fitted["quantiles"],
        classifiers=chance,
        chance_factor=factor,
        lows=lows,
        highs=highs,
    )
    return LearnedCost(state, model_id or f"cost-{seed}", settings)


def _table(shipped: list[LabelledMigration], own: list[LabelledMigration], settings: PredictSettings) -> _Table:
    rows = [*shipped, *own]
    inputs = CostInputs.of_facts([r.facts for r in rows], [r.deadline_seconds for r in rows])
    physics = Physics(inputs, settings)
    base, found = physics.columns(), features(physics)
    succeeded = np.array([r.succeeded for r in rows], dtype=np.bool_)
    names = sorted({r.family for r in shipped})
    groups = [names.index(r.family) for r in shipped]
    groups += [len(names) + i * OWN_GROUPS // max(1, len(own)) for i in range(len(own))]
    weights = np.array([DISTURBED_WEIGHT if r.disturbed else 1.0 for r in rows])
    weights[: len(shipped)] *= likeness(found[: len(shipped)], found[len(shipped) :])
    weights[len(shipped) :] *= OWN_WEIGHT
    targets, scales = {}, {}
    for name in REGRESSED:
        told = np.array([np.nan if (v := getattr(r, name)) is None else float(v) for r in rows])
        told[~succeeded] = np.nan
        if name == "slowdown":
            targets[name], scales[name] = told, np.ones(len(rows))
            continue
        scale = getattr(base, name).value
        with np.errstate(divide="ignore", invalid="ignore"):
            target = np.log(told / scale)
        target[~np.isfinite(target)] = np.nan
        targets[name], scales[name] = target, scale
    return _Table(found, weights, np.array(groups, dtype=np.int64), succeeded, targets, scales)


def _fit_figure(table: _Table, name: str, seed: int) -> tuple[list[Any], Any, float]:
    """Regressors on everything, a regressor of how far off they are, and the quantile that makes it a bound."""
    told = np.isfinite(table.targets[name])
    found, target = table.found[told], table.targets[name][told]
    weights, groups = table.weights[told], table.groups[told]
    unseen = np.full(len(target), np.nan)
    for group in np.unique(groups):
        out = groups == group
        if out.all():
            unseen[out] = target[out].mean()
            continue
        models = [fit(m, found[~out], target[~out], weights[~out]) for m in regressors(seed)]
        unseen[out] = np.mean([m.predict(found[out]) for m in models], axis=0)
    off = target - unseen
    spread = fit(spread_regressor(seed), found, np.abs(off), weights)
    unseen_spread = np.empty(len(target))
    for group in np.unique(groups):
        out = groups == group
        if out.all():
            unseen_spread[out] = np.abs(off).mean()
            continue
        unseen_spread[out] = fit(spread_regressor(seed), found[~out], np.abs(off[~out]), weights[~out]).predict(found[out])
    scaled = off / np.maximum(unseen_spread, 0.02)
    quantile = max(0.0, _weighted_quantile(scaled, weights, COVERAGE))
    final = [fit(m, found, target, weights) for m in regressors(seed)]
    return final, spread, float(quantile)


def _fit_chance(table: _Table, seed: int) -> tuple[list[Any], float]:
    """Classifiers of what never ends, and the factor that lifts their chances to an upper bound.

    The factor is such that of unseen runs that never ended all but ``CHANCE_MISSED`` come out above ``CHANCE_LIMIT``.
    """
    failing = ~table.succeeded
    unseen = np.full(len(failing), np.nan)
    for group in np.unique(table.groups):
        out = table.groups == group
        if failing[~out].any() and not failing[~out].all():
            models = [fit(m, table.found[~out], failing[~out], table.weights[~out]) for m in classifiers(seed)]
            unseen[out] = np.mean([m.predict_proba(table.found[out])[:, 1] for m in models], axis=0)
    chances = np.sort(unseen[failing & np.isfinite(unseen)])
    missed = chances[int(CHANCE_MISSED * len(chances))] if len(chances) else CHANCE_LIMIT
    factor = float(np.clip(CHANCE_LIMIT / max(missed, 1e-3) * 1.001, 1.0, 100.0))
    return [fit(m, table.found, failing, table.weights) for m in classifiers(seed)], factor


def _weighted_quantile(values: Floats, weights: Floats, share: float) -> float:
    """The smallest value at which the weights of all values up to it reach the share of all weights plus one more row."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    at = int(np.searchsorted(reached, share * (reached[-1] + weights.mean())))
    return float(values[order][min(at, len(values) - 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class CostScore:
    """How predictions of total time and outcome fared on rows; shares and relative errors, None where nothing tells.

    ``bad_share``: error of 25 % or more, or falsely said to converge. ``coverage90``: share within the upper bound.
    ``false_converges``: share of the runs that never ended whose upper bound of that chance was below ``CHANCE_LIMIT``.
    """

    rows: int
    total_time_median_ape: float | None
    total_time_gmre: float | None
    bad_share: float | None
    coverage90: float | None
    false_converges: float | None


Predictor = Callable[[Sequence[Any], Sequence[float]], Any]


def score_cost(predict: Predictor, rows: Sequence[LabelledMigration]) -> CostScore:
    """Score a predictor (``predict_facts`` of a model) on rows it did not learn from."""
    if not rows:
        return CostScore(
            rows=0,
            total_time_median_ape=None,
            total_time_gmre=None,
            bad_share=None,
            coverage90=None,
            false_converges=None,
        )
    told: CostColumns = predict([r.facts for r in rows], [r.deadline_seconds for r in rows])
    value, upper, chance = _arrays(told)
    succeeded = np.array([r.succeeded for r in rows], dtype=np.bool_)
    actual = np.array([np.nan if r.seconds is None else r.seconds for r in rows], dtype=np.float64)
    timed = succeeded & np.isfinite(actual) & (actual > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(timed, np.abs(value - actual) / actual, np.nan)
    falsely = ~succeeded & (chance <= CHANCE_LIMIT)
    errors = error[timed]
    return CostScore(
        rows=len(rows),
        total_time_median_ape=float(np.median(errors)) if len(errors) else None,
        total_time_gmre=float(np.exp(np.mean(np.log(np.maximum(errors, 1e-4))))) if len(errors) else None,
        bad_share=float(np.mean(np.where(timed, error >= BAD_ERROR, falsely))),
        coverage90=float(np.mean(actual[timed] <= upper[timed])) if len(errors) else None,
        false_converges=float(falsely.sum() / (~succeeded).sum()) if (~succeeded).any() else None,
    )


def _arrays(told: Any) -> tuple[Floats, Floats, Floats]:
    """Seconds, their bound and the bound of non-convergence of any sequence of costs."""
    if isinstance(told, CostColumns):
        return told.seconds.value, told.seconds.upper, told.non_convergence.upper
    rows = [(c.seconds.value, c.seconds.upper, c.non_convergence.upper) for c in told]
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]
