"""Contention that is felt already, as unmet demand in the planner's currency, where it is measured.

The sums of demand cannot show it: guests wait although the host's figures are below its headrooms (a noisy host, hot
caches, a slow core), or memory is short although the guests' own is not. What waits counts as demand on that host that
is not served, until as much load has left the host:

* CPU: the vCPU delay of its guests (steal), in cores, less the part that the guests' demand counts already, or the share of
  time in which some task waited for a CPU (PSI ``some``: at least so much of one core), whichever is more.
* Memory: the swap in use, or the share of time in which some task waited for memory, of the memory in use, if that is more.

Only hosts that the forecast room calls hotspots by contention count: below its limits waiting is noise. Unknown is not
counted, for nothing can be relieved by a guess.
"""

from dataclasses import dataclass

import numpy as np

from rebalancerd.cluster.demand import cpu_demand_cores, sane
from rebalancerd.plan.demand import Floats, Indices
from rebalancerd.plan.state import PlacementState, triggers

NOTHING = 1e-9


@dataclass(frozen=True, slots=True)
class Felt:
    """(H,) what waits, and the load at which it does (with what is leaving already): reference cores and bytes."""

    cpu: Floats
    memory: Floats
    base_cpu: Floats
    base_memory: Floats

    @classmethod
    def of(cls, state: PlacementState) -> "Felt | None":
        """None where nothing is felt."""
        cpu, memory = np.zeros(len(state.hosts)), np.zeros(len(state.hosts))
        for spot in triggers(state.inputs):
            host = state.host_index.get(spot.host)
            if spot.contention is None or host is None:
                continue
            if spot.resource == "cpu":
                cpu[host] = _cores(state, host)
            else:
                memory[host] = _bytes(state, host)
        if not (cpu.any() or memory.any()):
            return None
        return cls(cpu, memory, state.start.sums[0][:, -1], state.start.sums[1][:, -1])

    def on(self, host: int) -> bool:
        """Whether something was felt there."""
        return bool(self.cpu[host] > 0 or self.memory[host] > 0)

    def waiting(self, cpu: Floats, memory: Floats, hosts: Indices) -> tuple[Floats, Floats]:
        """(N,) cores and bytes that still wait with those present loads on those N hosts."""
        cores = np.clip(self.cpu[hosts] + cpu - self.base_cpu[hosts], 0.0, self.cpu[hosts])
        held = np.clip(self.memory[hosts] + memory - self.base_memory[hosts], 0.0, self.memory[hosts])
        return cores, held


def _cores(state: PlacementState, host: int) -> float:
    facts = state.hosts[host]
    waited, counted = 0.0, 0.0
    for vm in state.snapshot.vms_on[facts.name]:
        used, asked = sane(vm.load.cpu_cores), cpu_demand_cores(vm, facts)
        waited += sane(vm.load.steal_cores) or 0.0
        counted += max(0.0, asked - used) if used is not None and asked is not None else 0.0
    return max(waited - counted, sane(facts.load.psi_cpu) or 0.0) * facts.speed_factor


def _bytes(state: PlacementState, host: int) -> float:
    load = state.hosts[host].load
    stalled = (sane(load.psi_memory) or 0.0) * (sane(load.memory_used_bytes) or 0.0)
    return max(stalled, sane(load.swap_used_bytes) or 0.0)
