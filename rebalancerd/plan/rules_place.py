"""Constraints that depend on the planned placement: groups, capacity, and not making a new hot host."""

from collections.abc import Iterable
from math import isnan

from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.figures import GRANTED, VCPUS
from rebalancerd.plan.n_plus_one import n_plus_one
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


def memory_overcommit(ask: Ask) -> Refusal | None:
    """The memory that guests are configured with, every copy in flight included, stays within the overcommit policy."""
    figures, host = ask.state.figures, ask.destination
    if figures.room(GRANTED, ask.arriving, host):
        return None
    need, limit = figures.after(GRANTED, ask.arriving, host), float(figures.limit[GRANTED, host])
    return ask.refuse(
        Code.MEMORY_OVERCOMMIT,
        f"{shown(ask.target.name)} would have {size(need)} granted, the overcommit policy allows {size(limit)}",
    )


def cpu_overcommit(ask: Ask) -> Refusal | None:
    """The vCPUs of a host stay within the cap on them, where there is one."""
    figures, host = ask.state.figures, ask.destination
    if figures.room(VCPUS, ask.arriving, host):
        return None
    need, limit = figures.after(VCPUS, ask.arriving, host), float(figures.limit[VCPUS, host])
    return ask.refuse(
        Code.CPU_OVERCOMMIT,
        f"{shown(ask.target.name)} would have {need:.0f} vCPUs, its cap is {limit:.0f} "
        f"({ask.state.settings.vcpus_per_core_max:g} per core)",
    )


def hugepages(ask: Ask) -> Refusal | None:
    """Free huge pages of the same size on the destination, copies in flight counted; unknown is refused."""
    figures, host = ask.state.figures, ask.destination
    pages = float(figures.page_bytes[ask.vm])
    if not pages:
        return None
    name = shown(ask.target.name)
    if isnan(pages):
        where = shown(ask.source.name)
        return ask.refuse(Code.HUGEPAGES, f"has huge pages of {where}'s default size, which is not known")
    row = figures.pools[int(pages)]
    limit, need = float(figures.limit[row, host]), figures.after(row, ask.arriving, host)
    if isnan(limit):
        return ask.refuse(Code.HUGEPAGES, f"needs huge pages of {size(pages)}; those of {name} are unknown")
    if figures.room(row, ask.arriving, host):
        return None
    free = max(0.0, limit - float(figures.held[row, host]))
    wanted = need - float(figures.held[row, host])
    return ask.refuse(Code.HUGEPAGES, f"needs {wanted:.0f} huge pages of {size(pages)}, {name} has {free:.0f} free")


def pinned_cpus(ask: Ask) -> Refusal | None:
    """No other VM on the destination is pinned to a CPU of the same number."""
    state = ask.state
    there = [
        m for m in state.groups.on_its_cpus(ask.vm) if m not in ask.together and ask.destination in state.presence[m]
    ]
    if not there:
        return None
    shared = ask.guest.facts.pinned_cpus & state.vms[there[0]].facts.pinned_cpus
    cpus = listed(str(cpu) for cpu in sorted(shared))
    detail = f"{_names(state, there)} on {shown(ask.target.name)} is pinned to its CPUs there ({cpus})"
    return ask.refuse(Code.TOPOLOGY, detail)


COUNTED = (memory_overcommit, cpu_overcommit, hugepages, pinned_cpus)
RULES = (anti_affinity, affinity, memory_capacity, cpu_capacity, *COUNTED, would_be_hot, n_plus_one)
HARD_IN_FLIGHT = (anti_affinity, memory_capacity, cpu_capacity, *COUNTED, n_plus_one)
