"""What one host answers in one tick: raw counters and facts, before any rate is made of them."""

from dataclasses import dataclass
from enum import StrEnum

from rebalancerd.cluster.dirty import DirtyCurve, DirtyReading
from rebalancerd.cluster.host import HostFacts
from rebalancerd.cluster.vm import DomainState, VmFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSample:
    """Counters of one domain at one instant; None is not told. ``facts`` None: the XML could not be read.

    ``dirty`` is the newest finished calculation, ``dirty_measuring`` True while one runs. ``job`` names a job seen on
    it, ``migration out`` for a live migration; None: none is known.
    """

    uuid: str
    name: str
    state: DomainState
    facts: VmFacts | None
    vcpus: int | None = None
    cpu_time_ns: int | None = None
    vcpu_delay_ns: int | None = None
    balloon_bytes: int | None = None
    rss_bytes: int | None = None
    block_bytes: int | None = None
    network_bytes: int | None = None
    dirty: DirtyReading | None = None
    dirty_measuring: bool = False
    job: str | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """One host's answer. ``taken_at`` is on the monotonic clock. CPU counters cover all of the host's CPUs."""

    host: str
    taken_at: float
    facts: HostFacts
    cpu_busy_ns: int | None
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    domains: tuple[DomainSample, ...]
    cpu_idle_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCurve:
    """A VM's dirty curve by its host's agent, over ``memory_bytes`` of it; or ``fault``, why it gives none."""

    uuid: str
    memory_bytes: int
    curve: DirtyCurve | None
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSample:
    """What a host's psutil agent exports; None is not told. Shares are 0 to 1 over 10 s, rates bytes per second.

    ``curves``: at most one per VM, of VMs that the host may not have. ``curves_fault``: why they could not be had.
    ``package_watts``: drawn by its processor packages (RAPL); ``package_fault``: why that is not known although it has RAPL.
    """

    host: str
    cpu_cores: float | None = None
    memory_available_bytes: int | None = None
    swap_used_bytes: int | None = None
    psi_cpu: float | None = None
    psi_memory: float | None = None
    network_bytes_per_second: float | None = None
    clock_epoch_seconds: float | None = None
    curves: tuple[AgentCurve, ...] = ()
    curves_fault: str | None = None
    package_watts: float | None = None
    package_fault: str | None = None


class CpuFit(StrEnum):
    """Whether a destination's CPU can run a VM as it is."""

    COMPATIBLE = "compatible"
    INCOMPATIBLE = "incompatible"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostInventory:
    """What a host has that a migration may need; None is unknown. Names as libvirt lists them."""

    host: str
    host_uuid: str | None
    networks: frozenset[str] | None
    bridges: frozenset[str] | None
    pools: frozenset[str] | None
    secrets: frozenset[str] | None
    nwfilters: frozenset[str] | None
    domains: tuple[tuple[str, str, DomainState], ...]  # uuid, name, state: inactive ones too
    machine_types: frozenset[str] | None = None
    libvirt_version: int | None = None
    hypervisor_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """The definition of a domain that is shut off. ``kept``: in words what its host keeps for it that would stay behind."""

    facts: VmFacts
    kept: tuple[str, ...] = ()
