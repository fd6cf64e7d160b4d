"""The deterministic problem as a MILP (HiGHS by scipy.optimize.milp), and a lower bound that any size can afford.

At most K VMs leave their host. Minimised: Σ over hosts of the cores above headroom plus the bytes above headroom as
cores (cluster cores ÷ cluster bytes). No host holds more memory than it has. A first model lets only VMs of hosts above
a headroom move: what it finds is allowed, and is optimal if it meets ``relaxed_bound``. Where the two are further apart
than ``GAP`` the whole model is solved in the time that is left; its bound counts then. Nothing else is left out.
"""

import time
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from tests.bench.planner_cases import ArrayCase, Floats, Indices

GAP = 0.005
NOTHING = 1e-6


@dataclass(frozen=True)
class Exact:
    """``objective`` and ``bound`` in cores; ``proven``: they are within ``GAP``; ``place`` (V,) attains the objective."""

    objective: float
    bound: float
    proven: bool
    seconds: float
    place: Indices


def objective(case: ArrayCase, cpu_headroom: float, memory_headroom: float) -> float:
    """Cores above headroom, memory as cores, of the case's placement."""
    cpu = np.maximum(case.per_host(case.cpu) - cpu_headroom * case.capacity_cpu, 0.0).sum()
    memory = np.maximum(case.per_host(case.memory) - memory_headroom * case.capacity_memory, 0.0).sum()
    return float(cpu + case.cores_per_byte * memory)


def relaxed_bound(case: ArrayCase, moves: int, cpu_headroom: float, memory_headroom: float) -> float:
    """No plan of that many moves leaves less than this, in cores.

    What leaves a host is at best its k largest by cores and, apart from that, its k largest by bytes, and nothing
    arrives. What is left is convex in k, so that the largest reductions over all hosts are the best choice.
    """
    gains: list[Floats] = []
    for rows, limit, worth in (
        (case.cpu, cpu_headroom * case.capacity_cpu, 1.0),
        (case.memory, memory_headroom * case.capacity_memory, case.cores_per_byte),
    ):
        order = np.lexsort((-rows, case.place))
        home, sizes = case.place[order], rows[order]
        begin = np.searchsorted(home, np.arange(case.hosts))
        summed = np.concatenate(([0.0], np.cumsum(sizes)))
        over = np.maximum(case.per_host(rows) - limit, 0.0)[home]
        before = summed[:-1] - summed[begin][home]
        rank = np.arange(case.vms) - begin[home]
        gain = np.zeros(case.vms)
        gain[begin[home] + rank] = worth * np.minimum(sizes, np.maximum(over - before, 0.0))
        gains.append(gain)
    best = np.sort(gains[0] + gains[1])[::-1][:moves].sum()
    return max(0.0, objective(case, cpu_headroom, memory_headroom) - float(best))


def solve(
    case: ArrayCase, moves: int, cpu_headroom: float = 0.8, memory_headroom: float = 0.85, seconds: float = 60.0
) -> Exact:
    """The best placement found and what is known about better ones, within about that time."""
    begun = time.perf_counter()
    bound = relaxed_bound(case, moves, cpu_headroom, memory_headroom)
    best, place = objective(case, cpu_headroom, memory_headroom), case.place
    hot = (case.per_host(case.cpu) > cpu_headroom * case.capacity_cpu) | (
        case.per_host(case.memory) > memory_headroom * case.capacity_memory
    )
    for part, pool in ((0.5, np.flatnonzero(hot[case.place])), (1.0, np.arange(case.vms))):
        left = part * seconds - (time.perf_counter() - begun)
        if _close(best, bound) or left <= 0:
            break
        found, dual = _milp(case, pool, moves, (cpu_headroom, memory_headroom), bound, left)
        if found is not None and objective(case.moved(found), cpu_headroom, memory_headroom) < best:
            best, place = objective(case.moved(found), cpu_headroom, memory_headroom), found
        if len(pool) == case.vms:
            bound = max(bound, min(dual, best))
    return Exact(best, bound, _close(best, bound), time.perf_counter() - begun, place)


def _close(best: float, bound: float) -> bool:
    return best - bound <= max(NOTHING, GAP * best)


def _milp(
    case: ArrayCase, pool: Indices, moves: int, headroom: tuple[float, float], bound: float, seconds: float
) -> tuple[Indices | None, float]:
    """Placement found (None: none) and HiGHS's own bound, if only the VMs of ``pool`` may move.

    Columns: x[v, h] for every VM of the pool and every host but its own, then the cores and the bytes above headroom of
    each host, the latter in cores. Rows: loads, memory, one host per VM, number of moves, objective ≥ ``bound``.
    """
    hosts = case.hosts
    vm, host = np.repeat(pool, hosts), np.tile(np.arange(hosts), len(pool))
    vm, host = vm[host != case.place[vm]], host[host != case.place[vm]]
    count, rate = len(vm), case.cores_per_byte
    columns, slack = np.arange(count), count + np.arange(hosts)
    rows, cols, vals = [], [], []
    for block, size in ((0, case.cpu), (1, case.memory * rate), (2, case.memory * rate)):
        rows += [block * hosts + host, block * hosts + case.place[vm]]
        cols += [columns, columns]
        vals += [size[vm], -size[vm]]
        if block < 2:
            rows.append(block * hosts + np.arange(hosts))
            cols.append(slack + block * hosts)
            vals.append(-np.ones(hosts))
    one = 3 * hosts + np.searchsorted(pool, vm)
    last = 3 * hosts + len(pool)
    both = np.concatenate((slack, slack + hosts))
    rows += [one, np.full(count, last), np.full(2 * hosts, last + 1)]
    cols += [columns, columns, both]
    vals += [np.ones(count), np.ones(count), -np.ones(2 * hosts)]
    cpu, memory = case.per_host(case.cpu), case.per_host(case.memory)
    upper = np.concatenate(
        (
            headroom[0] * case.capacity_cpu - cpu,
            (headroom[1] * case.capacity_memory - memory) * rate,
            (case.capacity_memory - memory) * rate,
            np.ones(len(pool)),
            [moves, -bound],
        )
    )
    matrix = coo_array(
        (np.concatenate(vals), (np.concatenate(rows), np.concatenate(cols))), shape=(last + 2, count + 2 * hosts)
    )
    free = np.full(2 * hosts, np.inf)
    result = milp(
        np.concatenate((np.zeros(count), np.ones(2 * hosts))),
        integrality=np.concatenate((np.ones(count), np.zeros(2 * hosts))),
        bounds=Bounds(0, np.concatenate((np.ones(count), free))),
        constraints=LinearConstraint(matrix.tocsr(), -np.inf, upper),
        options={"time_limit": seconds, "mip_rel_gap": GAP / 2},
    )
    dual = -np.inf if result.mip_dual_bound is None else float(result.mip_dual_bound)
    if result.x is None:
        return None, dual
    place, chosen = case.place.copy(), result.x[:count] > 0.5
    place[vm[chosen]] = host[chosen]
    return place, dual
