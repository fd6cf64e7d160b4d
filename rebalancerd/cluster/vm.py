"""Vm: what a guest is (facts from its XML), what it uses (load), and where it runs."""

from dataclasses import dataclass, field
from enum import StrEnum

from rebalancerd.cluster.digest import ADDED_LATER, recalled
from rebalancerd.cluster.dirty import DirtyCurve
from rebalancerd.cluster.policy import Owner, VmPolicy


class DomainState(StrEnum):
    """State of a libvirt domain, reduced to what decisions need."""

    RUNNING = "running"
    PAUSED = "paused"
    PAUSED_MIGRATION = "paused_migration"  # incoming copy, or source after switch-over
    PAUSED_POSTCOPY = "paused_postcopy"
    PAUSED_POSTCOPY_FAILED = "paused_postcopy_failed"
    RUNNING_POSTCOPY = "running_postcopy"
    RUNNING_POSTCOPY_FAILED = "running_postcopy_failed"
    PAUSED_IOERROR = "paused_ioerror"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    ABSENT = "absent"
    UNKNOWN = "unknown"

    @property
    def is_running(self) -> bool:
        """Whether vCPUs execute."""
        return self in (DomainState.RUNNING, DomainState.RUNNING_POSTCOPY, DomainState.RUNNING_POSTCOPY_FAILED)

    @property
    def is_active(self) -> bool:
        """Whether a QEMU process exists (memory is held)."""
        return self.is_running or self.name.startswith("PAUSED")


class DiskKind(StrEnum):
    """How libvirt names a disk's source."""

    FILE = "file"
    BLOCK = "block"
    NETWORK = "network"
    VOLUME = "volume"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk source as the domain XML names it. ``removable``: CD-ROM or floppy. ``source`` None: empty drive."""

    target: str
    kind: DiskKind
    source: str | None
    writable: bool
    removable: bool = False
    protocol: str | None = None
    pool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """An interface: ``kind`` network or bridge (or other), ``source`` its name, ``nwfilter`` if one is referred to."""

    kind: str
    source: str | None
    portgroup: str | None = None
    nwfilter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFacts:
    """What the domain XML says. ``immovable`` names each thing that forbids a live migration, empty if none.

    ``faults``: what in the XML could not be understood, in words. ``hugepage_bytes``: size of the huge pages that hold
    its memory, 0 for the host's default size, None for ordinary pages. ``host_topology`` names each thing that refers
    to CPUs or NUMA nodes of the host; ``pinned_cpus``: the host CPUs to which its vCPUs are pinned.
    """

    uuid: str
    name: str
    vcpus: int
    memory_bytes: int
    virt_type: str = "kvm"
    arch: str = "x86_64"
    machine: str | None = None
    cpu_mode: str | None = None
    cpu_digest: str | None = None
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    secrets: frozenset[str] = field(default_factory=frozenset)
    immovable: tuple[str, ...] = ()
    persistent: bool = True
    autostart: bool | None = False
    has_managed_save: bool | None = False
    owner: Owner | None = None
    policy: VmPolicy = field(default_factory=VmPolicy)
    faults: tuple[str, ...] = ()
    hugepage_bytes: int | None = field(default=None, metadata=ADDED_LATER)
    host_topology: tuple[str, ...] = field(default=(), metadata=ADDED_LATER)
    pinned_cpus: frozenset[int] = field(default_factory=frozenset, metadata=ADDED_LATER)


# thousands of them stand unchanged, as the same objects, in every snapshot
recalled(VmPolicy)
recalled(VmFacts)


@dataclass(frozen=True, slots=True, kw_only=True)
class VmLoad:
    """Measured use, as rates over the last sampling interval; None is unknown.

    ``cpu_cores``: cores of its host kept busy. ``steal_cores``: vCPU delay, time runnable but not run, per second.
    ``memory_bytes``: memory its process holds on the host (rss), else the balloon's current size.
    """

    cpu_cores: float | None = None
    steal_cores: float | None = None
    memory_bytes: int | None = None
    block_bytes_per_second: float | None = None
    network_bytes_per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A VM on a host. ``policy`` is the effective one (configuration over metadata); ``busy`` names a job on it."""

    facts: VmFacts
    host: str
    state: DomainState
    load: VmLoad = field(default_factory=VmLoad)
    policy: VmPolicy = field(default_factory=VmPolicy)
    owner: Owner | None = None
    dirty: DirtyCurve | None = None
    busy: str | None = None

    @property
    def uuid(self) -> str:
        """Domain UUID: the key everywhere; names may change or clash."""
        return self.facts.uuid

    @property
    def name(self) -> str:
        """Domain name: untrusted text."""
        return self.facts.name
