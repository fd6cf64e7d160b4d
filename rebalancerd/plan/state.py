"""PlacementState: where every VM stands in a plan, and the load that follows from it, on NumPy arrays.

Two sums are kept per host and resource. ``held`` counts a VM in flight on both of its ends and is what constraints
read; ``settled`` counts it only where it will end up and is what the objective reads, so that a relief which is under
way is not planned a second time. One move changes two rows of each.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rebalancerd.cluster.demand import sane
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.refusal import Refusal
from rebalancerd.cluster.scenarios import Hotspot
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan import demand, figures
from rebalancerd.plan.costbook import CostBook
from rebalancerd.plan.demand import Demand, Floats, Indices
from rebalancerd.plan.figures import Figures
from rebalancerd.plan.groups import Groups
from rebalancerd.plan.inputs import PlanInputs

UNSETTLED = -1


@dataclass(frozen=True, slots=True)
class Undo:
    """What a move overwrote."""

    vm: int
    place: int
    presence: tuple[int, ...]
    rows: tuple[tuple[int, tuple[Floats, ...], float], ...]


@dataclass(frozen=True, slots=True)
class Start:
    """The placement of the snapshot with its sums (held and settled, CPU and memory), from which copies begin."""

    sums: tuple[Floats, ...]
    hard_memory: Floats
    place: Indices
    presence: tuple[tuple[int, ...], ...]
    figures: Figures


class PlacementState:
    """Placement of a snapshot's VMs; hosts and VMs are addressed by their index in the snapshot.

    Arrays: ``capacity_cpu`` (reference cores), ``capacity_memory`` (bytes), NaN where unknown; ``held_cpu``,
    ``held_memory``, ``settled_cpu``, ``settled_memory`` of shape (H, C); ``hard_memory`` (H,): bytes granted, both ends
    of a migration counted; ``place[v]``: host where v stands, or will stand when its migration has ended
    (``UNSETTLED``: in flight to a host nobody could name). ``shunned``: hotspots whose trouble these sums do not
    show (contention, figures of the host itself), so that they cannot tell when it is over. ``ruled`` keeps answers of
    constraints that no placement changes; ``memo`` (shared by copies) and ``spare`` belong to ``n_plus_one``. Raises ValueError for scenarios without a path or a step.
    """

    host_index: dict[str, int]
    vm_index: dict[str, int]
    hot: frozenset[int]
    flying: frozenset[int]
    shunned: frozenset[int]
    capacity_cpu: Floats
    capacity_memory: Floats
    place: Indices
    presence: list[tuple[int, ...]]
    start: Start

    def __init__(self, inputs: PlanInputs, like: "PlacementState | None" = None) -> None:
        self.inputs = inputs
        self.settings = inputs.settings
        self.snapshot = inputs.snapshot
        self.hosts: tuple[Host, ...] = inputs.snapshot.hosts
        self.vms: tuple[Vm, ...] = inputs.snapshot.vms
        self.demand: Demand = like.demand if like else demand.build(inputs.snapshot, inputs.scenarios)
        self.groups: Groups = like.groups if like else Groups(self.vms, [bool(a) for a in self.demand.active])
        self.ruled: dict[tuple[int, int], Refusal | None] = like.ruled if like else {}
        self.costs: CostBook = like.costs if like else CostBook(inputs)
        self.memo: dict[str, Any] = like.memo if like else {}
        self.spare: Any = None
        if like:
            self.host_index, self.vm_index, self.hot, self.flying = (
                like.host_index,
                like.vm_index,
                like.hot,
                like.flying,
            )
            self.capacity_cpu, self.capacity_memory, self.shunned = (
                like.capacity_cpu,
                like.capacity_memory,
                like.shunned,
            )
            self.start = like.start
            self._begin_at(like.start)
            return
        self.host_index = {host.name: i for i, host in enumerate(self.hosts)}
        self.vm_index = {vm.uuid: i for i, vm in enumerate(self.vms)}
        self.hot = frozenset(self.host_index[h.host] for h in triggers(inputs) if h.host in self.host_index)
        self.flying = frozenset(self.vm_index[f.vm_uuid] for f in self.snapshot.in_flight if f.vm_uuid in self.vm_index)
        self.capacity_cpu = np.array([_number(h.capacity_cores) for h in self.hosts])
        self.capacity_memory = np.array([_number(h.capacity_memory_bytes) for h in self.hosts])
        self.place = np.array([self.host_index[vm.host] for vm in self.vms], dtype=np.intp)
        self.presence = [(int(h),) for h in self.place]
        self.hard_memory = np.zeros(len(self.hosts))
        self._sum_up()
        self._count_in_flight()
        self.start = self._start()
        felt = {h.host for h in triggers(inputs) if h.contention is not None}
        self.shunned = frozenset(h for h in self.hot if self.hosts[h].name in felt or not self.above_headroom(h))

    def _start(self) -> "Start":
        sums = tuple(m.copy() for m in self._matrices())
        return Start(sums, self.hard_memory.copy(), self.place.copy(), tuple(self.presence), self.figures.copy())

    def _begin_at(self, start: "Start") -> None:
        """Take over the sums that the snapshot's placement gave."""
        self.held_cpu, self.held_memory, self.settled_cpu, self.settled_memory = (m.copy() for m in start.sums)
        self.hard_memory, self.place, self.presence = start.hard_memory.copy(), start.place.copy(), list(start.presence)
        self.figures = start.figures.copy()

    def _sum_up(self) -> None:
        """Host sums of the present placement, the host's own overhead in every column."""
        shape = (len(self.hosts), self.demand.columns)
        self.held_cpu, self.held_memory = np.zeros(shape), np.zeros(shape)
        inbound = np.zeros(len(self.hosts))
        inbound_cpu = np.zeros(len(self.hosts))
        for flight in self.snapshot.in_flight:
            vm, end = self.vm_index.get(flight.vm_uuid), self.host_index.get(flight.destination or "")
            if vm is not None and end is not None:
                inbound[end] += self.demand.hard_memory[vm]
                inbound_cpu[end] += self.demand.cpu[vm, -1]
        own_bytes = np.zeros(len(self.hosts))
        order = np.argsort(self.place, kind="stable")
        bounds = np.searchsorted(self.place[order], np.arange(len(self.hosts) + 1))
        for h, host in enumerate(self.hosts):
            mine = order[bounds[h] : bounds[h + 1]]
            own_cpu, own_memory = overhead(host, [self.vms[v] for v in mine])
            # A copy that is arriving is part of the host's measured use already; it is counted as a VM below.
            own_cpu = max(0.0, own_cpu - inbound_cpu[h])
            own_bytes[h] = own_memory = max(0.0, own_memory - inbound[h])
            self.held_cpu[h] = self.demand.cpu[mine].sum(axis=0, dtype=np.float64) + own_cpu
            self.held_memory[h] = self.demand.memory[mine].sum(axis=0, dtype=np.float64) + own_memory
            self.hard_memory[h] = self.demand.hard_memory[mine].sum() + own_memory
        self.settled_cpu, self.settled_memory = self.held_cpu.copy(), self.held_memory.copy()
        self.figures = figures.build(self.snapshot, self.place, self.demand, own_bytes, self.settings)

    def _count_in_flight(self) -> None:
        """Count observed migrations on both ends. An unknown destination may be any host, so it counts on all of them."""
        for flight in self.snapshot.in_flight:
            vm = self.vm_index.get(flight.vm_uuid)
            if vm is None:
                continue
            here = self.host_index[self.vms[vm].host]
            there = self.host_index.get(flight.destination or "")
            if there is not None:
                if there != here and there not in self.presence[vm]:
                    self._settle(vm, here, there)
                    self._hold(vm, there, 1)
                continue
            if flight.destination is None:
                for other in range(len(self.hosts)):
                    if other != here:
                        self._hold(vm, other, 1)
            self._unsettle(vm, here)

    def _hold(self, vm: int, host: int, sign: int) -> None:
        self.held_cpu[host] += sign * self.demand.cpu[vm].astype(np.float64)
        self.held_memory[host] += sign * self.demand.memory[vm].astype(np.float64)
        self.hard_memory[host] += sign * self.demand.hard_memory[vm]
        self.figures.shift(vm, gone=(host,) if sign < 0 else (), come=(host,) if sign > 0 else ())
        kept = self.presence[vm]
        self.presence[vm] = (*kept, host) if sign > 0 else tuple(h for h in kept if h != host)

    def _unsettle(self, vm: int, host: int) -> None:
        self.settled_cpu[host] -= self.demand.cpu[vm]
        self.settled_memory[host] -= self.demand.memory[vm]
        self.place[vm] = UNSETTLED

    def _settle(self, vm: int, source: int, destination: int) -> None:
        self._unsettle(vm, source)
        self.settled_cpu[destination] += self.demand.cpu[vm]
        self.settled_memory[destination] += self.demand.memory[vm]
        self.place[vm] = destination

    def copy(self) -> "PlacementState":
        """The placement as the snapshot has it; demand, groups, costs and answers that never change are shared."""
        return PlacementState(self.inputs, self)

    def begin(self, vm: int, destination: int) -> None:
        """Start a migration: counted on both ends from now on, settled at its destination."""
        self._settle(vm, int(self.place[vm]), destination)
        self._hold(vm, destination, 1)

    def finish(self, vm: int) -> None:
        """End a migration that ``begin`` started: only the destination counts."""
        for host in self.presence[vm]:
            if host != self.place[vm]:
                self._hold(vm, host, -1)

    def apply(self, vm: int, destination: int) -> Undo:
        """Move a VM as if its migration were over. Returns what ``undo`` needs to restore the state exactly."""
        touched = sorted({*self.presence[vm], int(self.place[vm]), destination})
        rows = tuple((h, tuple(m[h].copy() for m in self._matrices()), float(self.hard_memory[h])) for h in touched)
        undo = Undo(vm, int(self.place[vm]), self.presence[vm], rows)
        self.begin(vm, destination)
        self.finish(vm)
        return undo

    def undo(self, undo: Undo) -> None:
        """Take back the last applied move, bit for bit."""
        for host, rows, hard in undo.rows:
            for matrix, row in zip(self._matrices(), rows, strict=True):
                matrix[host] = row
            self.hard_memory[host] = hard
        self.figures.shift(undo.vm, gone=self.presence[undo.vm], come=undo.presence)
        self.place[undo.vm] = undo.place
        self.presence[undo.vm] = undo.presence

    def _matrices(self) -> tuple[Floats, ...]:
        return self.held_cpu, self.held_memory, self.settled_cpu, self.settled_memory

    def settled_on(self, host: int) -> list[int]:
        """VMs that stand on a host or are on their way to it, in UUID order."""
        return [int(v) for v in np.flatnonzero(self.place == host)]

    def relative(self, host: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """(now, peak quantile) of CPU and of memory as shares of capacity, settled; NaN where capacity is unknown."""
        pairs = []
        for load, capacity in (
            (self.settled_cpu[host], self.capacity_cpu[host]),
            (self.settled_memory[host], self.capacity_memory[host]),
        ):
            top = float(self.demand.peak(load, self.settings.quantile))
            pairs.append((_share(float(load[-1]), float(capacity)), _share(top, float(capacity))))
        return pairs[0], pairs[1]

    def above_headroom(self, host: int) -> bool:
        """Whether the settled load of a host is, now or in its peak quantile, above a headroom."""
        (cpu_now, cpu_peak), (memory_now, memory_peak) = self.relative(host)
        return (
            max(cpu_now, cpu_peak) > self.settings.cpu_headroom + 1e-9
            or max(memory_now, memory_peak) > self.settings.memory_headroom + 1e-9
        )


def triggers(inputs: PlanInputs) -> tuple[Hotspot, ...]:
    """The hotspots that call for action: hot now, probably hot within the horizon, or with contention already felt."""
    return tuple(
        h
        for h in inputs.hotspots
        if h.now > h.headroom or h.probability >= inputs.settings.hot_probability or h.contention is not None
    )


def overhead(host: Host, vms: Iterable[Vm]) -> tuple[float, float]:
    """What the host itself uses beyond its reservation: (reference cores, bytes), never negative.

    Its measured use minus the sum of its VMs' measured use. A VM whose use is unknown leaves its share in the overhead,
    which errs on the side of a fuller host.
    """
    rows = list(vms)
    cpu, memory = 0.0, 0.0
    busy, used = sane(host.load.cpu_cores), sane(host.load.memory_used_bytes)
    if busy is not None:
        guests = sum(sane(vm.load.cpu_cores) or 0.0 for vm in rows)
        cpu = max(0.0, busy - guests - host.reserved_cores) * host.speed_factor
    if used is not None:
        held = sum(sane(vm.load.memory_bytes) or 0.0 for vm in rows)
        memory = max(0.0, used - held - host.reserved_memory_bytes)
    return cpu, memory


def _number(value: float | None) -> float:
    known = sane(value)
    return float("nan") if known is None else float(known)


def _share(load: float, capacity: float) -> float:
    if capacity > 0:
        return load / capacity
    return float("nan") if np.isnan(capacity) else (float("inf") if load > 0 else 0.0)
