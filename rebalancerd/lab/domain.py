"""The libvirt domain XML of a lab guest."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from rebalancerd.lab.image import Image
from rebalancerd.lab.spec import GuestSpec, encode_schedule, parsed_metadata
from rebalancerd.lab.storage import Disk

EMULATOR = "/usr/bin/qemu-system-x86_64"
PORT_NAME = "lab.load"
# Seen alike on every host (each has its own file there), so that a migration needs no change of the XML.
CHANNEL_DIR = "/run/libvirt/lab"
CONSOLE_DIR = "/var/log/libvirt/lab"
STATS_PERIOD_SECONDS = 2
# no_timer_check: the check takes long in software emulation and fails when the host has no time to give
COMMAND_LINE = "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nokaslr no_timer_check"


def channel_file(guest: str) -> str:
    """File name of the socket through which the guest takes a new schedule."""
    return f"{guest}.load"


def console_file(guest: str) -> str:
    """File name of the guest's console log."""
    return f"{guest}.console"


def domain_xml(guest: GuestSpec, uuid: str, image: Image, disk: Disk | None, *, kvm: bool) -> str:
    """Write the domain XML of a guest.

    Args:
        guest: what to run.
        uuid: its UUID.
        image: what it boots.
        disk: its network disk, or None.
        kvm: run on KVM; software emulation otherwise.
    """
    domain = ET.Element("domain", type="kvm" if kvm else "qemu")
    _add(domain, "name", text=guest.name)
    _add(domain, "uuid", text=uuid)
    if guest.metadata_xml:
        metadata = _add(domain, "metadata")
        metadata.append(parsed_metadata(guest.metadata_xml))
    _add(domain, "memory", text=str(guest.memory_mib), unit="MiB")
    _add(domain, "vcpu", text=str(guest.vcpus))
    system = _add(domain, "os")
    _add(system, "type", text="hvm", arch="x86_64", machine=guest.machine)
    _add(system, "kernel", text=str(image.kernel))
    _add(system, "initrd", text=str(image.initramfs))
    flush = f" pti=on lab.flush={guest.flush_ms}" if guest.flush_ms else ""
    _add(system, "cmdline", text=f"{COMMAND_LINE}{flush} lab.load={encode_schedule(guest.phases, guest.repeat)}")
    features = _add(domain, "features")
    _add(features, "acpi")
    if kvm:
        _add(domain, "cpu", mode="host-passthrough", migratable="on")
    else:
        _add(_add(features, "tcg"), "tb-cache", text="64", unit="MiB")  # QEMU would take a gibibyte
    _add(domain, "on_poweroff", text="destroy")
    _add(domain, "on_reboot", text="restart")
    _add(domain, "on_crash", text="destroy")
    _add_devices(_add(domain, "devices"), guest, disk)
    return ET.tostring(domain, encoding="unicode")


def _add_devices(devices: ET.Element, guest: GuestSpec, disk: Disk | None) -> None:
    _add(devices, "emulator", text=EMULATOR)
    _add(devices, "controller", type="usb", model="none")
    if disk is not None:
        element = _add(devices, "disk", type="network", device="disk")
        _add(element, "driver", name="qemu", type="raw", cache="none")  # what libvirt's migration safety check asks for
        source = _add(element, "source", protocol="nbd", name=disk.guest)
        _add(source, "host", name=disk.address, port=str(disk.port))
        _add(element, "target", dev="vda", bus="virtio")
    serial = _add(devices, "serial", type="file")
    # without append the destination of a migration would truncate the log of an earlier stay
    _add(serial, "source", path=f"{CONSOLE_DIR}/{console_file(guest.name)}", append="on")
    _add(serial, "target", port="0")
    channel = _add(devices, "channel", type="unix")
    _add(channel, "source", mode="bind", path=f"{CHANNEL_DIR}/{channel_file(guest.name)}")
    _add(channel, "target", type="virtio", name=PORT_NAME)
    _add(_add(devices, "memballoon", model="virtio"), "stats", period=str(STATS_PERIOD_SECONDS))
    _add(_add(devices, "video"), "model", type="none")


def _add(parent: ET.Element, tag: str, *, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element
