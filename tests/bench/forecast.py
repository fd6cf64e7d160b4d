"""Demand forecasts of VMs on traces they were not trained on: scenarios as the planner gets them, beside the usual ways.

Everything fitted is fitted per set on ``--train`` and tested on the files of the same set in ``--test``. MAE is of the
median of the scenario paths, RMSE of their mean, pinball of their 95 % quantile, coverage of their central 90 % (a value
that ties with paths counts by a seeded draw). The history of a window is what its own test file holds before it.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.trace import Trace
from rebalancerd.observe.traces.reader import read_traces
from rebalancerd.predict.demand.forecast import Forecaster
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.paths import joint_paths
from rebalancerd.predict.demand.training import TrainingSeries, train_demand
from rebalancerd.predict.settings import PredictSettings
from tests.bench.forecast_baselines import Baselines, Cases, cases_at, fit_baselines, pinball, usable
from tests.bench.report import Report

Floats = NDArray[np.float32]

SETS = ("planetlab", "google", "bitbrains", "azure")
MINUTES = (5, 30, 60)
FINE_STEPS = 576  # what the daemon's fine history holds
HOURLY_ROWS = 840
HOUR = 3600.0
VMS_AT_ONCE = 60
POINTS = ("persistence", "mean_2h", "ewma", "ar", "holt", "seasonal")
UPPER = ("rolling_quantile", "n_sigma", "rc_like")


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Which traces, how many windows, and whether speed is measured too."""
    parser.add_argument("--train", type=Path, required=True, help="directory of traces to train on")
    parser.add_argument("--test", type=Path, required=True, help="directory of traces to test on")
    parser.add_argument("--windows", type=int, default=30_000, help="windows tested per set, about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sets", default=",".join(SETS), help="only these sets, parted by commas")
    parser.add_argument("--dump", type=Path, default=None, help="CSV of truth and predictions of every window")
    parser.add_argument("--speed", action="store_true", help="time scenarios for 20,000 VMs")
    return parser


def run(options: argparse.Namespace, report: Report) -> None:
    """Train, test, and print the predictors side by side."""
    training, testing = read_traces(options.train), read_traces(options.test)
    found: dict[str, Scored] = {}
    for name in (s for s in SETS if s in options.sets.split(",")):
        learned_from = [t for t in training if t.set == name]
        tested_on = [t for t in testing if t.set == name]
        if not learned_from or not tested_on:
            print(f"{name}: no files of it in both directories\n")
            continue
        found[name] = _score_set(name, learned_from, tested_on, options, report)
    _summary(report, list(found))
    if options.dump is not None:
        _dump(options.dump, found)
    if options.speed:
        from tests.bench.forecast_speed import speed

        speed(report)


@dataclass(frozen=True)
class Ours:
    """Statistics of the scenario paths for M windows, (M, H) each. ``place``: the truth's level among the paths, ties drawn."""

    mean: Floats
    median: Floats
    low: Floats
    high: Floats
    place: Floats


@dataclass(frozen=True)
class Scored:
    """What was tested of a set, and what was said of it."""

    ids: list[str]
    cases: Cases
    ours: Ours
    predicted: Mapping[str, Floats]


def series_of(traces: Sequence[Trace]) -> list[TrainingSeries]:
    """The CPU load of traces as training takes it."""
    return [
        TrainingSeries(
            values=np.ascontiguousarray(t.cpu.T), step_seconds=t.step_seconds, start=t.start, name=f"{t.set} {t.part}"
        )
        for t in traces
    ]


def scenario_cases(
    traces: Sequence[Trace], forecaster: Forecaster, windows: int, seed: int
) -> tuple[list[str], Cases, Ours]:
    """Scenarios for VMs of each trace at instants spread over it, as the daemon would make them.

    At each instant a part of the VMs is asked for, so that many instants are seen: load of one instant goes together.
    """
    rng = np.random.default_rng(seed)
    settings = PredictSettings()
    ids: list[str] = []
    cases, ours = [], []
    total = sum(t.cpu.size for t in traces)
    for trace in traces:
        steps = steps_of(trace)
        rows, vms = usable(trace, steps)
        share = windows * trace.cpu.size / total
        instants = np.unique(rows)
        size = min(trace.cpu.shape[1], VMS_AT_ONCE)
        wanted = min(len(instants), max(1, round(share / size)))
        places = np.unique(((np.arange(wanted) + rng.random(wanted)) * len(instants) / max(1, wanted)).astype(int))
        for row in instants[places]:
            here = vms[rows == row]
            here = np.sort(rng.choice(here, min(len(here), size), replace=False))
            panel = panel_at(trace, int(row), here)
            forecast = forecaster.forecast(panel, steps)
            paths = joint_paths(forecast, panel, paths=settings.paths, seed=settings.seed)
            paths = paths.reshape(len(paths), settings.paths, len(steps))
            case = cases_at(trace, steps, np.full(len(here), row), here)
            cases.append(case)
            ours.append(_statistics(paths, case.truth, rng))
            ids.extend(f"{trace.part}/{trace.ids[v]}/{row}" for v in here)
    joined = Cases(*(np.concatenate([getattr(c, n) for c in cases]) for n in ("past", "truth", "seconds", "day_ago")))
    return ids, joined, Ours(*(np.concatenate([getattr(o, n) for o in ours]) for n in Ours.__dataclass_fields__))


