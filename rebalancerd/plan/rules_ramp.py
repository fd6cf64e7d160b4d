"""Constraints against a stampede onto a host: how many VMs may arrive within an hour, fewer while it has just come back."""

from math import ceil

import numpy as np

from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import shown, span


def arrivals(state: PlacementState, host: int) -> int:
    """VMs that arrived within the hour, are on their way, or are sent there by the plan so far."""
    name = state.hosts[host].name
    planned = int(np.count_nonzero((state.place == host) & (state.start.place != host)))
    flying = sum(f.destination == name for f in state.snapshot.in_flight)
    return planned + flying + state.inputs.arrived.get(name, 0)


def inflow_limit(state: PlacementState, host: int) -> int | None:
    """Most arrivals within the hour, None for any number.

    A host that came back t seconds ago takes a share of t ÷ ``ramp_seconds`` of them, of ``max_moves`` where there is no
    cap, and always one.
    """
    settings = state.settings
    age = state.inputs.returned.get(state.hosts[host].name)
    cap = settings.inflow_max_per_host or None
    if age is None or age >= settings.ramp_seconds:
        return cap
    return max(1, ceil((cap or settings.max_moves) * age / settings.ramp_seconds))


def inflow(ask: Ask) -> Refusal | None:
    """A host takes a bounded number of VMs; consolidating, and emptying a host by an operator's order, are not bounded."""
    state = ask.state
    limit = None if state.inputs.unbounded_inflow else inflow_limit(state, ask.destination)
    if limit is None or ask.guest.host in state.inputs.drained:
        return None
    there = arrivals(state, ask.destination)
    if there + len(ask.arriving) <= limit:
        return None
    name, age = shown(ask.target.name), state.inputs.returned.get(ask.target.name)
    since = "" if age is None or age >= state.settings.ramp_seconds else f", it came back {span(age)} ago"
    return ask.refuse(Code.RAMP, f"{name} takes at most {limit} VMs within the hour, {there} arrived or are to{since}")


RULES = (inflow,)
