"""Accounting of a night: energy as it was and as it would have been unfolded, by the power model at measured demand.

    saved = Σ_cycles Δt · Σ_hosts [ P_h(u'_h) − P_h(u_h) ] − Σ_moves seconds · copy cores · watts per core

u_h: reference cores that the VMs on h keep busy now. u'_h: the same VMs' present use, each on the host of the evening;
VMs that came since count where they are, in both. It is use, not what they ask for: what a full host leaves unserved is
no energy saved. P_h is ``cluster.power_curve``; a host that is asleep draws nothing in the first term and P_h(u'_h) in
the second. A VM whose use is unknown counts as nothing in both. Time between readings longer than ``most_seconds`` (the
daemon was away), or before a reading that cannot be trusted, is missed: nothing is claimed for it.

A host is hot while what its VMs ask for is above its headroom. Caused by folding are as many hot hosts as there are more
than there would be unfolded: a VM that is too large for any host makes one hot wherever it is.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

from rebalancerd.cluster.cost import COPY_CORES
from rebalancerd.cluster.demand import cpu_demand_cores, sane
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.night import Evening, Night
from rebalancerd.cluster.power_curve import PowerDefaults, host_watts
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import Vm


def opened(window: str, snapshot: Snapshot, ends_at: float) -> Night:
    """The night that begins with this snapshot."""
    return Night(
        window=window,
        began_at=snapshot.taken_at,
        ends_at=ends_at,
        noted_at=snapshot.taken_at,
        evening=Evening(vms=tuple(sorted((vm.uuid, vm.host) for vm in snapshot.vms))),
    )


def noted(
    night: Night,
    snapshot: Snapshot,
    *,
    asleep: frozenset[str],
    power: PowerDefaults,
    cpu_headroom: float,
    most_seconds: float,
    trusted: bool = True,
) -> Night:
    """The night with the time since the last reading accounted as this snapshot shows it.

    ``trusted`` False: the snapshot is not fit to plan from, so neither to claim anything from.
    """
    passed = snapshot.taken_at - night.noted_at
    if passed <= 0:
        return night
    if passed > most_seconds or snapshot.frozen is not None or not trusted:
        return replace(night, noted_at=snapshot.taken_at, missed_seconds=night.missed_seconds + passed)
    evening = dict(night.evening.vms)
    used, used_then = _loads(snapshot, {}, _used), _loads(snapshot, evening, _used)
    asked, asked_then = _loads(snapshot, {}, cpu_demand_cores), _loads(snapshot, evening, cpu_demand_cores)
    actual = unfolded = 0.0
    hot = hot_then = 0
    sleeping = dict(night.asleep_seconds)
    for host in snapshot.hosts:
        unfolded += host_watts(host, used_then[host.name], power)
        limit = cpu_headroom * (host.capacity_cores or 0.0)
        hot_then += bool(limit) and asked_then[host.name] > limit
        if host.name in asleep:
            sleeping[host.name] = sleeping.get(host.name, 0.0) + passed
            continue
        actual += host_watts(host, used[host.name], power)
        hot += bool(limit) and asked[host.name] > limit
    return replace(
        night,
        noted_at=snapshot.taken_at,
        actual_joules=night.actual_joules + actual * passed,
        unfolded_joules=night.unfolded_joules + unfolded * passed,
        asleep_seconds=tuple(sorted(sleeping.items())),
        hot_seconds=night.hot_seconds + hot * passed,
        caused_seconds=night.caused_seconds + max(0, hot - hot_then) * passed,
        accounted_seconds=night.accounted_seconds + passed,
    )


def moved(night: Night, moves: int, seconds: float, power: PowerDefaults) -> Night:
    """The night with its migrations so far: how many ended in it, and how long they copied together."""
    return replace(night, moves=moves, moves_joules=seconds * COPY_CORES * power.watts_per_core)


def closed(night: Night, at: float) -> Night:
    """The night as a whole. What passed since its last reading is missed."""
    missed = max(0.0, at - night.noted_at)
    return replace(night, ended_at=at, noted_at=max(at, night.noted_at), missed_seconds=night.missed_seconds + missed)


def _used(vm: Vm, _host: Host) -> float | None:
    return sane(vm.load.cpu_cores)


def _loads(
    snapshot: Snapshot, elsewhere: Mapping[str, str], cores_of: Callable[[Vm, Host], float | None]
) -> dict[str, float]:
    """Reference cores of the VMs by host; ``elsewhere`` says where a VM counts if not where it is."""
    known = {host.name: host for host in snapshot.hosts}
    found: dict[str, float] = defaultdict(float)
    for vm in snapshot.vms:
        here = known[vm.host]
        cores = cores_of(vm, here)
        place = elsewhere.get(vm.uuid, vm.host)
        found[place if place in known else vm.host] += 0.0 if cores is None else cores * here.speed_factor
    return found
