"""Consolidation in CloudSim 3.0.3's PlanetLab world: its own policies, and rebalancerd's loop, over recorded days.

The world is accepted when DVFS and THR-MMT-0.8 come to the original's figures; it fails loudly where they do not. Only
figures of the same world can be compared. Policies: dvfs, thr (THR-MMT-0.8), iqr (IQR-MMT-1.5), mad (MAD-MMT-2.5), lr
(LR-MMT-1.2), ours. Variants: "compat", the original as it is, and "corrected" (``consolidation_world``).
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rebalancerd.observe.traces.reader import read_traces
from tests.bench.consolidation_bound import bound_kwh, bound_with_moves, fold_moves
from tests.bench.consolidation_day import OURS, Day, run_day
from tests.bench.consolidation_ours import CONFIGURATION
from tests.bench.consolidation_picture import LEVELS, Point, frontier
from tests.bench.consolidation_policies import POLICIES
from tests.bench.consolidation_reference import FEWER, accepted, demanded
from tests.bench.consolidation_world import COMPAT, CORRECTED, HOSTS, Variant
from tests.bench.report import Report

PICTURED = (
    4  # every so many-th VM of the day, on as many fewer hosts: five more runs of the whole would take half an hour
)
VARIANTS = {variant.name: variant for variant in (COMPAT, CORRECTED)}
FIGURES = ("energy_kwh", "migrations", "slav", "shortage", "seconds_per_step")


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Which days, policies and variants are run."""
    parser.add_argument("--traces", type=Path, required=True, help="directory with planetlab_*.npz")
    parser.add_argument("--days", nargs="*", default=None, help="e.g. 20110303; all that are there by default")
    parser.add_argument("--policies", nargs="+", choices=(*POLICIES, OURS), default=[*POLICIES, OURS])
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--partial", type=Path, default=None, help="finished runs are kept there and not run again")
    parser.add_argument(
        "--picture", type=Path, default=None, help="SVG: energy against real shortage, a quarter of the first day's VMs"
    )
    return parser


def run(options: argparse.Namespace, report: Report) -> None:
    """Every day under every policy in every variant, then what is asked of them."""
    days = recorded_days(options.traces, options.days)
    kept = Kept(options.partial)
    for line in CONFIGURATION.lines():
        print(line)
    for day, percent in days.items():
        for name in options.variants:
            _one(day, percent, VARIANTS[name], options.policies, kept, report)
    _sums(report, list(days), options.variants, options.policies)
    if options.picture is not None:
        day = next(iter(days))
        part = days[day][::PICTURED]
        title = f"{day}, compat, {len(part)} VMs on {HOSTS // PICTURED} hosts"
        options.picture.write_text(frontier(_points(day, part, options.policies, kept), title))


def recorded_days(directory: Path, wanted: list[str] | None) -> dict[str, NDArray[np.int64]]:
    """(N, T) CPU per cents of the PlanetLab days. Raises SystemExit for a day that is not there, TraceError."""
    found = {
        trace.part: np.rint(np.nan_to_num(trace.cpu.T) * 100).astype(np.int64)
        for trace in read_traces(directory)
        if trace.set == "planetlab"
    }
    missing = [day for day in wanted or [] if day not in found]
    if missing or not found:
        raise SystemExit(f"no PlanetLab day {' '.join(missing)} in {directory}; there are {' '.join(found) or 'none'}")
    return {day: found[day] for day in wanted or found}


