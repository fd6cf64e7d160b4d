"""What of a host's topology the XML of a VM refers to (huge pages, pinning to CPUs and NUMA nodes), and what a host has.

A VM that is bound to CPUs or NUMA nodes may go where the same numbers mean the same: to a host of equal topology. The
XML of a VM is never rewritten. Formats: https://libvirt.org/formatdomain.html, https://libvirt.org/formatcaps.html.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass

from rebalancerd.cluster.digest import digest
from rebalancerd.cluster.host import HugePages

MAX_CPU = 16_384
MAX_PAGES = 2**40
UNITS = {"b": 1, "bytes": 1, "kib": 2**10, "k": 2**10, "mib": 2**20, "m": 2**20, "gib": 2**30, "g": 2**30}
_RANGE = re.compile(r"(\^?)([0-9]{1,6})(?:-([0-9]{1,6}))?")
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Bound:
    """``hugepage_bytes``, ``host_topology``, ``pinned_cpus`` as in VmFacts; ``immovable``: what no host can be asked for."""

    hugepage_bytes: int | None
    host_topology: tuple[str, ...]
    pinned_cpus: frozenset[int]
    immovable: tuple[str, ...]


def bound_to_host(root: ET.Element) -> Bound:
    """What a domain's XML needs of its host's CPUs, NUMA nodes and huge pages."""
    causes: list[str] = []
    immovable: list[str] = []
    vcpu = root.find("vcpu")
    if vcpu is not None and vcpu.get("cpuset"):
        causes.append("vCPUs are pinned to host CPUs (cpuset)")
    pinning = [tag for tag in ("vcpupin", "emulatorpin", "iothreadpin") if root.find(f"cputune/{tag}") is not None]
    causes += [f"CPU pinning ({tag})" for tag in pinning]
    if root.find("numatune") is not None:
        causes.append("memory bound to host NUMA nodes (numatune)")
    try:
        cpus = _pinned(root)
    except ValueError as error:
        cpus = frozenset()
        immovable.append(f"CPU pinning that cannot be read ({error})")
    size, fault = _huge_page(root)
    if fault is None and size is not None and root.find("numatune") is not None:
        fault = "huge pages of certain NUMA nodes"  # free pages are known of the whole host only
    if fault is not None:
        immovable.append(fault)
    return Bound(size, tuple(causes), cpus, tuple(immovable))


def _pinned(root: ET.Element) -> frozenset[int]:
    """CPUs that the vCPUs are pinned to; the emulator's threads do not keep others away. Raises ValueError."""
    pins = [element.get("cpuset", "") for element in root.findall("cputune/vcpupin")]
    vcpu = root.find("vcpu")
    if not pins and vcpu is not None and vcpu.get("cpuset"):
        pins = [vcpu.get("cpuset", "")]
    return frozenset[int]().union(*(cpu_set(text) for text in pins))


def cpu_set(text: str) -> frozenset[int]:
    """CPUs in libvirt's notation, e.g. "0-3,^2,8". Raises ValueError."""
    taken: set[int] = set()
    without: set[int] = set()
    for part in text.replace(" ", "").split(","):
        found = _RANGE.fullmatch(part)
        first = int(found[2]) if found else -1
        last = int(found[3] or first) if found else -1
        if found is None or not first <= last < MAX_CPU:
            raise ValueError(f"{text[:40]!r}")
        (without if found[1] else taken).update(range(first, last + 1))
    return frozenset(taken - without)


def _huge_page(root: ET.Element) -> tuple[int | None, str | None]:
    """Size in bytes (0: the host's default; None: ordinary pages), and what forbids to ask a host for them."""
    element = root.find("memoryBacking/hugepages")
    if element is None:
        return None, None
    sizes = {_bytes(page) for page in element.findall("page")}
    if not sizes:
        return 0, None
    if len(sizes) > 1 or None in sizes:
        return 0, "huge pages of several sizes" if len(sizes) > 1 else "huge pages of a size that cannot be read"
    return sizes.pop(), None


def _bytes(element: ET.Element) -> int | None:
    """A page size: the attributes ``size`` and ``unit`` (KiB if not given)."""
    unit, text = UNITS.get(element.get("unit", "KiB").lower()), element.get("size", "")
    if unit is None or not _NUMBER.fullmatch(text) or int(text) < 1:
        return None
    return int(text) * unit


def topology_digest(root: ET.Element) -> str | None:
    """Digest of the NUMA cells in a capabilities XML with the CPUs in them; None if it tells none.

    Sizes of memory are left out: equal machines differ in them by what their firmware keeps.
    """
    cells = []
    for cell in root.findall("host/topology/cells/cell"):
        cpus = sorted(tuple(sorted(cpu.attrib.items())) for cpu in cell.findall("cpus/cpu"))
        far = sorted((s.get("id", ""), s.get("value", "")) for s in cell.findall("distances/sibling"))
        cells.append((cell.get("id", ""), tuple(cpus), tuple(far)))
    return digest(tuple(sorted(cells))) if any(cpus for _, cpus, _ in cells) else None


def huge_page_pools(root: ET.Element) -> tuple[HugePages, ...] | None:
    """The host's pools in a capabilities XML, sums over its NUMA cells, empty ones left out; None if it tells no cell."""
    cells = root.findall("host/topology/cells/cell")
    if not cells:
        return None
    # the base page is listed like any other; it is the smallest
    rows = [(size, page.text or "") for cell in cells for page in cell.findall("pages") if (size := _bytes(page))]
    sums: dict[int, int] = {}
    for size, text in rows:
        count = int(text) if _NUMBER.fullmatch(text.strip()) else 0
        sums[size] = sums.get(size, 0) + min(count, MAX_PAGES)
    base = min(sums, default=0)
    return tuple(HugePages(size_bytes=s, total=n) for s, n in sorted(sums.items()) if n > 0 and s != base)


def with_free(pools: tuple[HugePages, ...], free: Mapping[int, Mapping[int, int]] | None) -> tuple[HugePages, ...]:
    """Pools with their free pages, as ``getFreePages`` tells them: {cell: {page size in KiB: pages}}; None is unknown."""
    if free is None:
        return pools
    sums: dict[int, int] = {}
    for cell in free.values():
        for kib, count in cell.items():
            sums[kib * 1024] = sums.get(kib * 1024, 0) + max(0, count)
    return tuple(HugePages(size_bytes=p.size_bytes, total=p.total, free=sums.get(p.size_bytes)) for p in pools)
