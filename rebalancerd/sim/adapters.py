"""The ports over a simulated cluster: what the rest of the product sees of it is what libvirt would tell it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.cluster.migration import Completion, MigrationRecord, Progress
from rebalancerd.cluster.sample import AgentSample, CpuFit, Definition, DomainSample, HostInventory, HostSample
from rebalancerd.cluster.units import NS_PER_SECOND
from rebalancerd.cluster.vm import DomainState, VmFacts
from rebalancerd.ports import HostError, HostRefusedError, HostUnreachableError
from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.domains import Domain
from rebalancerd.sim.telemetry import Distorter
from rebalancerd.sim.transfer import LOCK_TIMEOUT, NO_DOMAIN, NOT_RUNNING, Phase, Transfer

OPERATION_DENIED, ACCESS_DENIED = 29, 88
CALL_DEADLINE_SECONDS = 5.0


class Reach(StrEnum):
    """How a host answers us. Its guests and migrations do not care."""

    OK = "ok"
    REFUSED = "refused"  # no connection, known at once
    HANGS = "hangs"  # no answer until our deadline


class Wires:
    """Connections from us to the hosts, and what is wrong with them."""

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.reach: dict[str, Reach] = {}
        self.since: dict[str, float] = {}  # when it ceased to answer
        self.distorted: dict[str, Distorter] = {}

    def set_reach(self, host: str, reach: Reach) -> None:
        """From now on the host answers us so."""
        self.reach[host] = reach
        self.since[host] = self.cluster.now

    def enter(self, host: str) -> None:
        """Bring the world to the present and check that the host answers. Raises HostUnreachableError."""
        self.cluster.advance()
        reach = self.reach.get(host, Reach.OK)
        if host not in self.cluster.hosts:
            raise HostUnreachableError(host, "no such host")
        if reach is Reach.HANGS:
            self.cluster.clock.sleep(CALL_DEADLINE_SECONDS)
            raise HostUnreachableError(host, f"no answer within {CALL_DEADLINE_SECONDS:g} s")
        if reach is Reach.REFUSED or not self.cluster.hosts[host].alive:
            raise HostUnreachableError(host, "connection refused")


class SimRead:
    """ports.HypervisorRead over the simulated cluster."""

    def __init__(self, wires: Wires) -> None:
        self._wires, self._cluster = wires, wires.cluster
        self._columns_at: tuple[float, int] = (-1.0, -1)
        self._columns: tuple[list[int], ...] = ()

    def hosts(self) -> tuple[str, ...]:
        """Names of the hosts."""
        return tuple(self._cluster.hosts)

    def sample(self, host: str) -> HostSample:
        """One bulk reading."""
        self._wires.enter(host)
        with self._cluster.lock:
            true = self._true_sample(host)
        distorter = self._wires.distorted.get(host)
        return true if distorter is None else distorter(true)

    def locate(self, host: str, vm_uuid: str) -> DomainState:
        """State of that domain there."""
        self._wires.enter(host)
        domain = self._cluster.hosts[host].domains.get(vm_uuid)
        return DomainState.ABSENT if domain is None else domain.state

    def progress(self, host: str, vm_uuid: str) -> Progress | None:
        """The running job; the destination's shows the time and no more."""
        self._wires.enter(host)
        move = self._cluster.migrations.running.get(vm_uuid)
        if move is None or host not in (move.source, move.destination):
            return None
        progress = move.progress(self._cluster.now, self._cluster.guests.dirtying(move.row))
        return progress if host == move.source else Progress(elapsed_seconds=progress.elapsed_seconds)

    def completion(self, host: str, vm_uuid: str) -> Completion | None:
        """Statistics of its last finished migration."""
        self._wires.enter(host)
        done = [m for m in self._cluster.migrations.finished if m.vm_uuid == vm_uuid]
        if not done or host not in (done[-1].source, done[-1].destination):
            return None
        return self._cluster.migrations.completions.get(vm_uuid)

    def inventory(self, host: str) -> HostInventory:
        """What it has."""
        self._wires.enter(host)
        it = self._cluster.hosts[host]
        facts = it.spec.facts()
        return HostInventory(
            host=host,
            host_uuid=facts.uuid,
            networks=it.spec.networks,
            bridges=frozenset(),
            pools=frozenset(),
            secrets=it.spec.secrets,
            nwfilters=it.spec.nwfilters,
            domains=tuple((d.uuid, d.name, d.state) for d in it.domains.values()),
            machine_types=it.spec.machine_types,
            libvirt_version=facts.libvirt_version,
            hypervisor_version=facts.hypervisor_version,
        )

    def domain_facts(self, host: str, vm_uuid: str) -> VmFacts | None:
        """Facts as they are now."""
        self._wires.enter(host)
        return self._cluster.facts(host, vm_uuid)

    def definition(self, host: str, vm_uuid: str) -> Definition | None:
        """What is defined of it, and what it leaves there."""
        facts = self.domain_facts(host, vm_uuid)
        if facts is None:
            return None
        return Definition(facts=facts, kept=("a managed-save image",) if facts.has_managed_save else ())

    def _true_sample(self, host: str) -> HostSample:
        cluster, guests = self._cluster, self._cluster.guests
        it = cluster.hosts[host]
        # a running guest's figures come from the arrays, converted once per instant for all hosts
        if self._columns_at != (cluster.now, cluster.version):
            self._columns = (
                (guests.cpu_seconds * NS_PER_SECOND).astype("int64").tolist(),
                (guests.delay_seconds * NS_PER_SECOND).astype("int64").tolist(),
                guests.block_bytes.astype("int64").tolist(),
                guests.network_bytes.astype("int64").tolist(),
                guests.resident.astype("int64").tolist(),
            )
            self._columns_at = (cluster.now, cluster.version)
        return HostSample(
            host=host,
            taken_at=cluster.now,
            facts=it.spec.facts(),
            cpu_busy_ns=int(guests.busy_seconds[it.row] * NS_PER_SECOND),
            cpu_idle_ns=int((it.spec.cpus * cluster.now - guests.busy_seconds[it.row]) * NS_PER_SECOND),
            memory_total_bytes=it.spec.memory_bytes,
            memory_available_bytes=cluster.memory_available(host),
            domains=tuple(self._domain(host, d) for d in it.domains.values() if d.state.is_active),
        )

    def _domain(self, host: str, domain: Domain) -> DomainSample:
        cluster = self._cluster
        row = cluster.rows[domain.uuid]
        cpu, delay, block, network, resident = self._columns
        facts = cluster.facts(host, domain.uuid)
        move = cluster.migrations.running.get(domain.uuid)
        if move is not None and host == move.destination and domain.state is DomainState.PAUSED_MIGRATION:
            return self._incoming(domain, facts, move)
        reading: DirtyReading | None = cluster.readings.get(domain.uuid)
        return DomainSample(
            uuid=domain.uuid,
            name=domain.name,
            state=domain.state,
            facts=facts,
            vcpus=cluster.vms[domain.uuid].vcpus,
            cpu_time_ns=cpu[row],
            vcpu_delay_ns=delay[row],
            balloon_bytes=cluster.vms[domain.uuid].memory_bytes,
            rss_bytes=resident[row],
            block_bytes=block[row],
            network_bytes=network[row],
            dirty=reading,
            dirty_measuring=domain.uuid in cluster.measuring,
        )

    def _incoming(self, domain: Domain, facts: VmFacts | None, move: Transfer) -> DomainSample:
        """The copy that a migration fills: memory grows, vCPUs have not run."""
        vm = self._cluster.vms[domain.uuid]
        return DomainSample(
            uuid=domain.uuid,
            name=domain.name,
            state=domain.state,
            facts=facts,
            vcpus=vm.vcpus,
            cpu_time_ns=0,
            vcpu_delay_ns=0,
            balloon_bytes=vm.memory_bytes,
            rss_bytes=int(min(move.sent, float(self._cluster.guests.resident[move.row]))),
        )


