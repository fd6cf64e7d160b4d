"""Host: what a hypervisor host is, what it is allowed, and what it uses."""

from dataclasses import dataclass, field

from rebalancerd.cluster.digest import ADDED_LATER
from rebalancerd.cluster.policy import HostMode


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePages:
    """A host's pool of huge pages of one size. ``free``: pages that nothing holds now, None if that is not known."""

    size_bytes: int
    total: int
    free: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What libvirt says about a host; None is unknown. Versions as libvirt's integers (9000000 is 9.0.0).

    ``hugepages``: its pools, empty ones left out. ``topology``: digest of its NUMA cells with the CPUs in them; equal
    digests mean that pinning to CPUs and NUMA nodes means the same on both hosts.
    """

    uuid: str | None
    cpus: int
    memory_bytes: int
    arch: str = "x86_64"
    cpu_model: str | None = None
    machine_types: frozenset[str] | None = None
    networks: frozenset[str] | None = None
    libvirt_version: int | None = None
    hypervisor_version: int | None = None
    hugepages: tuple[HugePages, ...] | None = field(default=None, metadata=ADDED_LATER)
    topology: str | None = field(default=None, metadata=ADDED_LATER)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLoad:
    """Measured use of a host over the last sampling interval; None is unknown, never zero.

    ``cpu_cores``: cores kept busy, by guests and by the host itself. ``memory_used_bytes``: total minus available.
    ``psi_cpu``, ``psi_memory``: share of the last 10 s in which some task waited, 0 to 1. ``package_watts``: drawn by its
    processor packages; ``package_fault``: why that is not known although they could tell.
    """

    cpu_cores: float | None = None
    memory_used_bytes: int | None = None
    swap_used_bytes: int | None = None
    psi_cpu: float | None = None
    psi_memory: float | None = None
    network_bytes_per_second: float | None = None
    package_watts: float | None = field(default=None, metadata=ADDED_LATER)
    package_fault: str | None = field(default=None, metadata=ADDED_LATER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A hypervisor host of the cluster.

    ``cores``: cores usable for guests and host (may be less than its logical CPUs); ``speed_factor``: reference cores
    per core. ``peer_uri``: its libvirt URI as *the source host* resolves it; ``migration_uri``: where QEMU connects,
    e.g. ``tcp://10.0.0.2``. ``storage_domains``: operator-declared names or path prefixes of storage it reaches.
    ``hugepages``: pools that the operator declares, in place of what libvirt says. ``memory_overcommit``: bytes that may
    be granted to guests per byte of capacity, None for what holds in the whole cluster.
    ``unusable``: why it is neither source nor destination now (stale, unreachable, absurd telemetry), else None.
    ``idle_watts``, ``max_watts``: power drawn when on and idle, and with every core busy; ``power_watts``: in their place
    at 0, 10, … 100 % of its cores.
    """

    name: str
    facts: HostFacts | None
    load: HostLoad = field(default_factory=HostLoad)
    mode: HostMode = HostMode.ACTIVE
    cores: float | None = None
    speed_factor: float = 1.0
    reserved_cores: float = 0.0
    reserved_memory_bytes: int = 0
    memory_bytes: int | None = None
    failure_domain: str | None = None
    storage_domains: frozenset[str] = field(default_factory=frozenset)
    networks: frozenset[str] | None = None
    cpu_group: str | None = None
    link_bytes_per_second: float = 125_000_000.0
    uri: str = ""
    peer_uri: str | None = None
    migration_uri: str | None = None
    age_seconds: float | None = None
    unusable: str | None = None
    idle_watts: float | None = field(default=None, metadata=ADDED_LATER)
    max_watts: float | None = field(default=None, metadata=ADDED_LATER)
    power_watts: tuple[float, ...] | None = field(default=None, metadata=ADDED_LATER)
    hugepages: tuple[HugePages, ...] | None = field(default=None, metadata=ADDED_LATER)
    memory_overcommit: float | None = field(default=None, metadata=ADDED_LATER)

    @property
    def huge_page_pools(self) -> dict[int, HugePages] | None:
        """Pools of huge pages by page size in bytes, as declared, else as libvirt says; None is unknown."""
        said = None if self.facts is None else self.facts.hugepages
        told = said if self.hugepages is None else self.hugepages
        return None if told is None else {pool.size_bytes: pool for pool in told}

    @property
    def usable(self) -> bool:
        """Whether its figures are fresh and sane enough to decide on."""
        return self.unusable is None and self.facts is not None

    @property
    def capacity_cores(self) -> float | None:
        """Reference cores that guests may use: (cores − reserved) × speed factor."""
        return None if self.cores is None else max(0.0, self.cores - self.reserved_cores) * self.speed_factor

    @property
    def capacity_memory_bytes(self) -> int | None:
        """Bytes that guests may use: memory − reserved."""
        return None if self.memory_bytes is None else max(0, self.memory_bytes - self.reserved_memory_bytes)
