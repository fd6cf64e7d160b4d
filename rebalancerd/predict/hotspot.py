"""Hotspots and pressures: which hosts are, or will be, above their headroom, and because of whom.

A host's load is the sum of its VMs' rows, of VMs on their way to it too, plus what the host itself uses beyond its
reservation. Where a host's own figures are unknown that sum is only a lower bound: it can make the host hot, never cool.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.decision import HostPressure
from rebalancerd.cluster.demand import sane, short_of_cpu
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.scenarios import Hotspot, Scenarios
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import Vm
from rebalancerd.predict.demand.persistence import memory_demand_bytes
from rebalancerd.predict.settings import ContentionLimits

CPU, MEMORY = "cpu", "memory"
P95 = 0.95
MAX_CAUSES = 5

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class HostDemand:
    """One resource of one host, in reference cores or bytes. ``paths``: shape (K·H,); None where unknown.

    ``complete`` False: the host's own use is unknown, so that ``now`` and ``paths`` are lower bounds.
    """

    scenarios: Scenarios
    capacity: float | None
    now: float
    paths: Floats
    complete: bool

    @cached_property
    def peaks(self) -> Floats:
        """Peak of each path, shape (K,)."""
        return self.scenarios.peaks(self.paths)

    @cached_property
    def peak_p95(self) -> float:
        """The 95 % quantile of the paths' peaks."""
        return float(np.quantile(self.peaks, P95))

    def share(self, value: float) -> float | None:
        """``value`` as a share of the capacity; None where the capacity is unknown or nothing."""
        return value / self.capacity if self.capacity else None


# demand of hosts by name and the headroom, to P(hot) by name
CpuChances = Callable[[Mapping[str, HostDemand], float], Mapping[str, float]]


def host_demand(snapshot: Snapshot, scenarios: Scenarios, host: Host, resource: str) -> HostDemand:
    """`_host_demand`, worked out once for a snapshot and its scenarios."""
    kept = scenarios.host_figures.get((host.name, resource))
    if kept is not None and kept[0] is snapshot and isinstance(kept[1], HostDemand):
        return kept[1]
    found = _host_demand(snapshot, scenarios, host, resource)
    scenarios.host_figures[host.name, resource] = (snapshot, found)
    return found


def _host_demand(snapshot: Snapshot, scenarios: Scenarios, host: Host, resource: str) -> HostDemand:
    """Present and predicted load of ``host``; ``resource`` is "cpu" or "memory".

    The host's own use is its measured use minus that of its guests minus its reservation (which its capacity leaves
    out already), never below 0, and stays as it is over the horizon. Raises ValueError if a VM has no row.
    """
    guests, coming = snapshot.vms_on[host.name], _coming(snapshot, host)
    matrix = scenarios.cpu_cores if resource == CPU else scenarios.memory_bytes
    rows = _rows(scenarios, guests)
    asked = [snapshot.asked_cores[vm.uuid] if resource == CPU else memory_demand_bytes(vm) for vm in guests]
    on_host = _now(asked, rows, matrix, host.speed_factor if resource == CPU else 1.0)
    if resource == CPU:
        busy = sane(host.load.cpu_cores)
        measured = None if busy is None else busy * host.speed_factor
        used = [(sane(vm.load.cpu_cores), row) for vm, row in zip(guests, rows, strict=True)]
        of_guests = sum(float(matrix[row, 0]) if u is None else u * host.speed_factor for u, row in used)
        reserved, capacity = host.reserved_cores * host.speed_factor, host.capacity_cores
    else:
        measured, of_guests = sane(host.load.memory_used_bytes), on_host
        reserved, capacity = host.reserved_memory_bytes, host.capacity_memory_bytes
    coming_rows = _rows(scenarios, coming)
    paths = matrix[[*rows, *coming_rows]].sum(axis=0, dtype=np.float32)
    own = 0.0 if measured is None else max(0.0, measured - of_guests - reserved)
    # an incoming copy already shows in the host's measured memory: count the larger of the two, not both
    own_later = max(0.0, own - float(matrix[coming_rows, 0].sum())) if resource == MEMORY else own
    return HostDemand(
        scenarios=scenarios,
        capacity=capacity,
        now=on_host + own,
        paths=paths + np.float32(own_later),
        complete=measured is not None,
    )


