"""Figures: what hosts hold of things that are counted in whole units, and how much of each they may hold.

Rows are the bytes granted to guests (overcommit policy), their vCPUs (an optional cap) and the huge pages of each size.
Everything in flight counts on both ends. All figures are whole numbers below 2^53, so that adding and taking away again
is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.demand import Demand, Floats, Indices
from rebalancerd.plan.settings import PlanSettings

GRANTED, VCPUS, FIRST_POOL = 0, 1, 2
TOLERANCE = 1e-9


@dataclass(slots=True)
class Figures:
    """``need``: (R, V), what each VM needs. ``held``, ``limit``: (R, H); an unknown limit is NaN and takes nothing in.

    ``pools``: page size in bytes to its row. ``page_bytes``: of each VM the size of its huge pages, 0 for none and NaN
    for one that nobody could tell. ``own``: (H,) bytes that each host itself uses beyond its reservation. ``limited``:
    rows that bound anything. What huge pages hold is counted from the snapshot on, against the pages then free.
    """

    need: Floats
    held: Floats
    limit: Floats
    pools: dict[int, int]
    page_bytes: Floats
    own: Floats
    limited: tuple[int, ...]

    def copy(self) -> "Figures":
        """The same figures with sums of their own."""
        return Figures(self.need, self.held.copy(), self.limit, self.pools, self.page_bytes, self.own, self.limited)

    def shift(self, vm: int, *, gone: Sequence[int] = (), come: Sequence[int] = ()) -> None:
        """Take a VM off those hosts and count it on these."""
        for host in gone:
            self.held[:, host] -= self.need[:, vm]
        for host in come:
            self.held[:, host] += self.need[:, vm]

    def after(self, row: int, vms: Sequence[int], host: int) -> float:
        """What a host would hold with those VMs on it as well."""
        return float(self.held[row, host] + self.need[row, list(vms)].sum())

    def room(self, row: int, vms: Sequence[int], host: int) -> bool:
        """Whether a host may hold what those VMs need of that row; what needs nothing of it fits everywhere."""
        added, limit = float(self.need[row, list(vms)].sum()), float(self.limit[row, host])
        return not added or float(self.held[row, host]) + added <= limit * (1 + TOLERANCE)

    def fits(self, vms: Sequence[int], hosts: Indices) -> NDArray[np.bool_]:
        """Which of those hosts may take all of those VMs in, by every row that they need anything of."""
        rows = list(vms)
        needed = self.need[:, rows].sum(axis=1)
        found: NDArray[np.bool_] = np.full(len(hosts), not np.isnan(self.page_bytes[rows]).any())
        for row in self.limited:
            if needed[row]:
                found &= self.held[row, hosts] + needed[row] <= self.limit[row, hosts] * (1 + TOLERANCE)
        return found


def build(snapshot: Snapshot, place: Indices, demand: Demand, own: Floats, settings: PlanSettings) -> Figures:
    """Figures of a placement; ``own`` (H,): bytes that each host itself uses beyond its reservation."""
    hosts, vms = snapshot.hosts, snapshot.vms
    pages = np.array([_page_bytes(vm, hosts[h]) for vm, h in zip(vms, place, strict=True)], dtype=np.float64)
    pages[~demand.active] = 0.0
    sizes = sorted({int(p) for p in pages if p > 0})
    pools = {size: FIRST_POOL + i for i, size in enumerate(sizes)}
    shape = FIRST_POOL + len(sizes)
    need = np.zeros((shape, len(vms)))
    configured = np.array([vm.facts.memory_bytes for vm in vms], dtype=np.float64)
    # huge pages are taken from the host for good: what lies in them is no further demand on its memory
    need[GRANTED] = np.ceil(np.where(pages == 0.0, np.maximum(demand.hard_memory, configured), demand.hard_memory))
    need[VCPUS] = [vm.facts.vcpus for vm in vms]
    need[:, ~demand.active] = 0.0
    for size, row in pools.items():
        need[row] = np.where(pages == size, np.ceil(configured / size), 0.0)
    held = np.zeros((shape, len(hosts)))
    for row in range(shape):
        held[row] = np.bincount(place, weights=need[row], minlength=len(hosts))
    held[GRANTED] += np.ceil(own)
    limit = np.full((shape, len(hosts)), np.inf)
    for h, host in enumerate(hosts):
        limit[GRANTED, h] = granted_limit(host, settings)
        limit[VCPUS, h] = vcpu_limit(host, settings)
        for size, row in pools.items():
            limit[row, h] = _free_pages(host, size, float(held[row, h]))
    held[FIRST_POOL:] = 0.0
    limited = tuple(row for row in range(shape) if not np.isposinf(limit[row]).all())
    return Figures(need, held, limit, pools, pages, np.ceil(own), limited)


def granted_limit(host: Host, settings: PlanSettings) -> float:
    """Bytes that may be granted to guests of a host: its own factor, else the cluster's, times its capacity."""
    factor = settings.memory_overcommit if host.memory_overcommit is None else host.memory_overcommit
    capacity = host.capacity_memory_bytes
    return float("nan") if capacity is None else factor * capacity


def vcpu_limit(host: Host, settings: PlanSettings) -> float:
    """vCPUs that guests of a host may have; infinite without a cap."""
    if not settings.vcpus_per_core_max:
        return float("inf")
    return (
        float("nan") if host.cores is None else max(0.0, host.cores - host.reserved_cores) * settings.vcpus_per_core_max
    )


def _page_bytes(vm: Vm, host: Host) -> float:
    """Size of a VM's huge pages: 0 for none; the host's default size is known where its pools have one size only."""
    size = vm.facts.hugepage_bytes
    if size is None:
        return 0.0
    pools = host.huge_page_pools
    if size == 0:
        return float(next(iter(pools))) if pools is not None and len(pools) == 1 else float("nan")
    return float(size)


def _free_pages(host: Host, size: int, held: float) -> float:
    """Pages of a size that are free by both counts, libvirt's and what the VMs there leave of the pool."""
    pools = host.huge_page_pools
    if pools is None:
        return float("nan")
    pool = pools.get(size)
    if pool is None:
        return 0.0
    left = max(0.0, pool.total - held)
    return left if pool.free is None else min(left, float(pool.free))
