"""The shipped cost model on rows it was not trained on, beside constant, memory/rate, geometric series and physics.

Nothing is trained here. ``--migrations`` takes a file as ``rebalancerd lab harvest`` writes it; without it the committed
part is used that was kept back: whole families of workloads, and a later time span of the others.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.cost_columns import CostColumns
from rebalancerd.predict.dataset import read_migrations
from rebalancerd.predict.settings import PredictSettings
from tests.bench import cost_baselines as baselines
from tests.bench.cost_speed import measure_speed
from tests.bench.report import Report, kernel_seconds

DATA = Path(__file__).parents[2] / "models" / "data"
TRAINED_ON = DATA / "cost-train.csv"
KEPT_BACK = (DATA / "cost-families.csv", DATA / "cost-later.csv")
BAD_ERROR = 0.25
ADMIT = 0.3  # PlanSettings.non_convergence_max, on the upper bound
TARGETS = {"total_time": "seconds", "downtime": "downtime_seconds", "bytes": "bytes", "slowdown": "slowdown"}


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Which rows, and whether speed is measured too."""
    parser.add_argument("--migrations", type=Path, action="append", default=None, help="CSV of a harvest (repeatable)")
    parser.add_argument("--source", choices=("best", "sampled", "exact"), default="best", help="of the dirty curves")
    parser.add_argument("--families", default="", help="only these families, parted by commas")
    parser.add_argument("--undisturbed", action="store_true", help="leave out rows marked as disturbed")
    parser.add_argument("--dump", type=Path, default=None, help="CSV of truth and prediction of every row")
    parser.add_argument("--speed", action="store_true", help="time 100,000 candidates")
    return parser


def run(options: argparse.Namespace, report: Report) -> None:
    """Evaluate, and print the predictors side by side."""
    paths = options.migrations or [path for path in KEPT_BACK if path.exists()]
    rows = [row for path in paths for row in read_migrations(path, options.source)]
    if options.source == "exact":
        rows = [r for r in rows if r.facts.dirty is not None]
    wanted = {name for name in options.families.split(",") if name}
    rows = [r for r in rows if not wanted or r.family in wanted]
    rows = [r for r in rows if not (options.undisturbed and r.disturbed)]
    facts, deadlines = [r.facts for r in rows], [r.deadline_seconds for r in rows]
    settings = PredictSettings()
    predictors: dict[str, CostColumns] = {
        "constant": baselines.constant(rows, read_migrations(TRAINED_ON)),
        "rate": baselines.rate(rows, settings),
        "series": baselines.series(rows, settings),
        "physics": PhysicsCost(settings).predict_facts(facts, deadlines),
    }
    ours = baselines.shipped(settings)
    if ours is not None:
        predictors["ours"] = ours.predict_facts(facts, deadlines)
    truth = _Truth(rows)
    for name, columns in predictors.items():
        _score(report, truth, name, columns)
    report.figure("outcome.non_converging_rows", int((~truth.succeeded).sum()))
    report.figure("floor.total_time", _floor(rows, "seconds"))
    report.figure("floor.downtime", _floor(rows, "downtime_seconds"))
    report.figure("floor.bytes", _floor(rows, "bytes"))
    report.figure("rows", len(rows))
    _table(report, list(predictors))
    if options.dump is not None:
        _dump(options.dump, rows, predictors)
    if options.speed:
        _speed(report, settings)


class _Truth:
    """What really happened, NaN where it was not told; figures of runs that were cut off tell nothing but that."""

    def __init__(self, rows: Sequence[LabelledMigration]) -> None:
        self.succeeded = np.array([r.succeeded for r in rows])
        self.figures = {}
        for target, field in TARGETS.items():
            told = np.array([np.nan if getattr(r, field) is None else getattr(r, field) for r in rows], dtype=float)
            self.figures[target] = np.where(self.succeeded, told, np.nan)


