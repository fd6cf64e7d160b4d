"""Will a host be hot within half an hour? Random groups of VMs of public traces on a host of 5,320 MIPS, beside the usual ways.

Groups are fixed over a trace: 20 VMs of PlanetLab or 12 of Google, with sizes of 2500, 2000, 1000 and 500 MIPS in equal
parts (CloudSim's). A host is hot at 0.9 of its MIPS. Average precision over all instants, and over those at which the
host is not hot yet ("onset"). Every way learns and is calibrated (isotonic) on groups of the training directory; ours is
the product's: forecaster and model of hosts trained there, scenarios by joint paths.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.trace import Trace
from rebalancerd.observe.traces.reader import read_traces
from rebalancerd.predict.demand.forecast import Forecaster
from rebalancerd.predict.demand.host_chance import HostChance
from rebalancerd.predict.demand.host_training import AHEAD, Moment, group_case, moments, train_host_chance
from rebalancerd.predict.demand.training import TrainingSeries, train_demand
from tests.bench.hotspot_baselines import SCORES, fit_boosting, fit_calibration, lag_features
from tests.bench.report import Report

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

GROUP = {"planetlab": 20, "google": 12}
MIPS = (2500.0, 2000.0, 1000.0, 500.0)
HOST_MIPS, HOT_SHARE = 5320.0, 0.9
FIRST, STRIDE = 24, 2
TRAINING_GROUPS = 60


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Which traces, and how many draws of groups."""
    parser.add_argument("--train", type=Path, required=True, help="directory of traces to train on")
    parser.add_argument("--test", type=Path, required=True, help="directory of traces to test on")
    parser.add_argument("--seeds", type=int, default=10, help="draws of groups")
    parser.add_argument("--sets", default=",".join(GROUP), help="only these sets, parted by commas")
    parser.add_argument("--dump", type=Path, default=None, help="CSV of truth and predictions of every instant")
    return parser


@dataclass
class Cases:
    """Instants of hosts: past loads ÷ the hot level, features of ours, and whether it was hot now and within the horizon."""

    past: list[Floats] = field(default_factory=list)
    found: list[NDArray[np.float32]] = field(default_factory=list)
    hot: list[Bools] = field(default_factory=list)

    def add(self, moment: Moment, members: NDArray[np.intp]) -> None:
        """All groups at one instant."""
        size = members.shape[1]
        sizes = np.tile(np.repeat(MIPS, size // len(MIPS)), (len(members), 1)).astype(np.float32)
        level = np.full(len(members), HOT_SHARE * HOST_MIPS)
        found, hot = group_case(moment, members, sizes, level)
        past = np.einsum("gmt,gm->gt", np.nan_to_num(moment.past[members]), sizes / level[:, None])
        self.past.append(_padded(past))
        self.found.append(found)
        self.hot.append(hot)

    def arrays(self) -> tuple[Floats, NDArray[np.float32], Bools]:
        """Everything in one piece."""
        return np.concatenate(self.past), np.concatenate(self.found), np.concatenate(self.hot)


def _padded(past: Floats) -> Floats:
    """The last day, the oldest value repeated where the past is shorter."""
    width = 288
    if past.shape[1] >= width:
        return past[:, -width:]
    front = np.repeat(past[:, :1], width - past.shape[1], axis=1)
    return np.concatenate([front, past], axis=1)


def run(options: argparse.Namespace, report: Report) -> None:
    """Train, test, and print the ways side by side."""
    training, testing = read_traces(options.train), read_traces(options.test)
    rows: list[list[object]] = []
    for name in (s for s in GROUP if s in options.sets.split(",")):
        learned_from = [t for t in training if t.set == name]
        tested_on = [t for t in testing if t.set == name]
        if not learned_from or not tested_on:
            print(f"{name}: no files of it in both directories\n")
            continue
        rows += _of_set(name, learned_from, tested_on, options.seeds, report)
    report.figure("seeds", options.seeds)
    if options.dump is not None:
        with options.dump.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "truth", "hot_now", *SCORES, "hgb", "ours"])
            writer.writerows(rows)


def _of_set(
    name: str, learned_from: Sequence[Trace], tested_on: Sequence[Trace], seeds: int, report: Report
) -> list[list[object]]:
    series = [_series(t) for t in learned_from]
    forecaster = train_demand(series, seed=1, model_id="demand-bench")
    chance = train_host_chance(series, forecaster, seed=1)
    ways = _Ways(name, learned_from, forecaster, chance)
    cases = {seed: Cases() for seed in range(seeds)}
    for trace in tested_on:
        one = _series(trace)
        drawn = {seed: _groups(name, len(one.values), seed) for seed in cases}
        for moment in moments(one, forecaster, _origins(one), seed=1):
            for seed, held in cases.items():
                held.add(moment, drawn[seed])
    results = {seed: ways.tell(held) for seed, held in cases.items()}
    _report(name, results, report)
    return [row for seed, result in results.items() for row in result.rows(f"{name}-{seed}")]


def _series(trace: Trace) -> TrainingSeries:
    return TrainingSeries(values=trace.cpu.T.copy(), step_seconds=trace.step_seconds, start=trace.start, clock=False)