def steps_of(trace: Trace) -> tuple[int, ...]:
    """The horizons in the trace's own steps."""
    return tuple(max(1, round(m * 60 / trace.step_seconds)) for m in MINUTES)


def panel_at(trace: Trace, row: int, vms: NDArray[np.intp]) -> Panel:
    """What the daemon would know of those VMs at that row: two days in steps and 35 days in hours."""
    end = trace.start + row * trace.step_seconds
    fine = np.ascontiguousarray(trace.cpu[max(0, row + 1 - FINE_STEPS) : row + 1, vms].T)
    return Panel(values=fine, step_seconds=trace.step_seconds, end=end, hourly=_hourly(trace, row, vms))


def _hourly(trace: Trace, row: int, vms: NDArray[np.intp]) -> Floats | None:
    per_hour = round(HOUR / trace.step_seconds)
    first = max(0, row - HOURLY_ROWS * per_hour)
    hour = np.floor((trace.start + np.arange(first, row + 1) * trace.step_seconds) / HOUR).astype(np.int64)
    begins = np.flatnonzero(np.diff(hour, prepend=hour[0] - 1))
    if len(begins) < 2:
        return None
    values = trace.cpu[first : row + 1, vms]
    count = np.add.reduceat(np.isfinite(values), begins, axis=0, dtype=np.int32)
    total = np.add.reduceat(np.nan_to_num(values), begins, axis=0)
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return np.ascontiguousarray(means[:-1].T, dtype=np.float32)


def _statistics(paths: Floats, truth: Floats, rng: np.random.Generator) -> Ours:
    """Of paths (M, K, H). Quantiles by Hazen's rule: path k of K stands for level (k+½)/K."""
    low, median, high = np.quantile(paths, (0.05, 0.5, 0.95), axis=1, method="hazen")
    below = (paths < truth[:, None]).sum(axis=1)
    ties = (paths == truth[:, None]).sum(axis=1)
    place = (below + rng.random(truth.shape) * (ties + 1)) / (paths.shape[1] + 1)
    return Ours(paths.mean(axis=1), median, low, high, place.astype(np.float32))


def _score_set(
    name: str, training: Sequence[Trace], testing: Sequence[Trace], options: argparse.Namespace, report: Report
) -> Scored:
    model = train_demand(series_of(training), seed=options.seed, model_id=f"bench-{name}")
    ids, cases, ours = scenario_cases(testing, model, options.windows, options.seed)
    baselines = fit_baselines(training, steps_of(training[0]), options.seed)
    predicted = score(report, name, cases, ours, baselines)
    _table(report, name, len(ids), baselines)
    return Scored(ids, cases, ours, predicted)


def score(report: Report, name: str, cases: Cases, ours: Ours, baselines: Baselines) -> dict[str, Floats]:
    """Figures of every predictor; returns what the others said, by name and error."""
    predicted: dict[str, Floats] = {way: forecast(cases) for way, forecast in baselines.points.items()}
    # a day ago means nothing where files hold a day: what is left of it would be persistence under another name
    if np.isfinite(cases.day_ago).mean() < 0.5:
        predicted["seasonal"] = np.full_like(cases.truth, np.nan)
    for way, (mean, median) in baselines.split.items():
        predicted[f"{way}.rmse"], predicted[f"{way}.mae"] = mean(cases), median(cases)
    predicted |= {f"{way}.pinball95": forecast(cases) for way, forecast in baselines.upper.items()}
    for h, minutes in enumerate(MINUTES):
        key, truth = f"{name}.{minutes}", cases.truth[:, h]
        for way, said in predicted.items():
            base, _, only = way.partition(".")
            off = said[:, h] - truth
            if only in ("", "mae"):
                report.figure(f"{key}.{base}.mae", _number(np.abs(off).mean()))
            if only in ("", "rmse"):
                report.figure(f"{key}.{base}.rmse", _number(np.sqrt((off**2).mean())))
            if only == "pinball95":
                report.figure(f"{key}.{base}.pinball95", _number(pinball(said[:, h], truth).mean()))
        report.figure(f"{key}.ours.mae", _number(np.abs(ours.median[:, h] - truth).mean()))
        report.figure(f"{key}.ours.rmse", _number(np.sqrt(((ours.mean[:, h] - truth) ** 2).mean())))
        report.figure(f"{key}.ours.pinball95", _number(pinball(ours.high[:, h], truth).mean()))
        inside = (ours.place[:, h] >= 0.05) & (ours.place[:, h] <= 0.95)
        report.figure(f"{key}.ours.coverage90", _number(inside.mean()))
        report.figure(f"{key}.ours.width90", _number((ours.high[:, h] - ours.low[:, h]).mean()))
    return predicted


