"""Facts of domains and hosts read from libvirt, and a cache that reads them anew when they may have changed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from rebalancerd.cluster.host import HostFacts, HugePages
from rebalancerd.cluster.units import MIB
from rebalancerd.cluster.vm import VmFacts
from rebalancerd.observe.capabilities_xml import Capabilities, parse_capabilities
from rebalancerd.observe.domain_xml import parse_domain
from rebalancerd.observe.safe_xml import DomainXmlError
from rebalancerd.observe.topology_xml import with_free
from rebalancerd.ports import Clock

FACTS_MAX_AGE_SECONDS = 300.0
T = TypeVar("T")


def optional(work: Callable[[], T]) -> T | None:
    """The answer of a call that a driver may not support or the rights may not allow; None is unknown."""
    import libvirt

    from rebalancerd.observe.libvirt_connection import ERR_NO_SUPPORT, RIGHTS

    try:
        return work()
    except libvirt.libvirtError as error:
        if error.get_error_code() in RIGHTS | {ERR_NO_SUPPORT}:
            return None
        raise


def read_facts(domain: Any) -> VmFacts:
    """Facts of a domain, read now. Raises libvirt.libvirtError, DomainXmlError."""
    snapshots = optional(lambda: domain.snapshotNum(0))
    checkpoints = optional(lambda: len(domain.listAllCheckpoints(0))) if hasattr(domain, "listAllCheckpoints") else None
    known = [count for count in (snapshots, checkpoints) if count is not None]
    autostart = optional(domain.autostart)
    saved = optional(lambda: domain.hasManagedSaveImage(0))
    return parse_domain(
        domain.XMLDesc(0),
        persistent=bool(domain.isPersistent()),
        autostart=None if autostart is None else bool(autostart),
        has_managed_save=None if saved is None else bool(saved),
        snapshots=sum(known) if known else None,
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    facts: VmFacts | None
    fault: str | None
    read_at: float


class FactsCache:
    """Facts by UUID of one host's domains. Used by one thread at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    def get(self, uuid: str) -> tuple[VmFacts | None, str | None]:
        """Facts as last read and what is wrong with them."""
        entry = self._entries.get(uuid)
        return (None, "its XML has not been read yet") if entry is None else (entry.facts, entry.fault)

    def stale(self, uuid: str, *, vcpus: int | None) -> bool:
        """Whether they should be read anew: never read, old, or the vCPUs were changed (which raises no event)."""
        entry = self._entries.get(uuid)
        if entry is None or self._clock.monotonic() - entry.read_at > FACTS_MAX_AGE_SECONDS:
            return True
        return vcpus is not None and entry.facts is not None and entry.facts.vcpus != vcpus

    def refresh(self, uuid: str, domain: Any) -> None:
        """Read them now. What cannot be read is a fault of this domain alone. Raises libvirtError if the connection broke."""
        import libvirt

        now = self._clock.monotonic()
        facts: VmFacts | None = None
        fault: str | None = None
        try:
            facts = read_facts(domain)
        except DomainXmlError as error:
            fault = f"its XML {error}"
        except libvirt.libvirtError as error:
            if not domain.connect().isAlive():
                raise
            fault = f"its XML cannot be read: {error.get_error_message()}"
        if facts is not None and facts.uuid != uuid:
            fault = f"its XML has another UUID: {facts.uuid}"
            facts = None
        self._entries[uuid] = _Entry(facts, fault, now)

    def keep(self, uuids: frozenset[str]) -> None:
        """Forget every other domain."""
        for uuid in self._entries.keys() - uuids:
            del self._entries[uuid]


def read_host_facts(connection: Any) -> HostFacts:
    """What libvirt says about the host. Raises libvirt.libvirtError, DomainXmlError."""
    info = connection.getInfo()
    capabilities = parse_capabilities(connection.getCapabilities())
    networks = optional(lambda: connection.listAllNetworks(0))
    return HostFacts(
        uuid=capabilities.uuid,
        cpus=int(info[2]),
        memory_bytes=int(info[1]) * MIB,
        arch=capabilities.arch,
        cpu_model=capabilities.cpu_model,
        machine_types=capabilities.machine_types,
        networks=None if networks is None else frozenset(n.name() for n in networks if n.isActive()),
        libvirt_version=optional(connection.getLibVersion),
        hypervisor_version=optional(connection.getVersion),
        hugepages=_huge_pages(connection, capabilities),
        topology=capabilities.topology,
    )


def _huge_pages(connection: Any, capabilities: Capabilities) -> tuple[HugePages, ...] | None:
    """The host's pools with their free pages. Hosts without any are not asked."""
    pools = capabilities.hugepages
    if not pools:
        return pools
    sizes = [pool.size_bytes // 1024 for pool in pools]
    return with_free(pools, optional(lambda: connection.getFreePages(sizes, 0, capabilities.cells, 0)))
