"""The simulated truth: hosts share their CPU among guests, counters add up, migrations take their course.

Everything is stepped exactly from one instant to the next at which some rate changes: a cell of the demand grid, a
scripted step, a round of a migration. Reading never changes anything but the time it is read at.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.cluster.vm import DomainState, VmFacts
from rebalancerd.sim.clock import SimClock
from rebalancerd.sim.domains import Domain, Event, SimHost
from rebalancerd.sim.guests import Guests
from rebalancerd.sim.migrations import Migrations
from rebalancerd.sim.spec import ClusterSpec, VmSpec
from rebalancerd.sim.transfer import Phase

CELL_SECONDS = 5.0
MIGRATION_CORES_PER_BYTE = 0.4e-9  # CPU on either end for a byte per second moved


class SimCluster:
    """Hosts, guests and migrations on virtual time. All methods first bring the world to the clock's present."""

    def __init__(self, spec: ClusterSpec, clock: SimClock) -> None:
        self.spec, self.clock = spec, clock
        self.lock = threading.RLock()
        self.hosts = {h.name: SimHost(spec=h, row=i) for i, h in enumerate(spec.hosts)}
        self.vms: dict[str, VmSpec] = {v.key: v for v in spec.vms}
        self.guests = Guests(spec)
        self.rows = self.guests.rows
        self.happened: list[Event] = []
        self.migrations = Migrations(self)
        self.version = 0  # grows with every change of placement or state
        self._now = clock.monotonic()
        self.meter: Callable[[float, float], None] = lambda _now, _seconds: None  # told of every time of even rates
        self.readings: dict[str, DirtyReading] = {}
        self.measuring: dict[str, tuple[float, float]] = {}  # VM: (ends, period)
        for vm in spec.vms:
            if vm.present:
                self._define(vm)
        self._rates_stale = True

    # the world as it is

    @property
    def now(self) -> float:
        """Virtual second to which the world has been brought."""
        return self._now

    def running_on(self, vm_uuid: str) -> str | None:
        """Host whose CPUs the guest runs on; None if it does not run."""
        row = int(self.guests.location[self.rows[vm_uuid]])
        return None if row < 0 else self.spec.hosts[row].name

    def present_on(self, vm_uuid: str) -> tuple[str, ...]:
        """Hosts that have a domain of that UUID in any state."""
        return tuple(name for name, host in self.hosts.items() if vm_uuid in host.domains)

    def named(self, name: str) -> str:
        """UUID of the guest declared under that name (or of that UUID). Raises KeyError."""
        if name in self.vms:
            return name
        for uuid, vm in self.vms.items():
            if vm.name == name:
                return uuid
        raise KeyError(name)

    def memory_available(self, host: str) -> int:
        """Bytes that are neither held by the host itself, its guests nor incoming copies."""
        it = self.hosts[host]
        held = float(it.spec.overhead_memory_bytes)
        held += float(self.guests.resident[self.guests.location == it.row].sum())
        held += sum(float(self.guests.resident[self.rows[uuid]]) for uuid in it.asleep)
        for move in self.migrations.running.values():
            if move.destination == host and move.phase in (Phase.COPY, Phase.SWITCH):
                held += min(move.sent, float(self.guests.resident[move.row]))
            elif move.source == host and move.phase in (Phase.SWITCH, Phase.FINISH):
                held += float(self.guests.resident[move.row])
        return max(0, int(it.spec.memory_bytes - held))

    def facts(self, host: str, vm_uuid: str) -> VmFacts | None:
        """What the XML on that host says; None if it has no such domain."""
        domain = self.hosts[host].domains.get(vm_uuid)
        if domain is None:
            return None
        if domain.facts is None:
            domain.facts = self.vms[vm_uuid].facts(
                name=domain.name,
                persistent=domain.persistent,
                autostart=domain.autostart,
                managed_save=domain.managed_save,
            )
        return domain.facts

    # time

    def advance(self) -> None:
        """Bring the world to the clock's present."""
        target = self.clock.monotonic()
        with self.lock:
            while self._now < target:
                if self._rates_stale:
                    self._compute_rates()
                end = self._next_change(target)
                self._integrate(end - self._now)
                self._now = end
                self._fire()

    def _next_change(self, target: float) -> float:
        cell = (np.floor(self._now / CELL_SECONDS + 1e-9) + 1) * CELL_SECONDS
        events = [m.next_event(self._now) for m in self.migrations.running.values()]
        return max(self._now, float(min(target, cell, self.guests.demand.next_step(), *events)))

    def _compute_rates(self) -> None:
        self.migrations.share_links()
        work = np.zeros(len(self.spec.hosts))
        for move in self.migrations.running.values():
            if move.copying:
                for name in (move.source, move.destination):
                    work[self.hosts[name].row] += move.wire_rate * MIGRATION_CORES_PER_BYTE
        middle = (np.floor(self._now / CELL_SECONDS + 1e-9) + 0.5) * CELL_SECONDS
        self.guests.share_cpu(float(middle), work)
        self._rates_stale = False

    def _integrate(self, seconds: float) -> None:
        self.meter(self._now, seconds)
        self.guests.integrate(seconds)
        for move in self.migrations.running.values():
            move.flow(seconds, self.guests.dirtying(move.row), float(self.guests.working_set[move.row]))

    def _fire(self) -> None:
        if abs(self._now / CELL_SECONDS - round(self._now / CELL_SECONDS)) < 1e-9:
            self._rates_stale = True
        if self.guests.demand.next_step() <= self._now and self.guests.demand.take_steps(self._now):
            self._rates_stale = True
        for uuid, (ends, period) in list(self.measuring.items()):
            if ends <= self._now:
                del self.measuring[uuid]
                self._finish_measuring(uuid, ends, period)
        for move in list(self.migrations.running.values()):
            if move.next_event(self._now) <= self._now + 1e-9:
                self.migrations.step(move)
                self._rates_stale = True

    # dirty rate

    def start_measuring(self, vm_uuid: str, period_seconds: float) -> None:
        """A page-sampling calculation begins."""
        self.advance()
        self.measuring[vm_uuid] = (self._now + period_seconds, period_seconds)

    def _finish_measuring(self, vm_uuid: str, ends: float, period: float) -> None:
        row = self.rows[vm_uuid]
        if self.guests.location[row] >= 0 and vm_uuid not in self.migrations.running:
            wall = ends + self.clock.wall() - self.clock.monotonic()
            self.readings[vm_uuid] = self.guests.measure(row, ends, wall, period)

    # changes of placement

    def _define(self, vm: VmSpec, host: str | None = None) -> None:
        name = host or vm.host
        self.put(name, vm.key, vm.name, DomainState.RUNNING, persistent=vm.persistent)
        domain = self.hosts[name].domains[vm.key]
        domain.autostart, domain.managed_save = vm.autostart, vm.managed_save
        self.guests.location[self.rows[vm.key]] = self.hosts[name].row

    def put(self, host: str, vm_uuid: str, name: str, state: DomainState, *, persistent: bool) -> None:
        """Make a domain known to a host."""
        self.hosts[host].domains[vm_uuid] = Domain(uuid=vm_uuid, name=name, state=state, persistent=persistent)
        self.version += 1

    def appear(self, vm_uuid: str, host: str) -> None:
        """A tenant starts a declared guest."""
        self._define(self.vms[vm_uuid], host)
        self.note("started by its owner", vm_uuid, host)

    def reconfigure(self, vm_uuid: str, immovable: str) -> None:
        """Its owner gives it something that forbids a live migration; the XML tells."""
        self.vms[vm_uuid] = replace(self.vms[vm_uuid], immovable=(immovable,))
        for host in self.hosts.values():
            if vm_uuid in host.domains:
                host.domains[vm_uuid].facts = None
        self.note("reconfigured by its owner", vm_uuid, self.running_on(vm_uuid) or "", immovable)

    def changed(self) -> None:
        """Rates and placement are not what they were."""
        self._rates_stale = True
        self.version += 1

    def note(self, kind: str, vm_uuid: str, host: str, detail: str = "") -> None:
        """Remember that something happened."""
        self.happened.append(Event(at=self._now, kind=kind, vm_uuid=vm_uuid, host=host, detail=detail))
        self.changed()
