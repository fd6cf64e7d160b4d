"""The whole loop on a simulated cluster: sample, snapshot, scenarios, costs, plan, guard, ledger; best of N cycles."""

import argparse
import resource
import tempfile
from pathlib import Path

from tests.bench.report import Report


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Size of the cluster and how many cycles are timed."""
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--vms", type=int, default=4000)
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    return parser


def run(options: argparse.Namespace, report: Report) -> None:
    """Warm up, then time decide cycles with the production loop; the figure is the best cycle, parts of that same one."""
    from rebalancerd.sim.world import build_bench_world

    with tempfile.TemporaryDirectory() as scratch:
        world = build_bench_world(hosts=options.hosts, vms=options.vms, seed=options.seed, state_dir=Path(scratch))
        world.warm_up()
        best: tuple[float, tuple[tuple[str, float], ...], int] | None = None
        for _ in range(options.cycles):
            seconds, parts, steps = world.timed_cycle()
            if best is None or seconds < best[0]:
                best = (seconds, parts, steps)
        assert best is not None
        report.figure("cycle.seconds", best[0])
        report.figure("cycle.peak_mib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        for name, seconds in best[1]:
            report.figure(f"cycle.{name}.seconds", seconds)
        report.figure("cycle.plan_steps", best[2])
        report.figure("cycle.hosts", options.hosts)
        report.figure("cycle.vms", options.vms)