def _origins(series: TrainingSeries, stride: int = STRIDE) -> range:
    return range(FIRST, series.values.shape[1] - AHEAD, stride)


def _groups(name: str, vms: int, seed: int, most: int | None = None) -> NDArray[np.intp]:
    """Disjoint groups of VMs, drawn: (G, M)."""
    size = GROUP[name]
    order = np.random.default_rng((seed, vms)).permutation(vms)
    count = vms // size if most is None else min(most, vms // size)
    return order[: count * size].reshape(count, size)


@dataclass
class Told:
    """What every way said of the same instants: ``chances`` by name, ``scores`` for ranking, and what came."""

    scores: dict[str, Floats]
    chances: dict[str, Floats]
    hot: Bools
    hot_now: Bools

    def ap(self, way: str, *, onset: bool) -> float:
        """Average precision."""
        from sklearn.metrics import average_precision_score

        chosen = ~self.hot_now if onset else np.ones(len(self.hot), dtype=np.bool_)
        return float(average_precision_score(self.hot[chosen], self.scores[way][chosen]))

    def brier(self, way: str) -> float:
        """Mean squared error of the probability."""
        return float(np.mean((self.chances[way] - self.hot) ** 2))

    def rows(self, prefix: str) -> list[list[object]]:
        """For the dump."""
        told = [self.chances[way] for way in self.chances]
        return [
            [f"{prefix}-{i}", int(self.hot[i]), int(self.hot_now[i]), *(round(float(c[i]), 5) for c in told)]
            for i in range(len(self.hot))
        ]


class _Ways:
    """All ways, learned and calibrated on groups of the training traces."""

    def __init__(self, name: str, learned_from: Sequence[Trace], forecaster: Forecaster, chance: HostChance) -> None:
        self._chance = chance
        held = Cases()
        for trace in learned_from:
            one = _series(trace)
            members = _groups(name, len(one.values), 1_000, TRAINING_GROUPS)
            for moment in moments(one, forecaster, _origins(one, 4), seed=1):
                held.add(moment, members)
        past, found, hot = held.arrays()
        self._boosting = fit_boosting(past, hot, seed=1)
        self._calibrations = {way: fit_calibration(score, hot) for way, score in self._scores(past, found).items()}

    def _scores(self, past: Floats, found: NDArray[np.float32]) -> dict[str, Floats]:
        told = {way: score(past) for way, score in SCORES.items()}
        told["hgb"] = self._boosting.predict_proba(lag_features(past))[:, 1]
        told["ours"] = self._chance.chances(found)
        return told

    def tell(self, cases: Cases) -> Told:
        """Every way's scores and probabilities. Boosting's and ours are probabilities already."""
        past, found, hot = cases.arrays()
        scores = self._scores(past, found)
        chances = {
            way: scores[way] if way == "ours" else self._calibrations[way].predict(scores[way]) for way in scores
        }
        return Told(scores, chances, hot, past[:, -1] >= 1.0)


def _report(name: str, results: dict[int, Told], report: Report) -> None:
    ways = [*SCORES, "hgb", "ours"]
    table = {way: _means(way, results) for way in ways}
    onsets = {way: np.array([r.ap(way, onset=True) for r in results.values()]) for way in ways}
    for way, (ap, onset, brier) in table.items():
        report.figure(f"{name}.{way}.ap", ap)
        report.figure(f"{name}.{way}.onset_ap", onset)
        report.figure(f"{name}.{way}.brier", brier)
    others = [w for w in ways if w != "ours"]
    best = max(others, key=lambda w: table[w][1])
    gains = onsets["ours"] - onsets[best]
    hardest = onsets["ours"] - np.max([onsets[w] for w in others], axis=0)
    report.figure(f"{name}.onset_gain", float(gains.mean()))
    report.figure(f"{name}.onset_wins", int((gains > 0).sum()))
    report.figure(f"{name}.onset_gain_of_each_best", float(hardest.mean()))
    report.figure(f"{name}.onset_wins_of_each_best", int((hardest > 0).sum()))
    some = next(iter(results.values()))
    rate = float(np.mean([r.hot.mean() for r in results.values()]))
    print(f"{name}: {len(some.hot)} instants a draw, {rate:.3f} of them followed by a hot host")
    print(f"  {'':12s}{'AP':>8s}{'onset AP':>18s}{'Brier':>8s}")
    for way in ways:
        ap, onset, brier = table[way]
        print(f"  {way:12s}{ap:8.3f}{onset:10.3f} ± {onsets[way].std():.3f}{brier:8.4f}")
    print(
        f"  ours against {best}: {gains.mean():+.4f} onset AP, {int((gains > 0).sum())} of {len(gains)} draws won; "
        f"against the best of each draw {hardest.mean():+.4f}, {int((hardest > 0).sum())}\n"
    )


def _means(way: str, results: dict[int, Told]) -> tuple[float, float, float]:
    told = [(r.ap(way, onset=False), r.ap(way, onset=True), r.brier(way)) for r in results.values()]
    ap, onset, brier = np.mean(told, axis=0)
    return float(ap), float(onset), float(brier)
