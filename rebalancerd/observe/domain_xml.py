"""Domain XML to VmFacts: what the XML says, everything that makes a VM immovable included.

Format: https://libvirt.org/formatdomain.html. Names and values are untrusted text.
"""

import math
import xml.etree.ElementTree as ET
from uuid import UUID

from rebalancerd.cluster.digest import digest
from rebalancerd.cluster.vm import Disk, DiskKind, Nic, VmFacts
from rebalancerd.observe.immovable import immovable_causes
from rebalancerd.observe.owner import owner_of
from rebalancerd.observe.policy_xml import read_policy
from rebalancerd.observe.safe_xml import DomainXmlError, parse
from rebalancerd.observe.topology_xml import bound_to_host

MAX_NAME = 4096
MAX_VCPUS = 4096
MAX_MEMORY_BYTES = 2**50
UNITS = {
    "b": 1,
    "bytes": 1,
    "kb": 10**3,
    "k": 2**10,
    "kib": 2**10,
    "mb": 10**6,
    "m": 2**20,
    "mib": 2**20,
    "gb": 10**9,
    "g": 2**30,
    "gib": 2**30,
    "tb": 10**12,
    "t": 2**40,
    "tib": 2**40,
}
CPU_PARTS_OF_TOPOLOGY = frozenset({"topology", "numa"})  # compareHypervisorCPU does not look at them


def parse_domain(
    xml: str,
    *,
    persistent: bool,
    autostart: bool | None,
    has_managed_save: bool | None,
    snapshots: int | None = None,
) -> VmFacts:
    """Facts of a domain from its live XML and what libvirt says beside it. Raises DomainXmlError, and nothing else.

    ``snapshots``: snapshots and checkpoints recorded in libvirt, which forbid a migration; None is unknown. A policy in
    the metadata that cannot be read makes the mode ``observe`` and is named in ``VmFacts.faults``.
    """
    root = parse(xml, "domain")
    name = root.findtext("name") or ""
    if not name or len(name) > MAX_NAME:
        raise DomainXmlError("has no <name>" if not name else f"has a <name> of {len(name)} characters")
    os_type = root.find("os/type")
    arch = "x86_64" if os_type is None else os_type.get("arch", "x86_64")
    machine = None if os_type is None else os_type.get("machine")
    virt_type = root.get("type", "kvm")
    cpu = root.find("cpu")
    bound = bound_to_host(root)
    policy, faults = read_policy(root.find("metadata"))
    return VmFacts(
        uuid=_uuid(root),
        name=name,
        vcpus=_vcpus(root),
        memory_bytes=_memory(root),
        virt_type=virt_type,
        arch=arch,
        machine=machine,
        cpu_mode=None if cpu is None else cpu.get("mode", "custom"),
        cpu_digest=cpu_digest(cpu, arch, machine, virt_type),
        disks=tuple(_disk(element) for element in root.findall("devices/disk")),
        nics=tuple(_nic(element) for element in root.findall("devices/interface")),
        secrets=_secrets(root),
        immovable=(*immovable_causes(root, snapshots=snapshots), *bound.immovable),
        persistent=persistent,
        autostart=autostart,
        has_managed_save=has_managed_save,
        owner=owner_of(root, name),
        policy=policy,
        faults=faults,
        hugepage_bytes=bound.hugepage_bytes,
        host_topology=bound.host_topology,
        pinned_cpus=bound.pinned_cpus,
    )


def cpu_digest(cpu: ET.Element | None, arch: str, machine: str | None, virt_type: str) -> str | None:
    """Digest of all that compareHypervisorCPU looks at; None if the XML has no <cpu>. Order and blanks do not matter."""
    if cpu is None:
        return None
    parts = tuple(sorted(_canonical(child) for child in cpu if child.tag not in CPU_PARTS_OF_TOPOLOGY))
    return digest((arch, machine, virt_type, tuple(sorted(cpu.attrib.items())), parts))


def _canonical(element: ET.Element) -> tuple[object, ...]:
    children = tuple(sorted((_canonical(child) for child in element), key=repr))
    return (element.tag, tuple(sorted(element.attrib.items())), (element.text or "").strip(), children)


