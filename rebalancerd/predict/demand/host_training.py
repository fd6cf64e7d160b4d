"""Training of HostChance on random groups of recorded VMs, which stand for hosts of any size and any level."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.forecast import Forecaster
from rebalancerd.predict.demand.host_chance import FEATURES, HostChance, host_features
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.past import HISTORY_STEPS
from rebalancerd.predict.demand.paths import joint_paths
from rebalancerd.predict.demand.windows import TrainingSeries

Floats = NDArray[np.float32]

AHEAD, PATHS = 6, 64
LEAST_PAST, ORIGINS = 24, 48
GROUP_SIZES = (4, 8, 12, 20, 30)
GROUPS = 80  # for each origin
SIZES = (1.0, 2.0, 4.0, 5.0)
LEVELS = (0.9, 1.7)  # times what a group asks for on average: how near to hot it lives
LEAST_CASES, LEAST_HOT = 500, 50
LINE_STRENGTH = 0.05


@dataclass(frozen=True, slots=True)
class Moment:
    """All VMs of a series at one instant. ``paths``: (N, K, H), ``past``: (N, T), ``ahead``: (N, H), shares of each VM's size."""

    paths: Floats
    past: Floats
    ahead: Floats


def moments(
    series: TrainingSeries, forecaster: Forecaster, origins: Iterable[int], *, seed: int, steps: int = AHEAD
) -> Iterator[Moment]:
    """The series at those columns, forecast from what lies before."""
    for t in origins:
        past = series.values[:, max(0, t + 1 - HISTORY_STEPS) : t + 1]
        panel = Panel(
            values=past,
            step_seconds=series.step_seconds,
            end=series.start + t * series.step_seconds,
            season_seconds=series.season_seconds,
        )
        told = forecaster.forecast(panel, range(1, steps + 1))
        paths = joint_paths(told, panel, paths=PATHS, seed=seed).reshape(len(past), PATHS, steps)
        yield Moment(paths, past, series.values[:, t + 1 : t + 1 + steps])


def group_case(
    moment: Moment, members: NDArray[np.intp], sizes: Floats, level: NDArray[np.floating]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Features (G, F) of groups of VMs ``members`` (G, M) of those ``sizes`` (G, M), and whether each passed its ``level`` (G,)."""
    scale = (sizes / level[:, None]).astype(np.float32)
    paths = np.einsum("gmkh,gm->gkh", moment.paths[members], scale)
    past = np.einsum("gmt,gm->gt", np.nan_to_num(moment.past[members]), scale)
    ahead = np.einsum("gmh,gm->gh", np.nan_to_num(moment.ahead[members]), scale)
    each = moment.paths[members].mean(axis=(2, 3)) * scale
    largest = each.max(axis=1) / np.maximum(each.sum(axis=1), 1e-9)
    count = np.full(len(members), members.shape[1], dtype=np.float32)
    return host_features(paths, past, count, largest), ahead.max(axis=1) >= 1.0


def train_host_chance(series: Sequence[TrainingSeries], forecaster: Forecaster, *, seed: int) -> HostChance:
    """Fit to random groups of the series' VMs. Raises ValueError if too little is recorded."""
    rng = np.random.default_rng(seed)
    found: list[Floats] = []
    hot: list[NDArray[np.bool_]] = []
    for one in series:
        rows, width = one.values.shape
        last = width - 1 - AHEAD
        if rows < GROUP_SIZES[0] or last < LEAST_PAST:
            continue
        origins = np.unique(np.linspace(LEAST_PAST, last, ORIGINS).astype(int))
        for moment in moments(one, forecaster, origins, seed=seed):
            for size in (s for s in GROUP_SIZES if s <= rows):
                cases = _drawn(moment, size, rng)
                found.append(cases[0])
                hot.append(cases[1])
    features = np.concatenate(found) if found else np.empty((0, len(FEATURES)), dtype=np.float32)
    passed = np.concatenate(hot) if hot else np.empty(0, dtype=np.bool_)
    if len(passed) < LEAST_CASES or not LEAST_HOT <= passed.sum() <= len(passed) - LEAST_HOT:
        raise ValueError(f"{len(passed)} groups to learn hot hosts from, {passed.sum()} of them hot: too few")
    return HostChance({"features": list(FEATURES), **_fit(features, passed, seed)})


def _drawn(moment: Moment, size: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
    count = max(1, GROUPS // len(GROUP_SIZES))
    rows = len(moment.past)
    members = np.stack([rng.choice(rows, size=size, replace=False) for _ in range(count)])
    sizes = rng.choice(SIZES, size=members.shape).astype(np.float32)
    usual = (np.nan_to_num(moment.past[members]).mean(axis=2) * sizes).sum(axis=1)
    level = np.maximum(usual * rng.uniform(*LEVELS, size=count), 1e-3)
    return group_case(moment, members, sizes, level)


def _fit(features: Floats, passed: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    line = make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=LINE_STRENGTH, max_iter=2000)
    )
    trees = HistGradientBoostingRegressor(
        max_iter=80,
        learning_rate=0.06,
        max_leaf_nodes=8,
        min_samples_leaf=80,
        l2_regularization=10.0,
        max_features=0.5,
        early_stopping=False,
        random_state=seed,
    )
    table = features.astype(np.float64)
    return {"line": line.fit(table, passed), "trees": trees.fit(table, passed.astype(np.float64))}
