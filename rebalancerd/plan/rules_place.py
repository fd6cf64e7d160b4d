"""Constraints that depend on the planned placement: groups, capacity, and not making a new hot host."""

from collections.abc import Iterable

from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import cores, listed, percent, shown, size

TOLERANCE = 1e-9


def _names(state: PlacementState, vms: Iterable[int]) -> str:
    return listed(shown(state.vms[v].name) for v in vms)


def anti_affinity(ask: Ask) -> Refusal | None:
    """No member of its anti-affinity groups may be on the destination, in flight to or from it included."""
    state = ask.state
    for group, members in state.groups.apart(ask.vm):
        there = [m for m in members if m in ask.together or ask.destination in state.presence[m]]
        if there:
            where = f"moves there too or is on {shown(ask.target.name)}"
            return ask.refuse(Code.ANTI_AFFINITY, f"group {shown(group)}: {_names(state, there)} {where}")
    return None


def affinity(ask: Ask) -> Refusal | None:
    """The members of its affinity groups that do not move with it must stand on the destination when the plan is done."""
    state = ask.state
    apart = [m for m in state.groups.bound(ask.vm) if m not in ask.together and state.place[m] != ask.destination]
    if apart:
        return ask.refuse(Code.AFFINITY, f"must stay with {_names(state, apart)}")
    return None


def memory_capacity(ask: Ask) -> Refusal | None:
    """The bytes granted to guests, every copy in flight included, never exceed what the host may grant."""
    capacity, need = float(ask.state.capacity_memory[ask.destination]), ask.after[2]
    if need <= capacity * (1 + TOLERANCE):
        return None
    return ask.refuse(
        Code.MEMORY_CAPACITY, f"{shown(ask.target.name)} would need {size(need)} of {size(capacity)} memory"
    )


def cpu_capacity(ask: Ask) -> Refusal | None:
    """The peak quantile of CPU demand never exceeds the destination's capacity."""
    capacity = float(ask.state.capacity_cpu[ask.destination])
    peak = float(ask.state.demand.peak(ask.after[0], ask.state.settings.quantile))
    if capacity > 0 and peak <= capacity * (1 + TOLERANCE):
        return None
    return ask.refuse(Code.CPU_CAPACITY, f"{shown(ask.target.name)} would need {cores(peak)} of {cores(capacity)}")


def would_be_hot(ask: Ask) -> Refusal | None:
    """Relief is not moving the trouble: the destination must stay below both headrooms, and not be a hotspot itself."""
    state, settings = ask.state, ask.state.settings
    if ask.destination in state.shunned:
        return ask.refuse(Code.WOULD_BE_HOT, f"{shown(ask.target.name)} is a hotspot itself")
    for label, row, capacity, headroom in (
        ("CPU", ask.after[0], float(state.capacity_cpu[ask.destination]), settings.cpu_headroom),
        ("memory", ask.after[1], float(state.capacity_memory[ask.destination]), settings.memory_headroom),
    ):
        peak = float(state.demand.peak(row, settings.quantile))
        if peak > headroom * capacity * (1 + TOLERANCE):
            share = percent(peak / capacity) if capacity > 0 else "all"
            return ask.refuse(
                Code.WOULD_BE_HOT,
                f"{shown(ask.target.name)} would reach {share} {label} (p{settings.quantile * 100:.0f}), "
                f"headroom {percent(headroom)}",
            )
    return None


RULES = (anti_affinity, affinity, memory_capacity, cpu_capacity, would_be_hot)
HARD_IN_FLIGHT = (anti_affinity, memory_capacity, cpu_capacity)
