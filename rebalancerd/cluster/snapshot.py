"""Snapshot: one immutable, digestible picture of the cluster, with what is unknown and how old each figure is."""

from dataclasses import dataclass, field
from functools import cached_property

from rebalancerd.cluster.demand import cpu_demand_cores
from rebalancerd.cluster.digest import ADDED_LATER, digest, turn_recalls
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.vm import Vm


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A figure that could not be had: of which host or VM, which field, and why."""

    subject: str
    field: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """A migration seen on the hosts, ours or foreign (an operator's, another tool's). Destination may be unknown."""

    vm_uuid: str
    source: str
    destination: str | None
    ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubled:
    """A VM that executes on several hosts at once, and no migration of ours is under way that would explain it."""

    vm_uuid: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuFitRow:
    """Whether a host's hypervisor accepts CPUs of that digest (VmFacts.cpu_digest), as last probed."""

    cpu_digest: str
    host: str
    fit: CpuFit
    detail: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The cluster at ``taken_at`` (epoch seconds). Hosts and VMs are sorted by name and UUID.

    A VM stands once, on the host where it runs; a migrating VM on its source, with an InFlight beside it. Raises
    ValueError for a host named twice, a VM that stands twice, or a VM on a host that is not in the snapshot.
    """

    taken_at: float
    hosts: tuple[Host, ...]
    vms: tuple[Vm, ...]
    in_flight: tuple[InFlight, ...] = ()
    unknowns: tuple[Unknown, ...] = ()
    cpu_fits: tuple[CpuFitRow, ...] = ()
    warming_up: bool = False
    frozen: str | None = None  # reason of a cluster-wide sanity freeze
    doubled: tuple[Doubled, ...] = field(default=(), metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        """Check identities and put hosts and VMs in their canonical order."""
        object.__setattr__(self, "hosts", tuple(sorted(self.hosts, key=lambda h: h.name)))
        object.__setattr__(self, "vms", tuple(sorted(self.vms, key=lambda v: v.uuid)))
        names = [h.name for h in self.hosts]
        if len(set(names)) != len(names):
            raise ValueError(f"host named twice: {sorted(n for n in set(names) if names.count(n) > 1)}")
        uuids = [v.uuid for v in self.vms]
        if len(set(uuids)) != len(uuids):
            raise ValueError(f"VM stands twice: {sorted(u for u in set(uuids) if uuids.count(u) > 1)}")
        strays = sorted({v.host for v in self.vms} - set(names))
        if strays:
            raise ValueError(f"VMs on hosts that are not in the snapshot: {strays}")

    @cached_property
    def host_by_name(self) -> dict[str, Host]:
        """Hosts by name."""
        return {h.name: h for h in self.hosts}

    @cached_property
    def vm_by_uuid(self) -> dict[str, Vm]:
        """VMs by UUID."""
        return {v.uuid: v for v in self.vms}

    @cached_property
    def cpu_fit(self) -> dict[tuple[str, str], CpuFitRow]:
        """Probed CPU fits by (CPU digest, host)."""
        return {(row.cpu_digest, row.host): row for row in self.cpu_fits}

    @cached_property
    def vms_on(self) -> dict[str, tuple[Vm, ...]]:
        """VMs of each host, every host present."""
        found: dict[str, list[Vm]] = {h.name: [] for h in self.hosts}
        for vm in self.vms:
            found[vm.host].append(vm)
        return {name: tuple(vms) for name, vms in found.items()}

    @cached_property
    def asked_cores(self) -> dict[str, float | None]:
        """What each VM asks for now by its UUID, in cores of its host; None is unknown (``cluster.demand``)."""
        return {vm.uuid: cpu_demand_cores(vm, self.host_by_name[vm.host]) for vm in self.vms}

    def host(self, name: str) -> Host:
        """The host of that name. Raises KeyError."""
        return self.host_by_name[name]

    def vm(self, uuid: str) -> Vm:
        """The VM of that UUID. Raises KeyError."""
        return self.vm_by_uuid[uuid]

    @cached_property
    def digest(self) -> str:
        """Digest of the whole picture, measured loads included."""
        found = digest(self)
        turn_recalls()
        return found