class Kept:
    """Runs that are finished, in a file, so that an interrupted benchmark goes on where it was."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._runs = json.loads(path.read_text()) if path is not None and path.exists() else {}

    def run(
        self,
        key: str,
        day: NDArray[np.int64],
        variant: Variant,
        policy: str,
        *,
        level: int | None = None,
        hosts: int = HOSTS,
    ) -> Day:
        """That run, made now unless it is kept already."""
        if key not in self._runs:
            configuration = CONFIGURATION if level is None else CONFIGURATION.at_level(level)
            self._runs[key] = asdict(run_day(day, variant, policy, hosts=hosts, configuration=configuration))
            if self._path is not None:
                self._path.write_text(json.dumps(self._runs, indent=1) + "\n")
        return Day(**self._runs[key])


def _one(
    day: str, percent: NDArray[np.int64], variant: Variant, policies: list[str], kept: Kept, report: Report
) -> None:
    runs: dict[str, Day] = {}
    bound = bound_kwh(percent, variant, HOSTS)
    report.figure(f"{day}.{variant.name}.bound_kwh", bound)
    if variant.ram_always:
        moves = fold_moves(percent, variant, HOSTS)
        report.figure(f"{day}.{variant.name}.fold_moves", moves)
        print(f"{day} {variant.name}: onto as few hosts as memory allows it takes at least {moves} moves", flush=True)
    for policy in policies:
        found = runs[policy] = kept.run(f"{day}.{variant.name}.{policy}", percent, variant, policy)
        for figure in FIGURES:
            report.figure(f"{day}.{variant.name}.{policy}.{figure}", getattr(found, figure))
        print(
            f"{day} {variant.name:<9} {policy:<4} {found.energy_kwh:7.2f} kWh ({found.energy_kwh / bound:.3f} of the "
            f"bound) {found.migrations:6d} migrations, SLAV {found.slav:.3g}, shortage {found.shortage:.4%}, "
            f"{found.seconds_per_step:.3f} s a step",
            flush=True,
        )
        if variant is COMPAT:
            for line, held in accepted(day, policy, found):
                report.check(f"acceptance: {line}", held)
    for line, held in demanded(day, variant.name, runs):
        report.check(line, held)
    if variant.ram_always and "thr" in runs:
        _reachable(day, percent, variant, runs["thr"], report)


def _reachable(day: str, percent: NDArray[np.int64], variant: Variant, thr: Day, report: Report) -> None:
    """Whether anybody could draw no more than THR-MMT-0.8 with a fifth of its moves, said beside what is asked of ours."""
    moves = int(thr.migrations * FEWER)
    least = bound_with_moves(percent, variant, HOSTS, moves)
    report.figure(f"{day}.{variant.name}.bound_with_moves_kwh", least)
    said = "so nobody can meet both" if least > thr.energy_kwh else "which forbids nothing"
    print(
        f"{day} {variant.name}: with {moves} moves, a fifth of THR-MMT-0.8's, nobody draws less than {least:.1f} kWh; "
        f"THR-MMT-0.8 draws {thr.energy_kwh:.1f}, {said}",
        flush=True,
    )


def _sums(report: Report, days: list[str], variants: list[str], policies: list[str]) -> None:
    for variant in variants:
        for policy in policies:
            for figure in ("energy_kwh", "migrations"):
                values = [report.figures[f"{day}.{variant}.{policy}.{figure}"] or 0 for day in days]
                report.figure(f"sum.{variant}.{policy}.{figure}", sum(values))
        report.figure(f"sum.{variant}.bound_kwh", sum(report.figures[f"{d}.{variant}.bound_kwh"] or 0 for d in days))


def _points(day: str, percent: NDArray[np.int64], policies: list[str], kept: Kept) -> list[Point]:
    points, hosts = [], HOSTS // PICTURED
    for policy in policies:
        if policy != OURS:
            found = kept.run(f"{day}.pictured.{policy}", percent, COMPAT, policy, hosts=hosts)
            points.append(Point(policy, found.energy_kwh, found.shortage, found.migrations, ours=False))
    for level in LEVELS:
        found = kept.run(f"{day}.pictured.{OURS}.{level}", percent, COMPAT, OURS, level=level, hosts=hosts)
        points.append(Point(f"level {level}", found.energy_kwh, found.shortage, found.migrations, ours=True))
    return points
