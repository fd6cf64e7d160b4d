"""Parking hosts: a VM that goes to a third host for a while, so that moves which wait for each other can be made.

Two full hosts cannot swap a VM each: neither has room for the other's copy. With one of the VMs on a third host for the
time they can. A parking host must keep every hard rule, but it may be above headroom while the VM is there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.plan import rules_fit, rules_host
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.costbook import CostBook, Priced
from rebalancerd.plan.price import cost_core_seconds
from rebalancerd.plan.search import Search

LEG_RULES = (*rules_host.RULES, *rules_fit.RULES)
TRIED = 4  # hosts asked for each VM, those with most free memory first


@dataclass(frozen=True)
class Leg:
    """The second leg of a VM's way: the snapshot with the VM on the parking host, and what the move from there costs."""

    snapshot: Snapshot
    priced: Priced

    def core_seconds(self, mean_cores: float) -> float:
        """Its cost in the planner's currency."""
        return cost_core_seconds(self.priced.cost, mean_cores)


@dataclass(frozen=True)
class _FromParking(Ask):
    """The same question, asked from the parking host."""

    parking: int = -1

    @cached_property
    def source(self) -> Host:
        """The parking host."""
        return self.state.hosts[self.parking]


def second_leg(search: Search, vm: int, parking: int, destination: int) -> Leg | None:
    """The move from where the VM is parked on to its destination; None if a rule or a veto forbids it."""
    state, inputs = search.state, search.state.inputs
    ask = _FromParking(state, vm, destination, (vm,), parking)
    if any(rule(ask) is not None for rule in LEG_RULES):
        return None
    there = replace(state.vms[vm], host=state.hosts[parking].name)
    vms = tuple(there if v == vm else other for v, other in enumerate(state.vms))
    snapshot = replace(inputs.snapshot, vms=vms)
    book = CostBook(replace(inputs, snapshot=snapshot))
    if not book.admissible(vm, destination):
        return None
    return Leg(snapshot, book.priced(vm, destination))


def parkings(search: Search, vm: int, destination: int) -> Iterator[tuple[int, Leg]]:
    """Hosts where the VM may wait, with its second leg; those with most memory free first."""
    state = search.state
    free = np.nan_to_num(state.capacity_memory - state.hard_memory)
    mask = search.admission.of(vm) & search.objective.counted
    mask[[destination, int(state.place[vm])]] = False
    for host in sorted(np.flatnonzero(mask), key=lambda h: (-free[h], h))[:TRIED]:
        if (
            state.costs.admissible(vm, int(host))
            and (leg := second_leg(search, vm, int(host), destination)) is not None
        ):
            yield int(host), leg
