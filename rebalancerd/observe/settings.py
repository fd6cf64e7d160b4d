"""Settings of observing, and what the operator declares of a host."""

from dataclasses import dataclass, field

from rebalancerd.cluster.host import HugePages
from rebalancerd.cluster.policy import HostMode, VmPolicy
from rebalancerd.observe.listening import TlsFiles, tls_files


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """One configured host. ``cores``, ``memory_bytes``: what may be used, None to take what libvirt says.

    ``uri``: ours, read-only connections are opened on it (``ro_socket`` replaces its socket for them where set);
    ``act_uri``: ours for connections that may change things, as another account; None: ``uri``;
    ``peer_uri``: as the source host resolves it, None to use ``uri`` when that is remote; ``agent_url``: psutil agent.
    """

    name: str
    uri: str
    ro_socket: str | None = None
    act_uri: str | None = None
    peer_uri: str | None = None
    migration_uri: str | None = None
    mode: HostMode = HostMode.ACTIVE
    cores: float | None = None
    speed_factor: float = 1.0
    memory_bytes: int | None = None
    reserved_cores: float = 0.0
    reserved_memory_bytes: int = 0
    failure_domain: str | None = None
    storage_domains: frozenset[str] = field(default_factory=frozenset)
    networks: frozenset[str] | None = None
    cpu_group: str | None = None
    link_bytes_per_second: float = 125_000_000.0
    agent_url: str | None = None
    idle_watts: float | None = None
    max_watts: float | None = None
    power_watts: tuple[float, ...] | None = None
    memory_overcommit: float | None = None
    hugepages: tuple[HugePages, ...] | None = None

    @property
    def write_uri(self) -> str:
        """Where connections that may change things are opened."""
        return self.act_uri or self.uri


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """A policy for the VMs whose name matches a shell pattern; ``owner`` marks them as another controller's.

    ``owner`` "none" declares that no other controller has them, whatever their XML says.
    """

    name: str
    policy: VmPolicy = field(default_factory=VmPolicy)
    owner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveSettings:
    """Ages and deadlines in seconds, shares 0 to 1.

    A host whose figures are older than ``stale_after_seconds`` is neither source nor destination. When more than
    ``unknown_share_max`` of the hosts is unusable nothing is planned. ``frozen_jump_share``: if the load of more than
    this share of the VMs jumps to or from zero in one tick, telemetry is taken for broken and decisions freeze.
    """

    sample_seconds: float = 10.0
    call_deadline_seconds: float = 5.0
    stale_after_seconds: float = 60.0
    flap_stable_seconds: float = 60.0
    unknown_share_max: float = 0.34
    frozen_jump_share: float = 0.6
    warm_up_samples: int = 3
    probe: str = "direct"
    probe_periods_seconds: tuple[int, ...] = (1, 4)
    probe_interval_seconds: float = 30.0
    probe_pool_seconds: float = 1800.0
    rules: tuple[PolicyRule, ...] = ()
    agent_cert_file: str | None = None
    agent_key_file: str | None = None
    agent_ca_file: str | None = None

    @property
    def agent_tls(self) -> TlsFiles | None:
        """What https:// agents are shown and by what they are checked. Raises TlsError where it is incomplete."""
        return tls_files(self.agent_cert_file, self.agent_key_file, self.agent_ca_file)
