"""The definition of a shut-off domain, and what only its host has of it: an offline migration takes the XML and no more."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

from rebalancerd.cluster.sample import Definition
from rebalancerd.observe.libvirt_facts import optional, read_facts
from rebalancerd.observe.safe_xml import parse

INACTIVE = 2  # VIR_DOMAIN_XML_INACTIVE


def read_definition(domain: Any) -> Definition:
    """Read it now. Raises libvirt.libvirtError, DomainXmlError."""
    facts = read_facts(domain)
    root = parse(domain.XMLDesc(INACTIVE), "domain")
    kept = list(kept_files(root))
    if facts.has_managed_save is not False:
        kept.append("a managed-save image" if facts.has_managed_save else "maybe a managed-save image (unreadable)")
    for what, count in (
        ("snapshots", optional(lambda: domain.snapshotNum(0))),
        ("checkpoints", optional(lambda: len(domain.listAllCheckpoints(0)))),
    ):
        if count is None and what == "snapshots":
            kept.append("maybe snapshots (unreadable)")
        elif count:
            kept.append(f"{count} {what}")
    return Definition(facts=facts, kept=tuple(kept))


def kept_files(root: ET.Element) -> Iterator[str]:
    """State beside the XML that libvirt keeps in files of this host."""
    system = root.find("os")
    firmware = system is not None and (system.get("firmware") == "efi" or system.find("nvram") is not None)
    if firmware:
        yield "UEFI variables (NVRAM)"
    if any(backend.get("type") == "emulator" for backend in root.findall("devices/tpm/backend")):
        yield "the state of its TPM"