def hotspots(
    snapshot: Snapshot,
    scenarios: Scenarios,
    *,
    cpu_headroom: float,
    memory_headroom: float,
    probability: float,
    contention: ContentionLimits | None = None,
    cpu_chances: CpuChances | None = None,
) -> tuple[Hotspot, ...]:
    """Hosts above their headroom now, or with at least ``probability`` within the horizon, or in contention.

    ``cpu_chances``: tells that probability of CPU from the hosts' demand and the headroom; the share of paths does for
    hosts that it leaves out, and for memory. Headrooms are shares of the usable capacity. Hottest first; a host may stand once per resource. Hosts that are not
    usable are left out: they are not cool, nothing is known of them (``pressures`` shows them with None). Raises
    ValueError if a VM of the snapshot has no row in the scenarios.
    """
    limits = contention or ContentionLimits()
    usable = [host for host in snapshot.hosts if host.usable]
    cpu = {host.name: host_demand(snapshot, scenarios, host, CPU) for host in usable}
    chances = cpu_chances(cpu, cpu_headroom) if cpu_chances is not None else {}
    found = []
    for host in usable:
        signs = {CPU: _cpu_contention(host, snapshot, limits), MEMORY: _memory_contention(host, limits)}
        for resource, headroom in ((CPU, cpu_headroom), (MEMORY, memory_headroom)):
            demand = cpu[host.name] if resource == CPU else host_demand(snapshot, scenarios, host, resource)
            spot = _hotspot(
                demand,
                host=host.name,
                resource=resource,
                headroom=headroom,
                probability=probability,
                contention=signs[resource],
                chance=chances.get(host.name) if resource == CPU else None,
            )
            if spot is not None:
                found.append(replace(spot, causes=_causes(snapshot, scenarios, host, resource)))
    return tuple(sorted(found, key=lambda s: (-max(s.now, s.peak_p95) / s.headroom, s.host, s.resource)))


def pressures(snapshot: Snapshot, scenarios: Scenarios) -> tuple[HostPressure, ...]:
    """How each host looks, as shares of its usable capacity; None for what is unknown. In the order of the hosts."""
    found = []
    for host in snapshot.hosts:
        shares: dict[str, tuple[float | None, float | None]] = {}
        for resource in (CPU, MEMORY):
            demand = host_demand(snapshot, scenarios, host, resource)
            told = host.usable and demand.complete
            shares[resource] = (demand.share(demand.now), demand.share(demand.peak_p95)) if told else (None, None)
        found.append(_row(snapshot, host, shares[CPU], shares[MEMORY]))
    return tuple(found)


def measured_pressures(snapshot: Snapshot) -> tuple[HostPressure, ...]:
    """How each host looks where nothing is predicted, in the order of the hosts: measured use, no peaks.

    Use beyond the reservation, as a share of the usable capacity. None for a host that is not usable, and for all while
    the snapshot is frozen: figures that may be a fault of the telemetry are not passed on.
    """
    found = []
    for host in snapshot.hosts:
        told = host.usable and snapshot.frozen is None
        used, held = sane(host.load.cpu_cores), sane(host.load.memory_used_bytes)
        cpu = None if used is None else (used - host.reserved_cores) * host.speed_factor
        memory = None if held is None else held - host.reserved_memory_bytes
        cpu_now = _share(cpu, host.capacity_cores) if told else None
        memory_now = _share(memory, host.capacity_memory_bytes) if told else None
        found.append(_row(snapshot, host, (cpu_now, None), (memory_now, None)))
    return tuple(found)


def _share(used: float | None, capacity: float | None) -> float | None:
    return max(0.0, used) / capacity if used is not None and capacity else None


def _row(
    snapshot: Snapshot, host: Host, cpu: tuple[float | None, float | None], memory: tuple[float | None, float | None]
) -> HostPressure:
    """``cpu`` and ``memory``: share now, share at the p95 peak."""
    return HostPressure(
        host=host.name,
        cpu_now=cpu[0],
        cpu_p95=cpu[1],
        memory_now=memory[0],
        memory_p95=memory[1],
        vms=len(snapshot.vms_on[host.name]),
        unusable=host.unusable or (None if host.usable else "facts unknown"),
    )


