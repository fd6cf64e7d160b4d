"""libvirt's part in simulated migrations: what it refuses, what it undoes, and who holds the domain when."""

from typing import Protocol

from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.cluster.migration import Completion
from rebalancerd.cluster.vm import DomainState
from rebalancerd.sim.domains import SimHost
from rebalancerd.sim.guests import Guests
from rebalancerd.sim.spec import VmSpec
from rebalancerd.sim.transfer import (
    ABORTED,
    CONFIG_UNSUPPORTED,
    CPU_INCOMPATIBLE,
    FINISH_SECONDS,
    KEEPALIVE_SECONDS,
    LOCK_TIMEOUT,
    NO_DOMAIN,
    NO_NETWORK,
    NOT_RUNNING,
    OPERATION_FAILED,
    SYSTEM_ERROR,
    UNSAFE,
    Phase,
    PlannedFailure,
    Transfer,
)

LINK_EFFICIENCY = 0.94  # share of a link's rating that migration traffic reaches
ABORT_SECONDS = 2.0  # from the order to the effect


class World(Protocol):
    """What migrations need of the cluster they happen in."""

    hosts: dict[str, SimHost]
    vms: dict[str, VmSpec]
    rows: dict[str, int]
    guests: Guests
    readings: dict[str, DirtyReading]

    @property
    def now(self) -> float:
        """Virtual second to which the world has been brought."""
        ...

    def put(self, host: str, vm_uuid: str, name: str, state: DomainState, *, persistent: bool) -> None:
        """Make a domain known to a host."""
        ...

    def note(self, kind: str, vm_uuid: str, host: str, detail: str = "") -> None:
        """Remember that something happened."""
        ...

    def changed(self) -> None:
        """Rates and placement are not what they were."""
        ...