class SimProbe:
    """ports.HypervisorProbe over the simulated cluster."""

    def __init__(self, wires: Wires) -> None:
        self._wires, self._cluster = wires, wires.cluster

    def start_dirty_rate(self, host: str, vm_uuid: str, period_seconds: int) -> None:
        """Start a calculation; on a migrating VM the call hangs for 30 s and then fails, as libvirt's does."""
        self._wires.enter(host)
        domain = self._cluster.hosts[host].domains.get(vm_uuid)
        if domain is None:
            raise HostRefusedError(host, f"no domain with matching uuid '{vm_uuid}'", NO_DOMAIN)
        if vm_uuid in self._cluster.migrations.running:
            self._cluster.clock.sleep(30.0)
            raise HostRefusedError(host, "timed out during operation: cannot acquire state change lock", LOCK_TIMEOUT)
        if domain.state is not DomainState.RUNNING:
            raise HostRefusedError(host, "domain is not running", NOT_RUNNING)
        self._cluster.start_measuring(vm_uuid, float(period_seconds))

    def cpu_fit(self, vm_uuid: str, source: str, destination: str) -> tuple[CpuFit, str]:
        """A guest's CPU fits where the host's generation is not older."""
        self._wires.enter(source)
        self._wires.enter(destination)
        needs = self._cluster.vms[vm_uuid].cpu_generation
        has = self._cluster.hosts[destination].spec.cpu_generation
        if needs <= has:
            return CpuFit.COMPATIBLE, f"CPU generation {needs} runs on generation {has}"
        return CpuFit.INCOMPATIBLE, f"CPU generation {needs} does not run on generation {has}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteCall:
    """A call that changed something, or would have: the journal that invariants read."""

    at: float
    kind: str
    host: str
    vm_uuid: str
    record: MigrationRecord | None = None
    detail: str = ""
    postcopy: bool = False  # the VM was in post-copy at that instant


