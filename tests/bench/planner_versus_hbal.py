"""Our descent with hbal's formula as its objective, against hbal itself: same data, same admissibility, same number of moves.

Admissible on both sides: a VM goes where more memory is left than it needs (hbal refuses a node that would have none
left), one move after the other. Every sequence is replayed by `replayed`, which shares no code with the search, and both
end placements are judged by `hbal_score`.
"""

import argparse
import shutil
import subprocess
import time

from rebalancerd.plan.deviations import Deviations, Term
from rebalancerd.plan.reconsider import descend
from tests.bench.planner_cases import MIB, ArrayCase, array_case
from tests.bench.planner_hbal import disagreement, hbal_metrics, hbal_score, placed, run_hbal
from tests.bench.report import Report

CASES = ((20, 200, 20), (50, 500, 20), (100, 1000, 10))  # hosts, VMs, moves
NO_LIMIT = 10_000  # moves: both end because nothing is gained any more
DRIFT = 1e-9


def arguments(parser: argparse.ArgumentParser) -> None:
    """What of this part can be chosen."""
    parser.add_argument(
        "--hbal", action=argparse.BooleanOptionalAction, default=False, help="compare with Ganeti's hbal"
    )
    parser.add_argument(
        "--hbal-end-seconds", type=float, default=60.0, help="longest run of hbal without a limit on moves"
    )
    parser.add_argument("--hbal-sizes", type=int, default=len(CASES), help="how many of the sizes")


def field_of(case: ArrayCase) -> Deviations:
    """The case with hbal's score as its objective."""
    terms = [Term(weight, amount, base, scale) for weight, amount, base, scale in hbal_metrics(case)]
    return Deviations(terms, case.place, case.capacity_memory / MIB, case.memory / MIB)


def ours(case: ArrayCase, moves: int, runs: int = 3) -> tuple[list[tuple[int, int]], float, int]:
    """Our moves, the least of the wall times from arrays to moves, candidates evaluated."""
    best, found, evaluated = float("inf"), list[tuple[int, int]](), 0
    for _ in range(runs):
        begun = time.perf_counter()
        field = field_of(case)
        found = descend(field, moves)
        best, evaluated = min(best, time.perf_counter() - begun), field.evaluated
    return found, best, evaluated


def replayed(case: ArrayCase, moves: list[tuple[int, int]]) -> None:
    """Make the moves one by one. Raises ValueError for one that does not move its VM or for which memory is short."""
    place, left = case.place.copy(), case.capacity_memory - case.per_host(case.memory)
    for number, (vm, host) in enumerate(moves, start=1):
        if place[vm] == host or not left[host] > case.memory[vm]:
            raise ValueError(f"move {number}, VM {vm} to host {host}, cannot be made")
        left[place[vm]] += case.memory[vm]
        left[host] -= case.memory[vm]
        place[vm] = host


def compare(options: argparse.Namespace, report: Report) -> None:
    """Every size, at equal moves and to the end. Raises FileNotFoundError if hbal is not installed."""
    if shutil.which("hbal") is None:
        raise FileNotFoundError("hbal is not installed (Debian package ganeti-htools)")
    for hosts, vms, moves in CASES[: options.hbal_sizes]:
        case, name = array_case(hosts, vms, 1), f"{hosts}x{vms}.hbal"
        theirs = run_hbal(case, moves)
        if (apart := disagreement(case, theirs)) > 1e-7:
            raise ValueError(f"{name}: the score printed by hbal differs from the formula by {apart}")
        mine, seconds, evaluated = ours(case, len(theirs.moves))
        replayed(case, list(theirs.moves))
        replayed(case, mine)
        before, after = hbal_score(case, placed(case, theirs.moves)), hbal_score(case, placed(case, mine))
        report.figure(f"{name}.moves", len(theirs.moves))
        report.figure(f"{name}.moves_ours", len(mine))
        report.figure(f"{name}.score_initial", hbal_score(case))
        report.figure(f"{name}.score_theirs", before)
        report.figure(f"{name}.score_ours", after)
        report.figure(f"{name}.score_ratio_equal_moves", 1.0 if abs(after - before) < DRIFT else after / before)
        report.figure(f"{name}.seconds_theirs", theirs.seconds)
        report.figure(f"{name}.seconds_ours", seconds)
        report.figure(f"{name}.time_ratio", seconds / theirs.seconds)
        report.figure(f"{name}.evaluated_ours", evaluated)
        report.figure(f"{name}.formula_disagreement", apart)
        _to_the_end(options, report, case, name)


def _to_the_end(options: argparse.Namespace, report: Report, case: ArrayCase, name: str) -> None:
    """Without a limit on moves; null where hbal does not end in time."""
    mine, seconds, _ = ours(case, NO_LIMIT, runs=1)
    replayed(case, mine)
    after = hbal_score(case, placed(case, mine))
    report.figure(f"{name}.end_moves_ours", len(mine))
    report.figure(f"{name}.end_score_ours", after)
    report.figure(f"{name}.end_seconds_ours", seconds)
    try:
        theirs = run_hbal(case, NO_LIMIT, runs=1, timeout=options.hbal_end_seconds)
    except subprocess.TimeoutExpired:
        report.figure(f"{name}.score_ratio", None)
        return
    report.figure(f"{name}.end_moves", len(theirs.moves))
    report.figure(f"{name}.end_seconds", theirs.seconds)
    report.figure(f"{name}.score_ratio", after / hbal_score(case, placed(case, theirs.moves)))
