"""Wishes: preferred hosts, soft affinity and soft anti-affinity. They choose among destinations and forbid none.

A broken wish counts ``weight_soft`` core-seconds where destinations of a unit are compared. It is no part of a move's
gain: a wish neither starts a move nor keeps one that relieves a host from being made.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rebalancerd.plan.demand import Floats, Indices
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import listed, shown

Broken = NDArray[np.bool_]


def penalty(state: PlacementState, unit: Sequence[int], hosts: Indices) -> Floats:
    """Core-seconds that the wishes broken on each of those hosts count, if the unit stood there: shape (N,)."""
    broken = np.zeros(len(hosts))
    if state.groups.wishing.isdisjoint(unit):
        return broken
    for _, rows in _broken(state, unit, hosts):
        broken += rows
    return broken * state.settings.weight_soft


def told(state: PlacementState, unit: Sequence[int], destination: int) -> str:
    """The wishes that a move breaks, as the end of a sentence; empty if it breaks none."""
    wishes = [wish for wish, rows in _broken(state, unit, np.array([destination])) if rows[0]]
    return f"; against the wishes: {listed(wishes)}" if wishes else ""


def _broken(state: PlacementState, unit: Sequence[int], hosts: Indices) -> Iterator[tuple[str, Broken]]:
    """Every wish of the unit's VMs, and on which of the hosts it is broken."""
    for vm in unit:
        if vm not in state.groups.wishing:
            continue
        name, policy = shown(state.vms[vm].name), state.vms[vm].policy
        if policy.prefer:
            liked = [state.host_index[h] for h in sorted(policy.prefer) if h in state.host_index]
            yield f"{name} prefers {listed(map(shown, sorted(policy.prefer)))}", ~np.isin(hosts, liked)
        for group, members in state.groups.wished(policy.soft_affinity, vm):
            if members and not set(members).intersection(unit):
                yield f"{name} with its group {shown(group)}", ~np.isin(hosts, state.place[list(members)])
        for group, members in state.groups.wished(policy.soft_anti_affinity, vm):
            within = bool(set(members).intersection(unit))
            yield f"{name} apart from its group {shown(group)}", within | np.isin(hosts, state.place[list(members)])
