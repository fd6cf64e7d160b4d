"""What a host's capabilities XML says: UUID, architecture, CPU model, machine types, huge pages, topology."""

from dataclasses import dataclass

from rebalancerd.cluster.host import HugePages
from rebalancerd.observe.safe_xml import parse
from rebalancerd.observe.topology_xml import huge_page_pools, topology_digest


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Facts out of ``getCapabilities``; None is not told."""

    uuid: str | None
    arch: str
    cpu_model: str | None
    machine_types: frozenset[str] | None
    hugepages: tuple[HugePages, ...] | None = None
    topology: str | None = None
    cells: int = 0


def parse_capabilities(xml: str) -> Capabilities:
    """Raises DomainXmlError, and nothing else."""
    root = parse(xml, "capabilities")
    arch = (root.findtext("host/cpu/arch") or "x86_64").strip()
    machines = {
        (machine.text or "").strip()
        for guest in root.findall("guest/arch")
        if guest.get("name") == arch
        for machine in guest.iter("machine")
    }
    machines.discard("")
    uuid = (root.findtext("host/uuid") or "").strip().lower()
    return Capabilities(
        uuid=uuid or None,
        arch=arch,
        cpu_model=(root.findtext("host/cpu/model") or "").strip() or None,
        machine_types=frozenset(machines) if machines else None,
        hugepages=huge_page_pools(root),
        topology=topology_digest(root),
        cells=len(root.findall("host/topology/cells/cell")),
    )
