"""What a simulated cluster consists of: hosts and guests as declared, before any time passes."""

import uuid
from dataclasses import dataclass, field

from rebalancerd.cluster.host import HostFacts
from rebalancerd.cluster.policy import HostMode, Owner, VmPolicy
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import Disk, DiskKind, Nic, VmFacts
from rebalancerd.observe.settings import HostSettings
from rebalancerd.sim.demand import Demand

NAMESPACE = uuid.UUID("6b0f6c1e-52b5-5a0c-9a53-4f1a4b1d0c55")
MACHINE = "pc-q35-7.2"


def stable_uuid(kind: str, name: str) -> str:
    """The same UUID for the same name in every run."""
    return str(uuid.uuid5(NAMESPACE, f"{kind}/{name}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """A simulated host. ``cpu_generation``: guests that need a later one cannot come here.

    ``overhead_cores`` and ``overhead_memory_bytes`` are what the host itself uses. ``storage``: path prefixes it
    reaches. ``uuid`` None: made from the name. ``agent``: a metrics agent runs on it. ``power``: it has a
    management controller, boots and shuts down in so many seconds.
    """

    name: str
    cpus: int = 16
    memory_bytes: int = 64 * GIB
    speed_factor: float = 1.0
    link_bytes_per_second: float = 125_000_000.0
    overhead_cores: float = 0.2
    overhead_memory_bytes: int = 1 * GIB
    cpu_generation: int = 1
    networks: frozenset[str] = frozenset({"default"})
    storage: frozenset[str] = frozenset({"/shared"})
    secrets: frozenset[str] = field(default_factory=frozenset)
    nwfilters: frozenset[str] = field(default_factory=frozenset)
    machine_types: frozenset[str] = frozenset({MACHINE})
    failure_domain: str | None = None
    mode: HostMode = HostMode.ACTIVE
    reserved_cores: float = 0.0
    reserved_memory_bytes: int = 0
    uuid: str | None = None
    agent: bool = False
    idle_watts: float | None = None
    max_watts: float | None = None
    power_watts: tuple[float, ...] | None = None
    power: bool = False
    boot_seconds: float = 120.0
    shutdown_seconds: float = 30.0

    def facts(self) -> HostFacts:
        """What its libvirt would say of it."""
        return HostFacts(
            uuid=self.uuid or stable_uuid("host", self.name),
            cpus=self.cpus,
            memory_bytes=self.memory_bytes,
            cpu_model=f"sim-generation-{self.cpu_generation}",
            machine_types=self.machine_types,
            networks=self.networks,
            libvirt_version=9_000_000,
            hypervisor_version=7_002_000,
        )

    def settings(self) -> HostSettings:
        """What an operator would declare of it."""
        return HostSettings(
            name=self.name,
            uri=f"qemu+tcp://{self.name}/system",
            peer_uri=f"qemu+tcp://{self.name}/system",
            migration_uri=f"tcp://{self.name}",
            mode=self.mode,
            speed_factor=self.speed_factor,
            reserved_cores=self.reserved_cores,
            reserved_memory_bytes=self.reserved_memory_bytes,
            failure_domain=self.failure_domain,
            storage_domains=self.storage,
            networks=self.networks,
            link_bytes_per_second=self.link_bytes_per_second,
            agent_url=f"http://{self.name}:9177/metrics" if self.agent else None,
            idle_watts=self.idle_watts,
            max_watts=self.max_watts,
            power_watts=self.power_watts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """A simulated guest. ``rss_bytes``: memory its process holds (None: three quarters of what it was given).

    ``dirty_bytes_per_second`` is the rate at which it writes pages, ``working_set_bytes`` the set it writes to: unique
    pages dirtied within t seconds are ``W·(1 − exp(−rate·t/W))``. ``past_dirty_mib_s``: what was measured of that before
    the run, by hour of day (UTC), 24 figures or none. ``present`` False: it appears later, by script. Raises ValueError
    for a day that has not 24 hours.
    """

    name: str
    host: str
    vcpus: int = 2
    memory_bytes: int = 4 * GIB
    rss_bytes: int | None = None
    demand: Demand = Demand()
    dirty_bytes_per_second: float = 8.0 * MIB
    working_set_bytes: float = 256.0 * MIB
    network_bytes_per_second: float = 0.0
    block_bytes_per_second: float = 0.0
    persistent: bool = True
    autostart: bool = False
    managed_save: bool = False
    cpu_generation: int = 1
    machine: str = MACHINE
    networks: tuple[str, ...] = ("default",)
    disks: tuple[str, ...] = ()
    secrets: frozenset[str] = field(default_factory=frozenset)
    nwfilter: str | None = None
    immovable: tuple[str, ...] = ()
    owner: str | None = None
    policy: VmPolicy = VmPolicy()
    past_dirty_mib_s: tuple[float, ...] = ()
    present: bool = True
    uuid: str | None = None

    def __post_init__(self) -> None:
        """Check the day."""
        if self.past_dirty_mib_s and len(self.past_dirty_mib_s) != 24:
            raise ValueError(f"past_dirty_mib_s needs 24 figures, not {len(self.past_dirty_mib_s)}")

    @property
    def key(self) -> str:
        """Its UUID."""
        return self.uuid or stable_uuid("vm", self.name)

    @property
    def resident_bytes(self) -> int:
        """Memory its process holds at the start."""
        return self.memory_bytes * 3 // 4 if self.rss_bytes is None else self.rss_bytes

    def facts(self, *, name: str, persistent: bool, autostart: bool, managed_save: bool) -> VmFacts:
        """What its XML says where it is defined so."""
        owner = None if self.owner is None else Owner(name=self.owner, evidence=f"metadata of {self.owner}")
        return VmFacts(
            uuid=self.key,
            name=name,
            vcpus=self.vcpus,
            memory_bytes=self.memory_bytes,
            machine=self.machine,
            cpu_mode="custom",
            cpu_digest=f"generation-{self.cpu_generation}",
            disks=tuple(
                Disk(target=f"vd{chr(97 + i)}", kind=DiskKind.FILE, source=path, writable=True)
                for i, path in enumerate(self.disks)
            ),
            nics=tuple(Nic(kind="network", source=network, nwfilter=self.nwfilter) for network in self.networks),
            secrets=self.secrets,
            immovable=self.immovable,
            persistent=persistent,
            autostart=autostart,
            has_managed_save=managed_save,
            owner=owner,
            policy=self.policy,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """Hosts and guests of a simulated cluster. Raises ValueError for names that clash or a guest on no host."""

    hosts: tuple[HostSpec, ...]
    vms: tuple[VmSpec, ...]
    seed: int = 1

    def __post_init__(self) -> None:
        """Check identities."""
        names = [h.name for h in self.hosts]
        if not names or len(set(names)) != len(names):
            raise ValueError("a cluster needs hosts, each with its own name")
        keys = [v.key for v in self.vms]
        if len(set(keys)) != len(keys):
            raise ValueError(f"two VMs of the same UUID: {sorted({k for k in keys if keys.count(k) > 1})}")
        strays = sorted({v.host for v in self.vms} - set(names))
        if strays:
            raise ValueError(f"VMs on hosts that are not declared: {strays}")
