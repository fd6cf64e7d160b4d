"""Contradictions in rules and sizes: what no plan can satisfy, named in every plan while the rest is planned as usual.

Only declared facts are looked at (policies, modes, sizes), never loads, so that the answer changes when an operator
changes something and not from cycle to cycle.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isnan

from rebalancerd.cluster.policy import HostMode, Mode
from rebalancerd.cluster.refusal import Code, Refusal, about_cluster, about_host, about_vm
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.figures import GRANTED
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import listed, shown, size

NAMED_ONE_BY_ONE = 8  # subjects per code; of more, the first few are named in one refusal about the cluster
CODES = (Code.CONTRADICTION, Code.UNKNOWN_NAME, Code.NO_CAPACITY)


@dataclass(frozen=True, slots=True)
class Found:
    """One contradiction: about a VM or a host by index, about the cluster where both are None."""

    code: Code
    detail: str
    vm: int | None = None
    host: int | None = None


def contradictions(state: PlacementState) -> tuple[Refusal, ...]:
    """All of them, by code and subject; of many subjects the first few are named and the rest counted."""
    found, told = list(_all(state)), []
    for code in CODES:
        rows: dict[tuple[int | None, int | None], list[str]] = defaultdict(list)
        for f in found:
            if f.code is code:
                rows[f.vm, f.host].append(f.detail)
        general = rows.pop((None, None), [])
        if len(rows) > NAMED_ONE_BY_ONE:
            general += [detail for details in rows.values() for detail in details]
            rows.clear()
        if general:
            told.append(replace(about_cluster(code, listed(general)), count=len(general)))
        told += [_about(state, code, vm, host, details) for (vm, host), details in rows.items()]
    return tuple(told)


def of_vm(state: PlacementState, vm: int) -> tuple[Refusal, ...]:
    """Those about one VM."""
    found = [f for f in _all(state) if f.vm == vm]
    return tuple(_about(state, c, vm, None, rows) for c in CODES if (rows := [f.detail for f in found if f.code is c]))


def _about(state: PlacementState, code: Code, vm: int | None, host: int | None, details: list[str]) -> Refusal:
    detail = "; ".join(details)
    if vm is not None:
        return about_vm(code, state.vms[vm].uuid, detail)
    return about_host(code, state.hosts[host or 0].name, detail)


def _all(state: PlacementState) -> Iterator[Found]:
    yield from _hosts_without_capacity(state)
    yield from _too_large(state)
    ruled = [v for v, vm in enumerate(state.vms) if state.demand.active[v] and _has_rules(vm)]
    for v in ruled:
        yield from _names(state, v)
        yield from _own_rules(state, v)
        yield from _together_and_apart(state, v)
    yield from _groups_apart(state, ruled)
    yield from _groups_together(state, ruled)


def _has_rules(vm: Vm) -> bool:
    policy = vm.policy
    return bool(policy.pin or policy.avoid or policy.prefer or policy.affinity or policy.anti_affinity)


def _hosts_without_capacity(state: PlacementState) -> Iterator[Found]:
    for h, host in enumerate(state.hosts):
        if not host.usable:  # that is a fault of the figures, told as such
            continue
        missing = [
            what
            for what, capacity in (("CPU", state.capacity_cpu[h]), ("memory", state.capacity_memory[h]))
            if capacity == 0
        ]
        if missing:
            why = "all of it is reserved" if (host.cores or 0) > 0 and (host.memory_bytes or 0) > 0 else "it has none"
            detail = f"{shown(host.name)} has no {' and no '.join(missing)} for guests: {why}"
            yield Found(Code.NO_CAPACITY, detail, host=h)


def _too_large(state: PlacementState) -> Iterator[Found]:
    """A VM larger than any host; not told while the size of some host is unknown."""
    cpus = [None if host.facts is None else host.facts.cpus for host in state.hosts]
    most_cpus = None if None in cpus else max((c for c in cpus if c is not None), default=None)
    sizes = [float(limit) for limit in state.figures.limit[GRANTED]]
    most_memory = None if any(map(isnan, sizes)) else max(sizes, default=None)
    for v, vm in enumerate(state.vms):
        if not state.demand.active[v]:
            continue
        facts = vm.facts
        if most_cpus is not None and facts.vcpus > most_cpus:
            detail = f"{shown(vm.name)} has {facts.vcpus} vCPUs, the largest host {most_cpus} CPUs"
            yield Found(Code.NO_CAPACITY, detail, vm=v)
        granted = float(state.figures.need[GRANTED, v])
        if most_memory is not None and granted > most_memory:
            detail = f"{shown(vm.name)} has {size(granted)} of memory, the largest host {size(most_memory)} for guests"
            yield Found(Code.NO_CAPACITY, detail, vm=v)


def _names(state: PlacementState, v: int) -> Iterator[Found]:
    policy = state.vms[v].policy
    for word, names in (("pinned to", policy.pin), ("to avoid", policy.avoid), ("to prefer", policy.prefer)):
        strange = sorted(names - state.host_index.keys())
        if strange:
            detail = f"{shown(state.vms[v].name)} is {word} {listed(map(shown, strange))}: there is no such host"
            yield Found(Code.UNKNOWN_NAME, detail, vm=v)


def _own_rules(state: PlacementState, v: int) -> Iterator[Found]:
    """A pin that the VM's own rules, or the modes of the hosts, leave nothing of."""
    vm = state.vms[v]
    pinned = vm.policy.pin & state.host_index.keys()
    if not pinned:
        return
    name, where = shown(vm.name), listed(map(shown, sorted(pinned)))
    left = pinned - vm.policy.avoid
    if not left:
        yield Found(Code.CONTRADICTION, f"{name} is pinned to {where}, which it is to avoid", vm=v)
    elif all(_closed(state, host, vm.host) for host in left):
        modes = sorted({_mode(state, host) for host in left})
        yield Found(Code.CONTRADICTION, f"{name} is pinned to {where}, in mode {' and '.join(modes)}", vm=v)


