"""Storm brakes over many simulated days: noisy load, hosts and links that fail at random; promises checked all the time.

A ping-pong is a VM that we moved back to a host within its own cooldown after we had moved it away from there.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np

from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.guard.memory import cooldown_seconds
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.observe.settings import ObserveSettings
from rebalancerd.sim.invariants import InvariantError
from rebalancerd.sim.scenario import ScriptLine, WorldSpec
from rebalancerd.sim.synthetic import synthetic_cluster
from rebalancerd.sim.world import World
from tests.bench.report import Report

DAY_SECONDS = 86_400.0
DECIDE_SECONDS = 300.0
TELEMETRY = ("frozen", "reset", "negative", "jump", "silent", "stale")


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Size, length and how many faults a day."""
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--vms", type=int, default=2000)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--faults-per-day", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fill", type=float, default=0.45, help="mean CPU demand as a share of capacity")
    parser.add_argument("--sample-seconds", type=float, default=300.0)
    parser.add_argument("--partial", type=Path, default=None, help="figures so far, every six simulated hours")
    return parser


def run(options: argparse.Namespace, report: Report) -> None:
    """Play it, in steps of a simulated hour so that memory can be looked at on the way."""
    spec, wall, cpu = world_of(options), time.perf_counter(), time.process_time()
    with (
        tempfile.TemporaryDirectory(prefix="rebalancerd-soak-") as directory,
        World(spec, state_dir=Path(directory)) as world,
    ):
        settled: tuple[float, float] | None = None
        violations = 0
        for hour in range(1, int(np.ceil(options.days * 24)) + 1):
            try:
                world.run(min(hour * 3600.0, spec.run_seconds))
            except InvariantError as error:
                violations += 1
                print(f"violation: {error}", flush=True)
            if settled is None and world.clock.monotonic() >= spec.run_seconds / 10:
                settled = _rss_mib()  # the caches have warmed up
            _figures(report, world, spec, options.vms)
            now = _rss_mib()
            report.figure("soak.rss_growth_mib", now[0] - (settled or now)[0])
            report.figure("soak.anonymous_growth_mib", now[1] - (settled or now)[1])
            report.figure("soak.violations", violations)
            report.figure("soak.wall_seconds", time.perf_counter() - wall)
            report.figure("soak.cpu_seconds", time.process_time() - cpu)
            if options.partial is not None and (hour % 6 == 0 or violations):
                options.partial.write_text(json.dumps(report.figures, indent=1) + "\n", encoding="utf-8")
            if violations:
                break


def _figures(report: Report, world: World, spec: WorldSpec, vms: int) -> None:
    records = [r for r in world.ledger.records.values() if r.started_at is not None]
    days = world.clock.monotonic() / DAY_SECONDS
    by_vm = Counter(r.vm_uuid for r in records)
    report.figure("soak.days", days)
    report.figure("soak.moves_per_vm_day", len(records) / max(days, 1e-9) / max(1, vms))
    report.figure("soak.ping_pongs", ping_pongs(records, spec.guard))
    report.figure("soak.open_files_end", len(list(Path("/proc/self/fd").iterdir())))
    report.figure("soak.moves", len(records))
    report.figure("soak.most_moves_of_a_vm", max(by_vm.values(), default=0))
    report.figure("soak.failed", sum(not r.state.is_open and r.state is not MigrationState.SUCCEEDED for r in records))
    report.figure("soak.faults", sum(line.at <= world.clock.monotonic() for line in spec.script))
    report.figure("soak.breaker_closed", _closed(world))


def world_of(options: argparse.Namespace) -> WorldSpec:
    """A large cluster, sampled less often than in production so that a month fits into minutes."""
    return WorldSpec(
        cluster=synthetic_cluster(options.hosts, options.vms, options.seed, fill=options.fill),
        run_seconds=options.days * DAY_SECONDS,
        decide_seconds=DECIDE_SECONDS,
        observe=ObserveSettings(
            sample_seconds=options.sample_seconds,
            stale_after_seconds=2.5 * options.sample_seconds,
            flap_stable_seconds=options.sample_seconds,
            probe_interval_seconds=600.0,
        ),
        guard=GuardSettings(per_cluster=4),
        script=faults(options),
    )


def faults(options: argparse.Namespace) -> tuple[ScriptLine, ...]:
    """Faults at random, each mended after a while; an operator looks at the breaker every four hours."""
    rng = np.random.default_rng(options.seed)
    names = [h.name for h in synthetic_cluster(options.hosts, 0, options.seed).hosts]
    lines: list[tuple[float, tuple[str, ...]]] = []
    for _ in range(rng.poisson(options.faults_per_day * options.days)):
        at = float(rng.uniform(1800.0, max(1801.0, options.days * DAY_SECONDS)))
        until = at + float(rng.exponential(1200.0))
        one, two = (str(n) for n in rng.choice(names, size=2, replace=False))
        kind = int(rng.integers(5))
        if kind == 0:
            lines += [(at, ("host-unreachable", one)), (until, ("host-answers", one))]
        elif kind == 1:
            lines += [(at, ("link-cut", one, two)), (until, ("link-mended", one, two))]
        elif kind == 2:
            lines += [(at, ("telemetry", one, str(rng.choice(TELEMETRY)))), (until, ("telemetry", one, "true"))]
        elif kind == 3:
            lines.append((at, ("libvirtd-restarts", one)))
        else:
            lines.append((at, ("migration-fails", "*", str(rng.choice((9, 38, 67))), "0.5")))
    lines += [(at, ("close-breaker",)) for at in np.arange(14_400.0, options.days * DAY_SECONDS, 14_400.0).tolist()]
    return tuple(ScriptLine(at=at, verb=words[0], arguments=words[1:]) for at, words in sorted(lines))


def ping_pongs(records: list[MigrationRecord], guard: GuardSettings) -> int:
    """VMs back where they were within the cooldown of the move that took them away."""
    by_vm: dict[str, list[MigrationRecord]] = {}
    for record in records:
        if record.state is MigrationState.SUCCEEDED:
            by_vm.setdefault(record.vm_uuid, []).append(record)
    rest = cooldown_seconds(1, guard)
    return sum(
        later.destination == earlier.source and (later.started_at or 0.0) - (earlier.ended_at or 0.0) < rest
        for moves in by_vm.values()
        for earlier, later in pairwise(sorted(moves, key=lambda r: r.started_at or 0.0))
    )


def _rss_mib() -> tuple[float, float]:
    """Resident memory, and how much of it is no mapped file: the rings of the history fill for 35 days."""
    told = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kib = {line.split(":")[0]: line.split()[1] for line in told if line.startswith(("VmRSS", "RssAnon"))}
    return int(kib["VmRSS"]) / 1024, int(kib["RssAnon"]) / 1024


def _closed(world: World) -> int:
    return sum("close-breaker" in line for line in world.story.lines)