class SimHandle:
    """ports.MigrationHandle of one simulated migrate call."""

    def __init__(self, cluster: SimCluster, host: str, move: Transfer | None, error: HostError | None = None) -> None:
        self._cluster, self._host, self._move, self._error = cluster, host, move, error

    def done(self) -> bool:
        """Whether the call has returned."""
        self._cluster.advance()
        return self._move is None or self._move.over

    def error(self) -> HostError | None:
        """What it returned with."""
        self._cluster.advance()
        if self._move is None or not self._move.over or self._move.error is None:
            return self._error
        code, message = self._move.error
        return HostRefusedError(self._host, message, code)


class SimWrite:
    """ports.HypervisorWrite over the simulated cluster; it offers nothing that could end a VM, and keeps a journal."""

    def __init__(self, wires: Wires) -> None:
        self._wires, self._cluster = wires, wires.cluster
        self.calls: list[WriteCall] = []
        self.before_migrate: Callable[[MigrationRecord], None] = lambda _record: None
        self.before_definition: Callable[[str, str, str], None] = lambda _source, _destination, _vm: None
        self.amid_definition: Callable[[str], None] = lambda _vm: None  # a fault between the two hosts
        self.after_call: Callable[[], None] = lambda: None  # where a simulated death of the daemon may strike

    def migrate(self, record: MigrationRecord) -> SimHandle:
        """Hand a migration over."""
        self._cluster.advance()
        self.before_migrate(record)
        self._note("migrate", record.source, record.vm_uuid, record.destination, record=record)
        try:
            self._wires.enter(record.source)
        except HostUnreachableError as error:
            return SimHandle(self._cluster, record.source, None, error)
        if not self._cluster.hosts[record.source].may_migrate:
            self.calls.pop()  # refused at the door: nothing was begun
            raise HostRefusedError(record.source, "access denied: 'domain.migrate'", ACCESS_DENIED)
        with self._cluster.lock:
            move = self._cluster.migrations.begin(
                record.vm_uuid,
                record.source,
                record.destination,
                options=record.options,
                persistent=record.persistent,
                ours=record.id,
            )
        self.after_call()
        return SimHandle(self._cluster, record.source, move)

    def abort(self, host: str, vm_uuid: str) -> None:
        """Order the job's abort."""
        self._wires.enter(host)
        self._note("abort", host, vm_uuid)
        if vm_uuid not in self._cluster.migrations.running:
            raise HostRefusedError(host, "no job is active on the domain", NOT_RUNNING)
        if ("abort_refused", vm_uuid) in self._cluster.migrations.quirks:
            raise HostRefusedError(host, "cannot abort migration", NOT_RUNNING)
        self._cluster.migrations.abort(vm_uuid)
        self.after_call()

    def set_max_downtime(self, host: str, vm_uuid: str, seconds: float) -> None:
        """Change the allowed downtime."""
        self._job(host, vm_uuid).max_downtime_seconds = seconds
        self._note("set_max_downtime", host, vm_uuid, f"{seconds:g} s")

    def set_bandwidth(self, host: str, vm_uuid: str, bytes_per_second: float) -> None:
        """Change the cap."""
        self._job(host, vm_uuid).bandwidth_bytes_per_second = bytes_per_second
        self._cluster.changed()
        self._note("set_bandwidth", host, vm_uuid, f"{bytes_per_second:g} B/s")

    def set_autostart(self, host: str, vm_uuid: str, autostart: bool) -> None:
        """Set the flag; libvirt refuses it for a transient domain."""
        self._wires.enter(host)
        it = self._cluster.hosts[host]
        domain = it.domains.get(vm_uuid)
        if not it.may_set_autostart:
            raise HostRefusedError(host, "access denied", OPERATION_DENIED)
        if domain is None:
            raise HostRefusedError(host, f"no domain with matching uuid '{vm_uuid}'", NO_DOMAIN)
        if not domain.persistent:
            raise HostRefusedError(host, "cannot set autostart for transient domain", NOT_RUNNING)
        domain.autostart = autostart
        domain.facts = None if vm_uuid in self._cluster.vms else _with_flag(domain.facts, autostart)
        self._cluster.changed()
        self._note("set_autostart", host, vm_uuid, str(autostart))
        self.after_call()

    def may_set_autostart(self, host: str) -> bool:
        """Whether the right is there."""
        self._wires.enter(host)
        return self._cluster.hosts[host].may_set_autostart

    def move_definition(self, source: str, destination: str, vm_uuid: str) -> None:
        """The definition stands on the destination, then no more on the source; where a fault strikes, in between."""
        self._wires.enter(source)
        self.before_definition(source, destination, vm_uuid)
        here, there = self._cluster.hosts[source], self._cluster.hosts[destination]
        domain = here.domains.get(vm_uuid)
        if domain is None or domain.state.is_active:
            raise HostRefusedError(source, "domain is not shut off", NOT_RUNNING)
        self._note("move_definition", source, vm_uuid, destination)
        if not there.alive:
            raise HostRefusedError(source, f"unable to connect to {destination}", NOT_RUNNING)
        facts = None if domain.facts is None else replace(domain.facts, autostart=False)
        there.domains[vm_uuid] = replace(domain, autostart=False, facts=facts)  # libvirt carries no autostart
        self._cluster.changed()
        self.amid_definition(vm_uuid)
        del here.domains[vm_uuid]
        self._cluster.changed()
        self.after_call()

    def _job(self, host: str, vm_uuid: str) -> Transfer:
        self._wires.enter(host)
        move = self._cluster.migrations.running.get(vm_uuid)
        if move is None or move.source != host:
            raise HostRefusedError(host, "no job is active on the domain", NOT_RUNNING)
        return move

    def _note(
        self, kind: str, host: str, vm_uuid: str, detail: str = "", *, record: MigrationRecord | None = None
    ) -> None:
        move = self._cluster.migrations.running.get(vm_uuid)
        self.calls.append(
            WriteCall(
                at=self._cluster.now,
                kind=kind,
                host=host,
                vm_uuid=vm_uuid,
                record=record,
                detail=detail,
                postcopy=move is not None and move.phase is Phase.POSTCOPY,
            )
        )


def _with_flag(facts: VmFacts | None, autostart: bool) -> VmFacts | None:
    return None if facts is None else replace(facts, autostart=autostart)


class SimAgents:
    """ports.Agents over the simulated cluster, for the hosts whose specification has an agent."""

    def __init__(self, wires: Wires) -> None:
        self._wires, self._cluster = wires, wires.cluster

    def read(self, host: str) -> AgentSample | None:
        """What psutil would say there."""
        it = self._cluster.hosts.get(host)
        if it is None or not it.spec.agent:
            return None
        try:
            self._wires.enter(host)
        except HostUnreachableError:
            return None
        here = self._cluster.guests.location == it.row
        waiting = float(self._cluster.guests.delay[here].sum())
        wanted = waiting + float(self._cluster.guests.got[here].sum())
        return AgentSample(
            host=host,
            cpu_cores=float(self._cluster.guests.busy[it.row]),
            memory_available_bytes=self._cluster.memory_available(host),
            swap_used_bytes=0,
            psi_cpu=waiting / wanted if wanted > 0 else 0.0,
            psi_memory=0.0,
            network_bytes_per_second=float(self._cluster.guests.network_rate[here].sum()),
            clock_epoch_seconds=self._cluster.clock.wall(),
        )