def _hotspot(
    demand: HostDemand,
    *,
    host: str,
    resource: str,
    headroom: float,
    probability: float,
    contention: str | None,
    chance: float | None,
) -> Hotspot | None:
    """The hotspot without its causes, None where the host is not hot or its capacity is unknown."""
    now, peak = demand.share(demand.now), demand.share(demand.peak_p95)
    if now is None or peak is None or demand.capacity is None:
        return None
    limit = headroom * demand.capacity
    if chance is None:
        chance = float((demand.peaks > limit).mean())
    hot_now = demand.now > limit
    if not (hot_now or chance >= probability > 0 or contention):
        return None
    return Hotspot(
        host=host,
        resource=resource,
        now=now,
        peak_p95=peak,
        headroom=headroom,
        probability=1.0 if hot_now else chance,
        lead_seconds=0.0 if hot_now or contention else _lead_seconds(demand, limit),
        causes=(),
        contention=contention,
    )


def _lead_seconds(demand: HostDemand, limit: float) -> float | None:
    """Time to the first step at which the median over the paths passes ``limit``."""
    scenarios = demand.scenarios
    median = np.median(demand.paths.reshape(scenarios.paths, scenarios.steps), axis=0)
    crossing = np.flatnonzero(median > limit)
    return float(crossing[0] + 1) * scenarios.step_seconds if crossing.size else None


def _causes(snapshot: Snapshot, scenarios: Scenarios, host: Host, resource: str) -> tuple[str, ...]:
    """UUIDs of the host's guests that add most on average over all paths, largest first."""
    matrix = scenarios.cpu_cores if resource == CPU else scenarios.memory_bytes
    guests = snapshot.vms_on[host.name]
    weight = {vm.uuid: float(matrix[scenarios.row[vm.uuid]].mean()) for vm in guests}
    ranked = sorted(weight, key=lambda uuid: (-weight[uuid], uuid))
    return tuple(uuid for uuid in ranked[:MAX_CAUSES] if weight[uuid] > 0)


def _cpu_contention(host: Host, snapshot: Snapshot, limits: ContentionLimits) -> str | None:
    """The sign of CPU contention in words, or None."""
    told = [vm.load for vm in snapshot.vms_on[host.name] if sane(vm.load.steal_cores) is not None]
    steal = sum(sane(load.steal_cores) or 0.0 for load in told)
    asked = steal + sum(sane(load.cpu_cores) or 0.0 for load in told)
    if short_of_cpu(host) and steal >= limits.steal_cores and steal / asked >= limits.steal_share:
        return f"guests wait for CPU: {steal:.2f} cores of delay, {steal / asked:.0%} of what they ask for"
    psi = host.load.psi_cpu
    if psi is not None and psi >= limits.psi_cpu:
        return f"CPU pressure: some task waited {psi:.0%} of the time"
    return None


def _memory_contention(host: Host, limits: ContentionLimits) -> str | None:
    """The sign of memory contention in words, or None."""
    psi, swap, memory = host.load.psi_memory, host.load.swap_used_bytes, host.memory_bytes
    if psi is not None and psi >= limits.psi_memory:
        return f"memory pressure: some task waited {psi:.0%} of the time"
    if swap and memory and swap / memory >= limits.swap_share and (psi is None or psi >= limits.swap_psi_memory):
        return f"swap in use: {swap / memory:.0%} of the host's memory"
    return None


def _coming(snapshot: Snapshot, host: Host) -> tuple[Vm, ...]:
    """VMs that a migration under way brings to the host."""
    uuids = sorted({f.vm_uuid for f in snapshot.in_flight if f.destination == host.name})
    vms = (snapshot.vm_by_uuid.get(uuid) for uuid in uuids)
    return tuple(vm for vm in vms if vm is not None and vm.host != host.name)


def _rows(scenarios: Scenarios, vms: tuple[Vm, ...]) -> list[int]:
    missing = [vm.uuid for vm in vms if vm.uuid not in scenarios.row]
    if missing:
        raise ValueError(f"scenarios lack VMs of the snapshot: {missing[:3]}")
    return [scenarios.row[vm.uuid] for vm in vms]


def _now(asked: list[float | None], rows: list[int], matrix: Floats, factor: float) -> float:
    """Present demand of guests; a guest whose load is unknown counts with the first step of its stand-in."""
    total = 0.0
    for value, row in zip(asked, rows, strict=True):
        total += float(matrix[row, 0]) if value is None else value * factor
    return total