def _score(report: Report, truth: _Truth, name: str, columns: CostColumns) -> None:
    for target, field in TARGETS.items():
        actual, column = truth.figures[target], getattr(columns, field)
        told = np.isfinite(actual)
        actual, value, upper = actual[told], column.value[told], column.upper[told]
        if not told.any():
            continue
        if target == "slowdown":
            report.figure(f"slowdown.{name}.median_abs", float(np.median(np.abs(value - actual))))
            report.figure(f"slowdown.{name}.mean_abs", float(np.mean(np.abs(value - actual))))
        else:
            error = np.abs(value - actual) / np.maximum(actual, 1e-3)
            report.figure(f"{target}.{name}.median_ape", float(np.median(error)))
            report.figure(f"{target}.{name}.p90_ape", float(np.quantile(error, 0.9)))
            report.figure(f"{target}.{name}.gmre", float(np.exp(np.mean(np.log(np.maximum(error, 1e-4))))))
        if target == "downtime":
            report.figure(f"downtime.{name}.median_abs_ms", float(np.median(np.abs(value - actual)) * 1000))
        if np.isfinite(upper).any():
            bounded = np.isfinite(upper)
            report.figure(f"{target}.{name}.coverage90", float(np.mean(actual <= upper)))
            ratio = float(np.median(upper[bounded] / np.maximum(actual[bounded], 1e-3)))
            report.figure(f"{target}.{name}.bound_ratio", ratio)
    admitted = columns.non_convergence.upper <= ADMIT
    total, value = truth.figures["total_time"], columns.seconds.value
    with np.errstate(invalid="ignore"):
        far_off = np.abs(value - total) / total >= BAD_ERROR
    falsely = admitted & ~truth.succeeded
    report.figure(f"outcome.{name}.bad_share", float(np.mean((far_off & truth.succeeded) | falsely)))
    failing = int((~truth.succeeded).sum())
    report.figure(f"outcome.{name}.false_converges", float(falsely.sum() / failing) if failing else None)
    report.figure(f"outcome.{name}.admitted", float(np.mean(admitted[truth.succeeded])))


def _floor(rows: Sequence[LabelledMigration], field: str) -> float | None:
    """Median error of a repeat against the median of the other repeats of its setting: no model can do better."""
    by_setting: dict[str, list[float]] = {}
    for row in rows:
        value = getattr(row, field)
        if row.succeeded and row.setting and value:
            by_setting.setdefault(row.setting, []).append(value)
    errors = [
        abs(float(np.median(others)) - value) / value
        for values in by_setting.values()
        if len(values) >= 3
        for i, value in enumerate(values)
        if (others := values[:i] + values[i + 1 :])
    ]
    return float(np.median(errors)) if errors else None


def _table(report: Report, names: list[str]) -> None:
    """Predictors side by side."""
    wanted = sorted(
        {key.replace(f".{name}.", ".{}.") for name in names for key in report.figures if f".{name}." in key}
    )
    print(f"{'':34}" + "".join(f"{name:>11}" for name in names))
    for key in wanted:
        cells = [report.figures.get(key.format(name)) for name in names]
        print(f"{key.replace('.{}.', ' '):34}" + "".join(f"{'-' if c is None else f'{c:.3g}':>11}" for c in cells))
    print()


def _dump(path: Path, rows: Sequence[LabelledMigration], predictors: dict[str, CostColumns]) -> None:
    names = [
        f"{n}.{t}.{part}" for n in predictors for t in (*TARGETS, "non_convergence") for part in ("value", "upper")
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "family", "setting", "succeeded", *TARGETS, *names])
        for i, row in enumerate(rows):
            truth = [getattr(row, field) for field in TARGETS.values()]
            told = [
                getattr(getattr(columns, field), part)[i]
                for columns in predictors.values()
                for field in (*TARGETS.values(), "non_convergence")
                for part in ("value", "upper")
            ]
            out.writerow([row.id, row.family, row.setting, int(row.succeeded), *truth, *told])


def _speed(report: Report, settings: PredictSettings) -> None:
    model = baselines.shipped(settings) or PhysicsCost(settings)
    seconds = measure_speed(model)
    report.figure("speed.seconds", seconds)
    report.figure("speed.kernels", seconds / kernel_seconds())