def _mode(state: PlacementState, host: str) -> str:
    mode = state.snapshot.host(host).mode
    return HostMode.DRAIN.value if host in state.inputs.drained else mode.value


def _closed(state: PlacementState, host: str, here: str) -> bool:
    """Whether a host does not receive a VM that is not there yet."""
    return host != here and _mode(state, host) != HostMode.ACTIVE.value


def _together_and_apart(state: PlacementState, v: int) -> Iterator[Found]:
    bound = set(state.groups.bound(v))
    for group, members in state.groups.apart(v):
        both = sorted(bound.intersection(members))
        if both:
            names = listed(shown(state.vms[m].name) for m in both)
            detail = f"{shown(state.vms[v].name)} and {names} are to stay together and, by group {shown(group)}, apart"
            yield Found(Code.CONTRADICTION, detail, vm=v)


def _allowed(state: PlacementState, v: int) -> frozenset[str]:
    """Hosts where its own pin and the hosts to avoid leave a VM."""
    policy = state.vms[v].policy
    allowed = policy.pin & state.host_index.keys() if policy.pin else state.host_index.keys()
    return frozenset(allowed - policy.avoid)


def _groups_together(state: PlacementState, ruled: list[int]) -> Iterator[Found]:
    """Groups that are to stay together though their members' rules leave no host to all of them."""
    for members in sorted({tuple(sorted((v, *state.groups.bound(v)))) for v in ruled if state.groups.bound(v)}):
        each = [_allowed(state, v) for v in members]
        if all(each) and not each[0].intersection(*each):
            pinned = [v for v in members if state.vms[v].policy.pin or state.vms[v].policy.avoid]
            told = listed(f"{shown(state.vms[v].name)} on {_few(_allowed(state, v))}" for v in pinned)
            names = listed(shown(state.vms[v].name) for v in members)
            yield Found(Code.CONTRADICTION, f"{names} are to stay together, but no host may have all: {told}")


def _few(names: frozenset[str]) -> str:
    return listed(map(shown, sorted(names)), 2)


def _groups_apart(state: PlacementState, ruled: list[int]) -> Iterator[Found]:
    """Groups that are to stay apart and cannot."""
    groups: dict[str, list[int]] = defaultdict(list)
    for v in ruled:
        for group in state.vms[v].policy.anti_affinity:
            groups[group].append(v)
    hosts = sum(_mode(state, host.name) != HostMode.DRAIN.value for host in state.hosts)
    for group, members in sorted(groups.items()):
        if len(members) > hosts and len(state.hosts) > 1:
            detail = f"group {shown(group)} is to be spread over hosts, but has {len(members)} VMs for {hosts} hosts"
            yield Found(Code.CONTRADICTION, detail)
        yield from _rivals(state, group, members)


def _rivals(state: PlacementState, group: str, members: list[int]) -> Iterator[Found]:
    """Members of a group that are to stay apart, of which one must be where another cannot leave."""
    kept: dict[str, list[int]] = defaultdict(list)
    for v in members:
        allowed = _allowed(state, v)
        if len(allowed) == 1:
            kept[next(iter(allowed))].append(v)
        elif _fixed(state.vms[v]):
            kept[state.vms[v].host].append(v)
    for host, there in sorted(kept.items()):
        pinned = [v for v in there if state.vms[v].policy.pin]
        if len(there) > 1 and pinned:
            others = listed(shown(state.vms[v].name) for v in there if v != pinned[0])
            name = shown(state.vms[pinned[0]].name)
            detail = f"{name} is pinned to {shown(host)}, where group {shown(group)} forbids it: {others} must be there"
            yield Found(Code.CONTRADICTION, detail, vm=pinned[0])


def _fixed(vm: Vm) -> bool:
    """Whether nothing here ever moves it."""
    foreign = vm.owner is not None or vm.facts.owner is not None
    return foreign or bool(vm.facts.immovable) or vm.policy.mode is Mode.OBSERVE
