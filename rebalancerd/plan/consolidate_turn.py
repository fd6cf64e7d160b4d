"""Whose turn it is to be emptied: one order over the hosts, and the words for why one goes before the next."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from rebalancerd.plan.demand import Floats
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import size


class Turn(NamedTuple):
    """One host in the order of its fields, the lowest first. ``bytes_there``: memory that would have to be copied."""

    begun: bool  # False goes first: it is being emptied already
    untested: bool
    watts: float  # idle, per reference core, negative: the least efficient first
    bytes_there: float
    host: int


def turns(state: PlacementState, hosts: Iterable[int], watts: Floats) -> list[Turn]:
    """Those hosts, the one to be emptied first before all others. ``watts``: (H,) idle watts per reference core."""
    settled = state.place >= 0
    bytes_there = np.bincount(
        state.place[settled], weights=state.demand.hard_memory[settled], minlength=len(state.hosts)
    )
    leaving = {state.host_index[state.vms[v].host] for v in state.flying if int(state.place[v]) >= 0}
    told = state.inputs.no_sleep
    return sorted(
        Turn(h not in leaving, state.hosts[h].name in told, -float(watts[h]), float(bytes_there[h]), h) for h in hosts
    )


def why_before(turn: Turn, other: Turn, name: str) -> str:
    """Before which host it goes, the next in the order, and by what: the first figure in which they differ."""
    if turn.begun != other.begun:
        reason = "it is being emptied already"
    elif turn.untested != other.untested:
        reason = f"{name} never woke by our order"
    elif turn.watts != other.watts:
        reason = f"it draws {-turn.watts:.3g} W per core when idle, that one {-other.watts:.3g} W"
    elif turn.bytes_there != other.bytes_there:
        reason = f"{size(turn.bytes_there)} are copied, there {size(other.bytes_there)}"
    else:
        reason = "they are equal and it comes first in the configuration"
    return f"before {name} because {reason}"
