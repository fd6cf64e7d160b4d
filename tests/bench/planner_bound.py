"""What no plan of K moves can beat: a lower bound of the objective, from the inputs alone.

Unmet demand of a host is convex in its load, so that several VMs relieve no more than the sum of what each relieves alone,
and no more than there is. The best K single reliefs, each host's capped so, bound what K moves relieve; that they cost
nothing, add nothing at their destinations and leave perfect balance is assumed. Shares no code with the search.
"""

import numpy as np

from rebalancerd.plan.inputs import PlanInputs
from tests.bench.planner_cases import Floats


def objective_bound(inputs: PlanInputs) -> tuple[float, float]:
    """(unmet core-seconds now, the least that is left after ``max_moves`` moves), both times their weight."""
    snapshot, scenarios, settings = inputs.snapshot, inputs.scenarios, inputs.settings
    index = {host.name: i for i, host in enumerate(snapshot.hosts)}
    place = np.array([index[vm.host] for vm in snapshot.vms])
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(snapshot.hosts) + 1))
    cores = sum(h.capacity_cores or 0.0 for h in snapshot.hosts)
    memory = sum(h.capacity_memory_bytes or 0.0 for h in snapshot.hosts)
    seconds = np.full(scenarios.paths * scenarios.steps + 1, scenarios.step_seconds / scenarios.paths)
    seconds[-1] = scenarios.step_seconds
    now_cpu = np.array([vm.load.cpu_cores for vm in snapshot.vms], dtype=np.float64)
    now_memory = np.array([vm.load.memory_bytes for vm in snapshot.vms], dtype=np.float64)
    before, single = 0.0, list[float]()
    for h, host in enumerate(snapshot.hosts):
        mine = order[starts[h] : starts[h + 1]]
        parts = (
            (scenarios.cpu_cores[mine], now_cpu[mine], settings.cpu_headroom * (host.capacity_cores or 0.0), 1.0),
            (
                scenarios.memory_bytes[mine],
                now_memory[mine],
                settings.memory_headroom * (host.capacity_memory_bytes or 0.0),
                cores / memory,
            ),
        )
        unmet, reliefs = 0.0, np.zeros(len(mine))
        for paths, now, limit, worth in parts:
            rows = np.column_stack((paths.astype(np.float64), now))
            total = rows.sum(axis=0)
            over = float(np.maximum(total - limit, 0.0) @ seconds) * worth
            unmet += over
            reliefs += over - np.maximum(total - rows - limit, 0.0) @ seconds * worth
        before += unmet
        single += _capped(reliefs, unmet)
    most = float(np.sort(np.array(single))[::-1][: settings.max_moves].sum())
    return settings.weight_unmet * before, settings.weight_unmet * max(0.0, before - most)


def _capped(reliefs: Floats, unmet: float) -> list[float]:
    """What each further VM of a host adds at most, largest first; together no more than there is."""
    sums = np.minimum(np.cumsum(np.sort(reliefs)[::-1]), unmet)
    return [float(x) for x in np.diff(sums, prepend=0.0) if x > 0]
