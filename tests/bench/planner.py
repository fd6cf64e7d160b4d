"""The planner: how near its plans come to the optimum, how long they take, whether each state on the way is valid.

Part one, exact: one path, one step, at most K moves, no cost of moves and no weight on imbalance, so that what is left of
the objective is what a MILP can state; HiGHS solves the same instance to 0.5 % (`planner_exact`).
``gap_exact`` = (ours − optimum) ÷ (initial − optimum).

Part two, speed: 64 paths of six steps, up to 500 moves, physical costs of moves, a tenth of the VMs with anti-affinity or hosts to avoid;
best of the rounds. `gap_bound` = (ours − bound) ÷ (initial − bound), the bound of `planner_bound`. Seconds are wall time,
`processor_seconds` what one core was busy, which other programs on the machine disturb less; `slope` is of the latter.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from rebalancerd.cluster.plan import Plan
from rebalancerd.observe.traces.reader import read_traces
from rebalancerd.plan.balance import balance
from rebalancerd.plan.inputs import PlanInputs
from tests.bench import planner_random, planner_versus_hbal
from tests.bench.planner_bound import objective_bound
from tests.bench.planner_cases import SIZES, array_case
from tests.bench.planner_checker import violations
from tests.bench.planner_exact import objective, relaxed_bound, solve
from tests.bench.planner_world import exact_inputs, placed, speed_inputs
from tests.bench.report import Report

EXACT = ((20, 200, 5), (50, 500, 10))  # hosts, VMs, moves: with more moves nothing of the overload is left to compare
HEADROOMS = (0.80, 0.85)  # CPU, memory, as in PlanSettings
SMALL = SIZES.index((100, 1000))  # from here on the slope is taken


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """What is run."""
    parser.add_argument("--exact", action=argparse.BooleanOptionalAction, default=True, help="compare with HiGHS")
    parser.add_argument("--seeds", type=int, default=8, help="instances of each size")
    parser.add_argument("--solver-seconds", type=float, default=60.0)
    parser.add_argument("--speed", action=argparse.BooleanOptionalAction, default=True)
    planner_versus_hbal.arguments(parser)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many of the sizes are timed")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="only judge plans for N small odd clusters")
    parser.add_argument("--traces", type=Path, default=None, help="directory of traces that the demand is taken from")
    parser.add_argument(
        "--constrained", type=float, default=0.1, help="share of VMs with anti-affinity or hosts to avoid"
    )
    return parser


def run(options: argparse.Namespace, report: Report) -> None:
    """Both parts, as asked; or the small odd clusters alone."""
    if options.random:
        planner_random.run(range(options.random), report)
        return
    if options.exact:
        for hosts, vms, moves in EXACT:
            _exact(options, report, hosts, vms, moves)
    if options.hbal:
        planner_versus_hbal.compare(options, report)
    if options.speed:
        _speed(options, report)


def _exact(options: argparse.Namespace, report: Report, hosts: int, vms: int, moves: int) -> None:
    gaps, seconds, solver, broken, again = [], [], [], 0, 0
    for seed in range(1, options.seeds + 1):
        case = array_case(hosts, vms, seed)
        inputs = exact_inputs(case, moves)
        begun = time.perf_counter()
        plan = balance(inputs)
        seconds.append(time.perf_counter() - begun)
        broken += len(violations(inputs.snapshot, inputs.scenarios, inputs.settings, plan))
        found = solve(case, moves, *HEADROOMS, seconds=options.solver_seconds)
        solver.append(found.seconds)
        ours, before = objective(placed(case, plan), *HEADROOMS), objective(case, *HEADROOMS)
        again += len(balance(exact_inputs(placed(case, plan), max(0, moves - len(plan.steps)))).steps)
        if found.proven and before > found.objective:
            gaps.append((ours - found.objective) / (before - found.objective))
        assert ours >= relaxed_bound(case, moves, *HEADROOMS) - 1e-6
    name = f"exact.{hosts}_{vms}"
    report.figure(f"{name}.moves", moves)
    report.figure(f"{name}.proven", len(gaps))
    report.figure(f"{name}.gap_exact_worst", max(gaps, default=float("nan")))
    report.figure(f"{name}.gap_exact_mean", float(np.mean(gaps)) if gaps else float("nan"))
    report.figure(f"{name}.seconds_ratio_to_highs", float(np.median(seconds) / np.median(solver)))
    report.figure(f"{name}.violations", broken)
    report.figure(f"{name}.steps_after_the_end", again)


def _speed(options: argparse.Namespace, report: Report) -> None:
    traces = read_traces(options.traces) if options.traces else ()
    times: list[float] = []
    kernel = _kernel_processor_seconds()
    report.figure("machine.kernel_processor_seconds", kernel)
    for hosts, vms in SIZES[: options.sizes]:
        inputs = speed_inputs(hosts, vms, seed=1, traces=traces, constrained=options.constrained)
        seconds, processor, plan = _timed(inputs, options.rounds)
        name = f"speed.{hosts}_{vms}"
        times.append(processor)
        report.figure(f"{name}.seconds", seconds)
        report.figure(f"{name}.processor_seconds", processor)
        report.figure(f"{name}.processor_k", processor / kernel)
        report.figure(f"{name}.peak_mib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        report.figure(f"{name}.steps", len(plan.steps))
        report.figure(f"{name}.bytes_to_copy", sum(step.move.cost.bytes.value for step in plan.steps))
        report.figure(f"{name}.objective_before", plan.before.total)
        report.figure(f"{name}.objective", plan.after.total)
        report.figure(f"{name}.unmet_left", plan.after.unmet / plan.before.unmet if plan.before.unmet else 0.0)
        before, bound = objective_bound(inputs)
        assert bound <= plan.after.unmet * inputs.settings.weight_unmet + 1e-6 * before
        report.figure(f"{name}.objective_bound", bound)
        room = plan.before.total - bound
        report.figure(f"{name}.gap_bound", (plan.after.total - bound) / room if room > 0 else 0.0)
        found = violations(inputs.snapshot, inputs.scenarios, inputs.settings, plan)
        report.figure(f"{name}.violations", len(found))
    sizes = [hosts for hosts, _ in SIZES[: len(times)]]
    if len(times) > SMALL + 1:
        slope = np.log(times[-1] / times[SMALL]) / np.log(sizes[-1] / sizes[SMALL])
        report.figure("speed.slope", float(slope))


def _kernel_processor_seconds() -> float:
    """The reference kernel as the processor time it takes, for figures that are processor time too."""
    data = np.random.default_rng(0).random((20000, 288), dtype=np.float32)
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        np.quantile(data, 0.95, axis=0)
        best = min(best, time.process_time() - begun)
    return best


def _timed(inputs: PlanInputs, rounds: int) -> tuple[float, float, Plan]:
    """The least wall time and the least processor time of some rounds, and the plan."""
    best, least = float("inf"), float("inf")
    for _ in range(max(1, rounds)):
        begun, used = time.perf_counter(), time.process_time()
        plan = balance(inputs)
        best, least = min(best, time.perf_counter() - begun), min(least, time.process_time() - used)
    return best, least, plan