class Migrations:
    """All migrations of a cluster, ours and others'."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.running: dict[str, Transfer] = {}
        self.finished: list[Transfer] = []
        self.completions: dict[str, Completion] = {}
        self.failures: dict[str, list[PlannedFailure]] = {}
        self.quirks: set[tuple[str, str]] = (
            set()
        )  # ("lie", "arrive_paused", "abort_ignored" or "abort_refused"; VM UUID)
        self.locked: set[str] = set()  # VMs with another job (a backup): libvirt's lock refuses a migration
        self.cut_links: set[frozenset[str]] = set()
        self.paused_by_owner: set[str] = set()

    def share_links(self) -> None:
        """Every migration gets an equal part of each of its two links, at most its cap."""
        out: dict[str, int] = {}
        into: dict[str, int] = {}
        for move in self.running.values():
            if move.copying:
                out[move.source] = out.get(move.source, 0) + 1
                into[move.destination] = into.get(move.destination, 0) + 1
        for move in self.running.values():
            source, destination = self._world.hosts[move.source].spec, self._world.hosts[move.destination].spec
            move.link_rate = LINK_EFFICIENCY * min(
                source.link_bytes_per_second / out.get(move.source, 1),
                destination.link_bytes_per_second / into.get(move.destination, 1),
            )
            cap = move.bandwidth_bytes_per_second
            move.wire_rate = move.link_rate if cap is None else min(cap, move.link_rate)

    def begin(
        self,
        vm_uuid: str,
        source: str,
        destination: str,
        *,
        options: MigrationOptions,
        persistent: bool,
        ours: str | None,
    ) -> Transfer:
        """What the source's libvirt does with a migrate call. Refusals come back on the transfer, after a while."""
        planned = self.failures.get(vm_uuid) or self.failures.get("*") or []
        move = Transfer(
            vm_uuid=vm_uuid,
            row=self._world.rows[vm_uuid],
            source=source,
            destination=destination,
            started=self._world.now,
            max_downtime_seconds=options.max_downtime_seconds,
            bandwidth_bytes_per_second=options.bandwidth_bytes_per_second,
            auto_converge=options.auto_converge,
            persistent=persistent,
            ours=ours,
            memory_bytes=self._world.vms[vm_uuid].memory_bytes,
            refuse=self._refusal(vm_uuid, source, destination),
            failure=planned.pop(0) if planned else None,
            lie=self._take_quirk("lie", vm_uuid),
            arrive_paused=self._take_quirk("arrive_paused", vm_uuid),
        )
        if vm_uuid in self.running:  # libvirt's own job lock
            move.fail(self._world.now, LOCK_TIMEOUT, "cannot acquire state change lock")
            self.finished.append(move)
            return move
        if move.refuse is None:
            name = self._world.hosts[source].domains[vm_uuid].name
            self._world.put(destination, vm_uuid, name, DomainState.PAUSED_MIGRATION, persistent=False)
        if frozenset((source, destination)) in self.cut_links:
            move.cut_at = self._world.now
        self.running[vm_uuid] = move
        self._world.changed()
        return move

    def _take_quirk(self, kind: str, vm_uuid: str) -> bool:
        present = (kind, vm_uuid) in self.quirks
        self.quirks.discard((kind, vm_uuid))
        return present

    def _refusal(self, vm_uuid: str, source: str, destination: str) -> PlannedFailure | None:
        """What libvirt itself finds wrong before a byte flows."""
        vm, domain = self._world.vms[vm_uuid], self._world.hosts[source].domains.get(vm_uuid)
        there = self._world.hosts[destination]
        missing_disk = next((d for d in vm.disks if not any(d.startswith(p) for p in there.spec.storage)), None)
        clash = next((d for d in there.domains.values() if domain is not None and d.name == domain.name), None)
        missing_network = next((n for n in vm.networks if n not in there.spec.networks), None)
        if domain is None:
            return PlannedFailure(NO_DOMAIN, f"no domain with matching uuid '{vm_uuid}'")
        if domain.state is not DomainState.RUNNING:
            return PlannedFailure(NOT_RUNNING, "domain is not running")
        if vm_uuid in self.locked:
            return PlannedFailure(LOCK_TIMEOUT, "cannot acquire state change lock (held by backup job)")
        if not there.alive:
            return PlannedFailure(SYSTEM_ERROR, f"unable to connect to server at '{destination}'")
        if clash is not None:
            return PlannedFailure(OPERATION_FAILED, f"domain '{clash.name}' already exists with uuid {clash.uuid}")
        if missing_network is not None:
            return PlannedFailure(NO_NETWORK, f"no network with matching name '{missing_network}'")
        if missing_disk is not None:
            return PlannedFailure(UNSAFE, f"disk '{missing_disk}' is not on shared storage")
        if vm.cpu_generation > there.spec.cpu_generation:
            return PlannedFailure(CPU_INCOMPATIBLE, "guest CPU doesn't match specification")
        if vm.immovable or vm.machine not in there.spec.machine_types:
            return PlannedFailure(CONFIG_UNSUPPORTED, "unsupported configuration")
        return None

    def step(self, move: Transfer) -> None:
        """Whatever is due on one migration."""
        now = self._world.now
        if move.abort_at is not None and now >= move.abort_at - 1e-9:
            move.abort_at = None
            if move.phase in (Phase.SETUP, Phase.COPY):
                self.roll_back(move, ABORTED, "operation aborted: migration out job: canceled by client")
            return
        if move.phase is Phase.SETUP:
            self._end_setup(move)
        elif move.phase is Phase.COPY:
            self._end_round(move)
        elif move.phase is Phase.SWITCH:
            self._arrive(move)
        elif move.phase is Phase.POSTCOPY:
            self._end_postcopy(move)
        elif move.phase is Phase.FINISH:
            self._finish(move)

    def _end_setup(self, move: Transfer) -> None:
        if move.refuse is not None:
            self.roll_back(move, move.refuse.code, move.refuse.message)
        elif move.cut_at is not None and self._world.now < move.cut_at + KEEPALIVE_SECONDS:
            move.phase = Phase.COPY
        else:
            move.begin_copy(float(self._world.guests.resident[move.row]))

    def _end_round(self, move: Transfer) -> None:
        if move.cut_at is not None:
            self.roll_back(move, SYSTEM_ERROR, "connection to the peer closed due to keepalive timeout")
        elif move.failure is not None and move.sent >= move.first_round * move.failure.at_share - 1.0:
            self.roll_back(move, move.failure.code, move.failure.message)
        elif move.end_round():
            move.begin_switch(self._world.now)
            domain = self._world.hosts[move.source].domains[move.vm_uuid]
            move.arrive_paused = move.arrive_paused or domain.state is DomainState.PAUSED  # by its owner
            domain.state = DomainState.PAUSED_MIGRATION
            self._world.guests.location[move.row] = -1
            self._world.changed()
        self._world.guests.throttled[move.row] = 0.0 if move.over else move.throttle

    def _arrive(self, move: Transfer) -> None:
        """The guest wakes on the destination; a new process there begins its counters at zero."""
        domain = self._world.hosts[move.destination].domains[move.vm_uuid]
        domain.state = DomainState.PAUSED if move.arrive_paused else DomainState.RUNNING
        domain.persistent, domain.facts = move.persistent, None
        self._world.guests.reset_counters(move.row)
        self._world.guests.location[move.row] = -1 if move.arrive_paused else self._world.hosts[move.destination].row
        self._world.guests.throttled[move.row] = 0.0
        self._world.readings.pop(move.vm_uuid, None)
        move.phase, move.phase_ends = Phase.FINISH, self._world.now + FINISH_SECONDS
        self._world.note("arrived", move.vm_uuid, move.destination, f"from {move.source}")

    def begin_postcopy(self, vm_uuid: str) -> None:
        """Somebody switches a migration that copies to post-copy. Raises ValueError if none copies."""
        move = self.running.get(vm_uuid)
        if move is None or not move.copying:
            raise ValueError(f"no migration of {vm_uuid} copies")
        source, destination = self._world.hosts[move.source], self._world.hosts[move.destination]
        move.begin_postcopy()
        source.domains[vm_uuid].state = DomainState.PAUSED_POSTCOPY
        destination.domains[vm_uuid].state = DomainState.RUNNING_POSTCOPY
        self._world.guests.reset_counters(move.row)
        self._world.guests.location[move.row] = destination.row
        self._world.guests.throttled[move.row] = 0.0
        self._world.note("in post-copy", vm_uuid, move.destination, f"from {move.source}")

    def _end_postcopy(self, move: Transfer) -> None:
        domain = self._world.hosts[move.destination].domains[move.vm_uuid]
        domain.state, domain.persistent, domain.facts = DomainState.RUNNING, move.persistent, None
        self._world.readings.pop(move.vm_uuid, None)
        move.phase, move.phase_ends = Phase.FINISH, self._world.now + FINISH_SECONDS
        self._world.note("arrived", move.vm_uuid, move.destination, f"from {move.source}")

    def break_postcopy(self, vm_uuid: str) -> None:
        """QEMU's link is lost in post-copy: neither side has the whole guest. Raises ValueError if it is not in post-copy."""
        move = self.running.get(vm_uuid)
        if move is None or move.phase is not Phase.POSTCOPY:
            raise ValueError(f"{vm_uuid} is not in post-copy")
        self._world.hosts[move.source].domains[vm_uuid].state = DomainState.PAUSED_POSTCOPY_FAILED
        there = self._world.hosts[move.destination].domains.get(vm_uuid)
        if there is not None:
            there.state = DomainState.RUNNING_POSTCOPY_FAILED
        move.fail(self._world.now, OPERATION_FAILED, "operation failed: migration out job: post-copy failed")
        self.close(move)

    def leave_alone(self, vm_uuid: str) -> None:
        """libvirt's link is lost in post-copy: its call fails, and QEMU goes on unattended. Raises ValueError."""
        move = self.running.get(vm_uuid)
        if move is None or move.phase is not Phase.POSTCOPY:
            raise ValueError(f"{vm_uuid} is not in post-copy")
        move.unattended = True
        move.error = (OPERATION_FAILED, "operation failed: Lost connection to destination host")
        self._world.changed()

    def _finish(self, move: Transfer) -> None:
        """libvirt itself drops the source's definition."""
        self._world.hosts[move.source].domains.pop(move.vm_uuid, None)
        move.phase, move.ended = Phase.DONE, self._world.now
        if move.lie:
            move.error = (SYSTEM_ERROR, "Unable to read from monitor: Connection reset by peer")
        self.completions[move.vm_uuid] = move.completion()
        self.close(move)

    def roll_back(self, move: Transfer, code: int, message: str) -> None:
        """The destination's copy goes, the VM is on its source as before."""
        move.fail(self._world.now, code, message)
        if move.refuse is None:
            self._world.hosts[move.destination].domains.pop(move.vm_uuid, None)
        source = self._world.hosts[move.source]
        domain = source.domains.get(move.vm_uuid)
        if domain is not None and domain.state is DomainState.PAUSED_MIGRATION:
            paused = move.arrive_paused and self._paused_by_owner(move)
            domain.state = DomainState.PAUSED if paused else DomainState.RUNNING
            self._world.guests.location[move.row] = -1 if paused else source.row
        self._world.guests.throttled[move.row] = 0.0
        self.close(move)

    def _paused_by_owner(self, move: Transfer) -> bool:
        return move.vm_uuid in self.paused_by_owner

    def close(self, move: Transfer) -> None:
        """It is over, one way or the other."""
        self.running.pop(move.vm_uuid, None)
        self.finished.append(move)
        self._world.changed()

    def end(self, move: Transfer, code: int, message: str) -> None:
        """A fault ends a migration: the VM stays where it runs if the switch-over has not happened."""
        if move.phase in (Phase.SETUP, Phase.COPY, Phase.SWITCH):
            self.roll_back(move, code, message)

    def abort(self, vm_uuid: str) -> None:
        """The order to abort; it takes effect a while later unless the switch-over comes first."""
        move = self.running.get(vm_uuid)
        if move is not None and ("abort_ignored", vm_uuid) not in self.quirks and move.abort_at is None:
            move.abort_at = self._world.now + ABORT_SECONDS
