"""Ways to bring a unit off a hot host when no host has room for it: another VM leaves the receiver first.

It goes on to a third host (a chain) or to the hot one (a swap). One that the plan has sent to the receiver is sent
elsewhere, stays where it was, or goes on from there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rebalancerd.plan.bundle import Shift
from rebalancerd.plan.demand import Floats, Indices
from rebalancerd.plan.parking import Leg, second_leg
from rebalancerd.plan.relief import NOTHING, unready
from rebalancerd.plan.search import Search, Unit

RECEIVERS = 8  # hosts tried for a unit, those that lack least room first
EVICTED = 6  # VMs of a receiver that are tried, those with least memory first
TOLERANCE = 1 + 1e-9


@dataclass(frozen=True, slots=True)
class Standing:
    """A search and what its plan has fixed: ``moves``: destination by VM, ``settled``: VMs whose way is not changed any more."""

    search: Search
    moves: dict[int, int]
    settled: set[int]

    def may_be_evicted(self, vm: int) -> bool:
        """Whether the VM may be moved to make room: alone, for balance, and not twice."""
        state = self.search.state
        return vm not in self.settled and not state.groups.bound(vm) and unready(state, (vm,)) is None


def ways(standing: Standing, host: int, unit: Unit) -> Iterator[tuple[Shift, ...]]:
    """Shifts that bring a unit off a hot host: one VM leaves the receiver first, to a third host or to the hot one.

    That VM may be one that the plan has sent there: then it is sent elsewhere, or stays where it was.
    """
    search, state, moves = standing.search, standing.search.state, standing.moves
    for receiver in receivers(search, unit):
        for evicted in _evicted(standing, unit, receiver):
            small = Unit.of(state, (evicted,))
            onward = search.evaluate(small, lambda _: True, search.relief_at_source(small))
            ends = [c.destination for c in onward[:1] if c.destination not in unit.sources]
            home = evicted in moves and int(state.start.place[evicted]) == host
            if home or search.admission.of(evicted)[host]:
                ends.append(host)
            for end in ends:
                yield Shift((evicted,), end, instead_of=moves.get(evicted)), Shift(unit.vms, receiver)
            if evicted in moves:
                for end, leg in _onward(search, small, receiver, host):
                    yield Shift((evicted,), end, leg=leg), Shift(unit.vms, receiver)


def _onward(search: Search, small: Unit, receiver: int, hot: int) -> Iterator[tuple[int, Leg]]:
    """Where a VM that the plan has sent to a receiver could go on from there: the best third host, or the hot one.

    It may be one that the VM cannot reach from where it is now.
    """
    state, (vm,) = search.state, small.vms
    open_to = search.objective.counted.copy()
    open_to[[receiver, hot, int(state.start.place[vm]), *state.shunned]] = False
    hosts = np.flatnonzero(open_to)
    lack = lacking(search, hosts, state.held_cpu[hosts] + small.cpu, state.held_memory[hosts] + small.memory)
    fits = state.hard_memory[hosts] + small.hard_memory <= state.capacity_memory[hosts] * TOLERANCE
    hosts = hosts[(lack <= NOTHING) & fits]
    gains = search.objective.imbalance_gain(small.sources, hosts)
    for third in hosts[np.lexsort((hosts, -np.round(gains, 6)))][:RECEIVERS]:
        if (leg := second_leg(search, vm, receiver, int(third))) is not None:
            yield int(third), leg
            break
    if state.start.place[vm] != hot and (leg := second_leg(search, vm, receiver, hot)) is not None:
        yield hot, leg


def receivers(search: Search, unit: Unit) -> list[int]:
    """Hosts that the unit could go to but for room or anti-affinity, those that lack least first."""
    state, objective = search.state, search.objective
    open_to = search.admission.of_unit(unit.vms) & objective.counted
    open_to[list(unit.sources)] = False
    open_to[list(state.shunned)] = False
    hosts = np.flatnonzero(open_to)
    lack = lacking(search, hosts, state.held_cpu[hosts] + unit.cpu, state.held_memory[hosts] + unit.memory)
    lack += np.maximum(0.0, (state.hard_memory[hosts] + unit.hard_memory) / state.capacity_memory[hosts] - 1)
    return [int(hosts[i]) for i in np.lexsort((hosts, np.round(lack, 9)))[:RECEIVERS]]


def lacking(search: Search, hosts: Indices, cpu: Floats, memory: Floats) -> Floats:
    """What load rows (N, C) lack on those N hosts below headroom, as shares of capacity, CPU and memory added."""
    state, objective, quantile = search.state, search.objective, search.state.settings.quantile
    over_cpu = state.demand.peak(cpu, quantile) - objective.limit_cpu[hosts]
    over_memory = state.demand.peak(memory, quantile) - objective.limit_memory[hosts]
    lack: Floats = np.maximum(0.0, over_cpu) / np.maximum(state.capacity_cpu[hosts], NOTHING)
    lack += np.maximum(0.0, over_memory) / np.maximum(state.capacity_memory[hosts], NOTHING)
    return lack


def _evicted(standing: Standing, unit: Unit, receiver: int) -> list[int]:
    """VMs of a receiver without any one of which the unit fits there, smallest first."""
    search, state = standing.search, standing.search.state
    blocking = {
        m for v in unit.vms for _, members in state.groups.apart(v) for m in members if receiver in state.presence[m]
    }
    here = sorted(blocking) if blocking else state.settled_on(receiver)
    if len(blocking) > 1:
        return []
    vms = [v for v in here if standing.may_be_evicted(v)]
    if not vms:
        return []
    there = np.full(len(vms), receiver, dtype=np.intp)
    cpu = state.held_cpu[receiver] + unit.cpu - state.demand.cpu[vms]
    memory = state.held_memory[receiver] + unit.memory - state.demand.memory[vms]
    hard = state.hard_memory[receiver] + unit.hard_memory - state.demand.hard_memory[vms]
    fits = (lacking(search, there, cpu, memory) <= NOTHING) & (hard <= state.capacity_memory[receiver] * TOLERANCE)
    fitting = [v for v, good in zip(vms, fits, strict=True) if good]
    return sorted(fitting, key=lambda v: (float(state.demand.hard_memory[v]), v))[:EVICTED]