def _uuid(root: ET.Element) -> str:
    text = (root.findtext("uuid") or "").strip()
    try:
        return str(UUID(text))
    except ValueError as error:
        raise DomainXmlError(f"has no valid <uuid>: {text[:60]!r}") from error


def _whole(text: str | None, what: str) -> int:
    """A non-negative whole number in ASCII digits."""
    stripped = (text or "").strip()
    if not (stripped.isascii() and stripped.isdigit() and len(stripped) <= 20):
        raise DomainXmlError(f"has no valid {what}: {stripped[:40]!r}")
    return int(stripped)


def _vcpus(root: ET.Element) -> int:
    element = root.find("vcpu")
    if element is None:
        return 1
    count = _whole(element.get("current") or element.text, "<vcpu>")
    if not 1 <= count <= MAX_VCPUS:
        raise DomainXmlError(f"has {count} vCPUs, not 1 to {MAX_VCPUS}")
    return count


def _memory(root: ET.Element) -> int:
    element = root.find("memory")
    if element is None:
        raise DomainXmlError("has no <memory>")
    unit = UNITS.get(element.get("unit", "KiB").lower())
    if unit is None:
        raise DomainXmlError(f"has <memory> in an unknown unit: {element.get('unit', '')[:20]!r}")
    size = _whole(element.text, "<memory>") * unit
    if not 0 < size <= MAX_MEMORY_BYTES or not math.isfinite(size):
        raise DomainXmlError(f"has {size} bytes of <memory>, not 1 to {MAX_MEMORY_BYTES}")
    return size


def _disk(element: ET.Element) -> Disk:
    kinds = {k.value: k for k in DiskKind if k is not DiskKind.OTHER}
    kind = kinds.get(element.get("type", "file"), DiskKind.OTHER)
    device = element.get("device", "disk")
    target = element.find("target")
    source = element.find("source")
    return Disk(
        target="" if target is None else target.get("dev", ""),
        kind=kind,
        source=None if source is None else _disk_source(source, kind),
        writable=element.find("readonly") is None and device != "cdrom",
        removable=device in ("cdrom", "floppy"),
        protocol=source.get("protocol") if source is not None and kind is DiskKind.NETWORK else None,
        pool=source.get("pool") if source is not None and kind is DiskKind.VOLUME else None,
    )


def _disk_source(source: ET.Element, kind: DiskKind) -> str | None:
    attribute = {
        DiskKind.FILE: "file",
        DiskKind.BLOCK: "dev",
        DiskKind.NETWORK: "name",
        DiskKind.VOLUME: "volume",
    }.get(kind)
    if attribute is not None:
        found = source.get(attribute)
        if kind is DiskKind.NETWORK and found is None:
            host = source.find("host")  # an NBD export may have no name
            return "" if host is None else host.get("name", "")
        return found
    return next((source.get(a) for a in ("dir", "dev", "path") if source.get(a)), f"of type {source.get('type')}")


def _nic(element: ET.Element) -> Nic:
    kind = element.get("type", "")
    source = element.find("source")
    filterref = element.find("filterref")
    attribute = {"network": "network", "bridge": "bridge", "direct": "dev"}.get(kind)
    return Nic(
        kind=kind,
        source=source.get(attribute) if source is not None and attribute is not None else None,
        portgroup=None if source is None else source.get("portgroup"),
        nwfilter=None if filterref is None else filterref.get("filter"),
    )


def secret_by_usage(usage_type: str, usage: str) -> str:
    """How a secret that is referred to by usage is written in ``VmFacts.secrets`` and ``HostInventory.secrets``."""
    return f"{usage_type}/{usage}"


def _secrets(root: ET.Element) -> frozenset[str]:
    """Secrets that devices refer to: UUIDs, or TYPE/USAGE."""
    found: set[str] = set()
    for element in root.findall("devices//secret"):
        if element.get("uuid"):
            found.add(element.get("uuid", "").lower())
        elif element.get("usage"):
            found.add(secret_by_usage(element.get("type", ""), element.get("usage", "")))
    for element in root.findall("devices//encryption[@secret]"):
        found.add(element.get("secret", "").lower())
    return frozenset(found)
