"""Room for a unit that fits on no receiver: one VM of a receiver moves on to another, and the unit takes its place."""

from collections.abc import Set as AbstractSet

import numpy as np

from rebalancerd.plan.consolidate_fit import Receivers
from rebalancerd.plan.constraints import PLACEMENT, check_unit
from rebalancerd.plan.relief import unready
from rebalancerd.plan.search import TOLERANCE, Unit

RECEIVERS = 8  # that are tried
EXAMINED = 4  # VMs of each


def make_room(receivers: Receivers, unit: Unit, taken: AbstractSet[int]) -> tuple[Unit, int, int] | None:
    """(VM that moves on, where to, receiver it leaves for the unit), None if no one move makes room.

    ``taken``: VMs that move already. The receivers with the most room are tried, and of each the smallest VMs whose
    leaving is enough.
    """
    state = receivers.state
    hosts = np.flatnonzero(receivers.allowed(unit))
    hosts = hosts[np.lexsort((hosts, receivers.fullness(hosts)))][:RECEIVERS]
    for host in (int(h) for h in hosts):
        here = np.array(
            [v for v in state.settled_on(host) if v not in taken and state.vms[v].host == state.hosts[host].name]
        )
        if not len(here):
            continue
        enough = here[_enough(receivers, unit, host, here)]
        for v in enough[np.lexsort((enough, state.demand.hard_memory[enough]))][:EXAMINED]:
            if receivers.evaluated >= state.settings.work_budget:
                return None
            found = _aside(receivers, unit, host, int(v))
            if found is not None:
                return found
    return None


def _enough(receivers: Receivers, unit: Unit, host: int, vms: np.ndarray) -> np.ndarray:
    """Mask of the VMs of a host whose leaving lets the unit fit there."""
    state, slack, quantile = receivers.state, 1 + TOLERANCE, receivers.state.settings.quantile
    receivers.evaluated += len(vms)
    cpu = state.demand.peak(state.held_cpu[host] + unit.cpu - state.demand.cpu[vms], quantile)
    memory = state.demand.peak(state.held_memory[host] + unit.memory - state.demand.memory[vms], quantile)
    hard = state.hard_memory[host] + unit.hard_memory - state.demand.hard_memory[vms]
    fits: np.ndarray = cpu <= receivers.limit_cpu[host] * slack
    fits &= memory <= receivers.limit_memory[host] * slack
    fits &= hard <= state.capacity_memory[host] * slack
    return fits


def _aside(receivers: Receivers, unit: Unit, host: int, vm: int) -> tuple[Unit, int, int] | None:
    """Whether that VM may move on, and the unit then really fits."""
    state = receivers.state
    if state.groups.bound(vm) or unready(state, (vm,)) is not None:
        return None
    aside = Unit.of(state, (vm,))
    fits = receivers.choose(aside)
    if not fits:
        return None
    undos = receivers.apply(aside, fits[0])
    refusal = check_unit(state, unit.vms, host, PLACEMENT)
    receivers.undo(undos)
    return None if refusal is not None else (aside, fits[0], host)
