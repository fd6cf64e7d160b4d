"""Accounting of a night: energy as it was and as it would have been unfolded, by the power model at measured demand.

    saved = Σ_cycles Δt · Σ_hosts [ P_h(u'_h) − P_h(u_h) ] − Σ_moves seconds · copy cores · watts per core

u_h: reference cores that the VMs on h ask for now. u'_h: the same VMs' present demand, each on the host of the evening;
VMs that came since count where they are, in both. P_h is ``cluster.power_curve``; a host that is asleep draws nothing in
the first term and P_h(u'_h) in the second. A VM whose demand is unknown counts as nothing in both. Time between readings
longer than ``most_seconds`` (the daemon was away, the telemetry frozen) is missed: nothing is claimed for it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rebalancerd.cluster.cost import COPY_CORES
from rebalancerd.cluster.demand import cpu_demand_cores
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.night import Night
from rebalancerd.cluster.power_curve import PowerDefaults, host_watts
from rebalancerd.cluster.snapshot import Snapshot


def opened(window: str, snapshot: Snapshot, ends_at: float) -> Night:
    """The night that begins with this snapshot."""
    return Night(
        window=window,
        began_at=snapshot.taken_at,
        ends_at=ends_at,
        noted_at=snapshot.taken_at,
        evening=tuple(sorted((vm.uuid, vm.host) for vm in snapshot.vms)),
    )


def noted(
    night: Night,
    snapshot: Snapshot,
    *,
    asleep: frozenset[str],
    power: PowerDefaults,
    cpu_headroom: float,
    most_seconds: float,
) -> Night:
    """The night with the time since the last reading accounted as this snapshot shows it."""
    passed = snapshot.taken_at - night.noted_at
    if passed <= 0:
        return night
    if passed > most_seconds or snapshot.frozen is not None:
        return replace(night, noted_at=snapshot.taken_at, missed_seconds=night.missed_seconds + passed)
    now, then = _loads(snapshot, {}), _loads(snapshot, dict(night.evening))
    actual = unfolded = 0.0
    hot = caused = 0
    sleeping = dict(night.asleep_seconds)
    for host in snapshot.hosts:
        unfolded += host_watts(host, then[host.name], power)
        if host.name in asleep:
            sleeping[host.name] = sleeping.get(host.name, 0.0) + passed
            continue
        actual += host_watts(host, now[host.name], power)
        limit = cpu_headroom * (host.capacity_cores or 0.0)
        if limit and now[host.name] > limit:
            hot += 1
            caused += then[host.name] <= limit
    return replace(
        night,
        noted_at=snapshot.taken_at,
        actual_joules=night.actual_joules + actual * passed,
        unfolded_joules=night.unfolded_joules + unfolded * passed,
        asleep_seconds=tuple(sorted(sleeping.items())),
        hot_seconds=night.hot_seconds + hot * passed,
        caused_seconds=night.caused_seconds + caused * passed,
        accounted_seconds=night.accounted_seconds + passed,
    )


def closed(night: Night, at: float, ended: Iterable[MigrationRecord], power: PowerDefaults) -> Night:
    """The night as a whole. ``ended``: the migrations that ended within it, whatever came of them."""
    seconds = [
        max(0.0, m.ended_at - m.started_at) for m in ended if m.started_at is not None and m.ended_at is not None
    ]
    return replace(
        night,
        ended_at=at,
        moves=len(seconds),
        moves_joules=sum(seconds) * COPY_CORES * power.watts_per_core,
    )


def _loads(snapshot: Snapshot, elsewhere: Mapping[str, str]) -> dict[str, float]:
    """Reference cores that VMs ask for, by host; ``elsewhere`` says where a VM counts if not where it is."""
    known = {host.name: host for host in snapshot.hosts}
    found: dict[str, float] = defaultdict(float)
    for vm in snapshot.vms:
        here = known[vm.host]
        cores = cpu_demand_cores(vm, here)
        place = elsewhere.get(vm.uuid, vm.host)
        found[place if place in known else vm.host] += 0.0 if cores is None else cores * here.speed_factor
    return found