def _number(value: float | np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None


def _best(report: Report, key: str, error: str, ways: Sequence[str]) -> float:
    found = [report.figures.get(f"{key}.{way}.{error}") for way in ways]
    return min(float(f) for f in found if f is not None)


def _summary(report: Report, names: Sequence[str]) -> None:
    """Ours over the best of the others at every point: below 1 is better."""
    ratios: dict[str, list[float]] = {"mae": [], "rmse": [], "pinball95": []}
    ways = {"mae": ("persistence", "mean_2h"), "rmse": (*POINTS, "hgb"), "pinball95": UPPER}
    print(f"{'ours / best of the others':28}" + "".join(f"{error:>11}" for error in ratios))
    for name in names:
        for minutes in MINUTES:
            key = f"{name}.{minutes}"
            here = {e: float(report.figures[f"{key}.ours.{e}"] or 0) / _best(report, key, e, ways[e]) for e in ratios}
            print(f"{key:28}" + "".join(f"{ratio:11.4f}" for ratio in here.values()))
            for error, ratio in here.items():
                ratios[error].append(ratio)
    print()
    if not names:
        return
    report.figure("summary.points", len(ratios["mae"]))
    report.figure("summary.mae_worst_ratio", max(ratios["mae"]))
    report.figure("summary.rmse_worst_ratio", max(ratios["rmse"]))
    report.figure("summary.rmse_better", sum(r < 1 for r in ratios["rmse"]))
    report.figure("summary.pinball_worst", max(ratios["pinball95"]))
    report.figure("summary.pinball_gm", float(np.exp(np.mean(np.log(ratios["pinball95"])))))
    covered = [np.mean([report.figures[f"{n}.{m}.ours.coverage90"] or 0.0 for m in MINUTES]) for n in names]
    report.figure("summary.coverage_mean", float(np.mean(covered)))
    report.figure("summary.coverage_min", float(np.min(covered)))


def _table(report: Report, name: str, count: int, baselines: Baselines) -> None:
    """MAE / RMSE / pinball of a set in points of per cent, predictors down, horizons across."""
    chosen = "; ".join(f"{way}: {what}" for way, what in baselines.chosen.items())
    print(f"{name}: {count} windows; points of per cent: MAE / RMSE / pinball 95\n  chosen in training: {chosen}")
    print(f"  {'':18}" + "".join(f"{f'{m} min':>26}" for m in MINUTES))
    for way in (*POINTS, *UPPER, "hgb", "ours"):
        cells = []
        for m in MINUTES:
            found = [report.figures.get(f"{name}.{m}.{way}.{e}") for e in ("mae", "rmse", "pinball95")]
            cells.append(" / ".join("-" if f is None else f"{100 * f:.3f}" for f in found))
        print(f"  {way:18}" + "".join(f"{c:>26}" for c in cells))
    spread = [
        f"{100 * (report.figures[f'{name}.{m}.ours.coverage90'] or 0):.1f} % in {100 * (report.figures[f'{name}.{m}.ours.width90'] or 0):.2f}"
        for m in MINUTES
    ]
    print(f"  {'central 90 %':18}" + "".join(f"{c:>26}" for c in spread) + "\n")


def _dump(path: Path, found: Mapping[str, Scored]) -> None:
    """One row per window and horizon: id, truth, and what each predictor said of it, in shares."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        ways = sorted({way for scored in found.values() for way in scored.predicted})
        ours = tuple(Ours.__dataclass_fields__)
        out.writerow(["set", "id", "minutes", "truth", *(f"ours.{part}" for part in ours), *ways])
        for name, scored in found.items():
            for h, minutes in enumerate(MINUTES):
                columns = [scored.cases.truth[:, h], *(getattr(scored.ours, part)[:, h] for part in ours)]
                columns += [scored.predicted[way][:, h] for way in ways]
                for one, figures in zip(scored.ids, np.column_stack(columns), strict=True):
                    out.writerow([name, one, minutes, *(f"{f:.6g}" for f in figures)])
