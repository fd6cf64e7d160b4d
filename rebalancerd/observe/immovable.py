"""What in a domain's XML forbids a live migration: each cause in words, found early so that no move is planned.

Sources: libvirt's qemuMigrationSrcIsAllowed and its relatives, and the migration blockers of QEMU's devices. What only
some hosts can take (huge pages, pinning to CPUs and NUMA nodes) is in ``topology_xml``.
"""

import ipaddress
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator

Causes = Iterator[str]
MAX_WORD = 60


def immovable_causes(root: ET.Element, *, snapshots: int | None = None) -> tuple[str, ...]:
    """Causes in a fixed order, each once; empty if the XML names none."""
    found = [cause for check in CHECKS for cause in check(root)]
    if snapshots:
        found.append(f"{snapshots} snapshots or checkpoints are recorded in libvirt")
    return tuple(dict.fromkeys(found))


def _word(element: ET.Element | None, attribute: str, default: str = "") -> str:
    return default if element is None else element.get(attribute, default)[:MAX_WORD]


def _passthrough(root: ET.Element) -> Causes:
    for device in root.findall("devices/hostdev"):
        source = device.find("source/address")
        kind = device.get("type", "") or device.get("mode", "")
        yield f"passthrough of a host device ({kind[:MAX_WORD]} {_word(source, 'uuid') or _word(device, 'model')})".replace(
            " )", ")"
        )
    for nic in root.findall("devices/interface"):
        kind = nic.get("type", "")
        if kind == "hostdev":
            yield "network interface passed through from the host (SR-IOV)"
        elif kind in ("vdpa", "vhostuser", "vds", "ethernet"):
            yield f"network interface of type {kind}"
        elif _word(nic.find("source"), "mode") == "passthrough":
            yield "macvtap interface in passthrough mode"
        elif nic.find("teaming") is not None and nic.find("teaming").get("type") == "transient":  # type: ignore[union-attr]
            yield "teaming with a passed-through interface"
        if _word(nic.find("backend"), "type") == "passt":
            yield "network interface with a passt back end"
    for device in root.findall("devices/input"):
        if device.get("type") in ("passthrough", "evdev"):
            yield "input device of the host"
    for tag in ("serial", "parallel", "console", "channel"):
        for device in root.findall(f"devices/{tag}[@type='dev']"):
            yield f"{device.tag} port on a device of the host"
    for device in root.findall("devices/smartcard"):
        if device.get("mode", "").startswith("host"):
            yield "smart card of the host"


def _storage(root: ET.Element) -> Causes:
    for disk in root.findall("devices/disk"):
        target = _word(disk.find("target"), "dev", "disk")
        if disk.get("type") in ("nvme", "vhostvdpa", "vhostuser"):
            yield f"disk {target} of type {disk.get('type')}"
        if disk.find("transient") is not None:
            yield f"disk {target} is transient"
        if disk.find("mirror") is not None:
            yield f"disk {target} has a block job"
        if disk.find("source/reservations") is not None:
            yield f"disk {target} uses persistent reservations"
    for share in root.findall("devices/filesystem"):
        yield f"shared file system ({_word(share.find('driver'), 'type') or '9p'})"
    for device in root.findall("devices/shmem"):
        if device.get("role") != "master":
            yield "shared memory that it is not the master of"


def _memory_devices(root: ET.Element) -> Causes:
    for device in root.findall("devices/memory"):
        model = device.get("model", "")
        if model in ("nvdimm", "virtio-pmem", "sgx-epc"):
            yield f"memory device {model}"
        elif model == "dimm" and device.find("address") is None:
            yield "memory module without a slot"
        elif device.find("source/nodemask") is not None or device.find("source/pagesize") is not None:
            yield "memory device bound to host NUMA nodes or huge pages"


def _cpu(root: ET.Element) -> Causes:
    if root.find("launchSecurity") is not None:
        yield f"encrypted memory (launch security {_word(root.find('launchSecurity'), 'type')})"
    cpu = root.find("cpu")
    if cpu is None:
        return
    frequency = root.find("clock/timer[@name='tsc'][@frequency]")
    for feature in cpu.findall("feature[@name='invtsc']"):
        if feature.get("policy", "require") in ("require", "force") and frequency is None:
            yield "CPU feature invtsc without a TSC frequency"
    if cpu.get("mode") in ("host-passthrough", "maximum") and cpu.get("migratable") == "off":
        yield f"CPU {cpu.get('mode')} that is declared not migratable"


def _bound_to_host(address: str) -> bool:
    """Whether a listen address exists on one host only: neither wildcard nor loopback, nor a name of loopback."""
    if not address or address == "localhost":
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return True
    return not (parsed.is_unspecified or parsed.is_loopback)


def _graphics(root: ET.Element) -> Causes:
    for device in root.findall("devices/graphics"):
        kind = _word(device, "type", "graphics")
        listens = device.findall("listen")
        if listens:
            # an address of type network is chosen anew by the destination
            addresses = [entry.get("address", "") for entry in listens if entry.get("type") == "address"]
        else:
            addresses = [device.get("listen", "")]
        yield from (f"{kind} console bound to {a[:MAX_WORD]}" for a in addresses if _bound_to_host(a))
        if kind == "sdl" or _word(device.find("gl"), "enable") == "yes":
            yield f"{kind} display on the host itself"
    for device in root.findall("devices/video"):
        if _word(device.find("model/acceleration"), "accel3d") == "yes":
            yield "accelerated video"
        if _word(device.find("driver"), "name") == "vhostuser":
            yield "video in a vhost-user process"


def _tpm(root: ET.Element) -> Causes:
    for backend in root.findall("devices/tpm/backend"):
        if backend.get("type") in ("passthrough", "external"):
            yield f"TPM of type {backend.get('type')}"


CHECKS: tuple[Callable[[ET.Element], Causes], ...] = (_passthrough, _storage, _memory_devices, _cpu, _graphics, _tpm)

__all__ = ["immovable_causes"]
