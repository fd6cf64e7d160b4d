"""Hand-made hosts and domains for the tests of observing, with a clock that only moves when told."""

from dataclasses import dataclass, field, replace

from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.cluster.host import HostFacts
from rebalancerd.cluster.migration import Completion, Progress
from rebalancerd.cluster.sample import AgentSample, CpuFit, DomainSample, HostInventory, HostSample
from rebalancerd.cluster.units import GIB, NS_PER_SECOND
from rebalancerd.cluster.vm import DomainState, VmFacts
from rebalancerd.ports import HostUnreachableError

UUIDS = tuple(f"00000000-0000-4000-8000-{n:012d}" for n in range(64))


@dataclass
class HandClock:
    """Virtual time."""

    now: float = 1000.0
    offset: float = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.offset

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def facts_of(uuid: str, **changes: object) -> VmFacts:
    base = VmFacts(uuid=uuid, name=f"vm-{uuid[-2:]}", vcpus=2, memory_bytes=GIB, cpu_digest="c0", machine="q35")
    return replace(base, **changes)  # type: ignore[arg-type]


@dataclass
class Guest:
    """A guest that uses ``cores`` all the time."""

    uuid: str
    host: str
    cores: float = 0.5
    state: DomainState = DomainState.RUNNING
    facts: VmFacts | None = None
    dirty: DirtyReading | None = None
    fault: str | None = None
    job: str | None = None
    measuring: bool = False


@dataclass
class HandRead:
    """ports.HypervisorRead on a list of guests."""

    clock: HandClock
    names: tuple[str, ...] = ("h1", "h2", "h3")
    guests: list[Guest] = field(default_factory=list)
    down: dict[str, Exception] = field(default_factory=dict)
    host_uuids: dict[str, str] = field(default_factory=dict)
    cpus: dict[str, int] = field(default_factory=dict)
    used_cores: float = 1.0

    def hosts(self) -> tuple[str, ...]:
        return self.names

    def sample(self, host: str) -> HostSample:
        if host in self.down:
            raise self.down[host]
        return HostSample(
            host=host,
            taken_at=self.clock.now,
            facts=HostFacts(
                uuid=self.host_uuids.get(host, f"uuid-{host}"), cpus=self.cpus.get(host, 8), memory_bytes=16 * GIB
            ),
            cpu_busy_ns=int(self.clock.now * self.used_cores * NS_PER_SECOND),
            memory_total_bytes=16 * GIB,
            memory_available_bytes=12 * GIB,
            domains=tuple(self._domain(g) for g in self.guests if g.host == host),
        )

    def _domain(self, guest: Guest) -> DomainSample:
        return DomainSample(
            uuid=guest.uuid,
            name=f"vm-{guest.uuid[-2:]}",
            state=guest.state,
            facts=guest.facts if guest.facts is not None or guest.fault else facts_of(guest.uuid),
            vcpus=2,
            cpu_time_ns=int(self.clock.now * guest.cores * NS_PER_SECOND),
            vcpu_delay_ns=int(self.clock.now * 0.1 * NS_PER_SECOND),
            rss_bytes=GIB // 2,
            dirty=guest.dirty,
            dirty_measuring=guest.measuring,
            fault=guest.fault,
            job=guest.job,
        )

    def locate(self, host: str, vm_uuid: str) -> DomainState:
        return DomainState.ABSENT

    def progress(self, host: str, vm_uuid: str) -> Progress | None:
        return None

    def completion(self, host: str, vm_uuid: str) -> Completion | None:
        return None

    def inventory(self, host: str) -> HostInventory:
        raise NotImplementedError

    def domain_facts(self, host: str, vm_uuid: str) -> VmFacts | None:
        return None


@dataclass
class HandProbe:
    """ports.HypervisorProbe that remembers what it was asked."""

    started: list[tuple[str, str, int]] = field(default_factory=list)
    compared: list[tuple[str, str, str]] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)

    def start_dirty_rate(self, host: str, vm_uuid: str, period_seconds: int) -> None:
        if vm_uuid in self.refuse:
            raise HostUnreachableError(host, "hangs")
        self.started.append((host, vm_uuid, period_seconds))

    def cpu_fit(self, vm_uuid: str, source: str, destination: str) -> tuple[CpuFit, str]:
        self.compared.append((vm_uuid, source, destination))
        if destination == "h3":
            raise HostUnreachableError("h3", "gone")
        return CpuFit.COMPATIBLE, "identical CPU"


@dataclass
class HandAgents:
    """ports.Agents."""

    samples: dict[str, AgentSample] = field(default_factory=dict)

    def read(self, host: str) -> AgentSample | None:
        return self.samples.get(host)
