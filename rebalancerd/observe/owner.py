"""Who owns a VM: signs of another controller in its XML, and in what the operator declares by name.

A VM of another controller is counted in the load and never moved. Pacemaker leaves no mark in the XML of a
VirtualDomain resource, so its VMs are declared by name (a rule with ``owner = "pacemaker"``) unless their metadata says so.
"""

import re
import xml.etree.ElementTree as ET
from fnmatch import fnmatchcase

from rebalancerd.cluster.policy import Owner
from rebalancerd.observe.settings import PolicyRule

NOBODY = "none"  # a rule with this owner declares that no other controller has the VM, whatever its XML says

# part of a metadata namespace, in lower case -> controller
NAMESPACES = (
    ("openstack.org/xmlns/libvirt/nova", "nova"),
    ("ovirt.org/vm", "ovirt"),
    ("opennebula.org/xmlns", "opennebula"),
    ("kubevirt.io", "kubevirt"),
    ("cloudstack.apache.org", "cloudstack"),
    ("clusterlabs.org", "pacemaker"),
    ("pacemaker", "pacemaker"),
    ("ganeti.org", "ganeti"),
    ("proxmox.com", "proxmox"),
    ("harvesterhci.io", "harvester"),
)
# beginning of the SMBIOS product or manufacturer, in lower case -> controller
FIRMWARE_SIGNS = (
    ("openstack", "nova"),
    ("ovirt", "ovirt"),
    ("rhev", "ovirt"),
    ("cloudstack", "cloudstack"),
    ("kubevirt", "kubevirt"),
    ("opennebula", "opennebula"),
)
# names that these controllers generate and people do not choose
NAMES = (
    (re.compile(r"instance-[0-9a-f]{8}"), "nova"),
    (re.compile(r"i-[0-9]+-[0-9]+-VM|[rsv]-[0-9]+-VM"), "cloudstack"),
    (re.compile(r"one-[0-9]+"), "opennebula"),
)
MANAGED_BY = re.compile(r"\bmanaged by (pacemaker|nova|ovirt|opennebula|kubevirt|ganeti|cloudstack|proxmox)\b", re.I)


def owner_of(root: ET.Element, name: str) -> Owner | None:
    """The controller whose mark the domain's XML bears; None if it bears none."""
    return _by_metadata(root) or _by_firmware(root) or _by_text(root) or _by_name(name)


def declared_owner(name: str, rules: tuple[PolicyRule, ...]) -> tuple[bool, Owner | None]:
    """What the first matching rule with an owner declares: (whether there is one, the owner or None for nobody)."""
    for rule in rules:
        if rule.owner is not None and fnmatchcase(name, rule.name):
            if rule.owner == NOBODY:
                return True, None
            return True, Owner(name=rule.owner, evidence=f"configured for names like {rule.name}")
    return False, None


def _by_metadata(root: ET.Element) -> Owner | None:
    for element in root.findall("metadata/*"):
        if not element.tag.startswith("{"):
            continue
        namespace = element.tag[1:].partition("}")[0]
        for sign, controller in NAMESPACES:
            if sign in namespace.lower():
                return Owner(name=controller, evidence=f"metadata {namespace[:120]}")
    return None


def _by_firmware(root: ET.Element) -> Owner | None:
    for entry in root.findall("sysinfo/system/entry"):
        text = (entry.text or "").strip()
        for sign, controller in FIRMWARE_SIGNS:
            if entry.get("name") in ("manufacturer", "product") and text.lower().startswith(sign):
                return Owner(name=controller, evidence=f"SMBIOS {entry.get('name')} {text[:80]}")
    return None


def _by_text(root: ET.Element) -> Owner | None:
    for tag in ("title", "description"):
        found = MANAGED_BY.search((root.findtext(tag) or "")[:4096])
        if found:
            return Owner(name=found.group(1).lower(), evidence=f"{tag} says {found.group(0)!r}")
    return None


def _by_name(name: str) -> Owner | None:
    for pattern, controller in NAMES:
        if pattern.fullmatch(name):
            return Owner(name=controller, evidence=f"a name as {controller} generates them")
    return None
