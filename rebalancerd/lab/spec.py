"""What a lab consists of: hosts, guests and the load each guest makes. Values only, no effects."""

from __future__ import annotations

import ipaddress
import re
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Literal

MAX_HOSTS = 9
MAX_GUESTS = 64
MAX_PHASES = 4000
METADATA_CHARACTERS = 65_536
METADATA_DEPTH = 32
KERNEL_COMMAND_LINE_CHARS = 1500
GUEST_OVERHEAD_MIB = 72
_NAME = re.compile(r"[a-z0-9]{1,6}")
_GUEST_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
Order = Literal["sequential", "random", "hot", "unchanged", "reader", "growing", "churn"]
# the letter that the guest program reads
ORDERS: dict[str, str] = {
    "sequential": "s",
    "random": "r",
    "hot": "h",
    "unchanged": "u",
    "reader": "l",
    "growing": "g",
    "churn": "c",
}
_UUID_SPACE = uuid.UUID("6f0a3c52-6c1d-4d0c-9a39-6c1f6d3ad1f1")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class Phase:
    """A stretch of time with one load.

    Args:
        seconds: how long it lasts (the last phase of a schedule that does not repeat holds for ever).
        cpu_percent: demand in per cent of one virtual CPU, 0 to 100. Measured in software emulation, the host sees
            1.1 times as much (QEMU itself), and 0.02 cores of an idle guest.
        working_set_mib: memory the guest keeps in use, MiB.
        dirty_mib_per_second: memory it rewrites within the working set, MiB/s, whole pages with new content.
        order: how the rate is spent: pages rewritten in `sequential` or `random` order, `hot` (nine writes of ten to a
            tenth of the working set) or `unchanged` (every write puts the value that was there); `reader` only reads;
            `growing` is a heap that grows to the working set and is given back whole, again and again; `churn` writes
            files to the page cache and deletes the oldest.

    Raises:
        ValueError: a figure is out of its bounds.
    """

    seconds: float
    cpu_percent: float = 0.0
    working_set_mib: float = 0.0
    dirty_mib_per_second: float = 0.0
    order: Order = "sequential"

    def __post_init__(self) -> None:
        _check(0.1 <= self.seconds <= 1e6, f"phase: seconds must be 0.1 to 1000000, not {self.seconds:g}")
        _check(0 <= self.cpu_percent <= 100, f"phase: cpu_percent must be 0 to 100, not {self.cpu_percent:g}")
        _check(
            0 <= self.working_set_mib <= 1e5,
            f"phase: working_set_mib must be 0 to 100000, not {self.working_set_mib:g}",
        )
        _check(
            0 <= self.dirty_mib_per_second <= 1e4,
            f"phase: dirty_mib_per_second must be 0 to 10000, not {self.dirty_mib_per_second:g}",
        )
        _check(
            self.dirty_mib_per_second == 0 or self.working_set_mib > 0,
            "phase: a dirty rate needs a working set to rewrite (working_set_mib is 0)",
        )
        _check(self.order in ORDERS, f"phase: order must be one of {', '.join(ORDERS)}, not {self.order}")


IDLE = (Phase(seconds=60),)


def check_phases(phases: tuple[Phase, ...], memory_mib: int) -> None:
    """Check that a guest of this memory (MiB) can follow the schedule.

    Raises:
        ValueError: there is no phase, there are too many, or a working set does not fit.
    """
    _check(0 < len(phases) <= MAX_PHASES, f"a schedule has 1 to {MAX_PHASES} phases, not {len(phases)}")
    room, most = memory_mib - GUEST_OVERHEAD_MIB, max(phase.working_set_mib for phase in phases)
    _check(most <= room, f"a guest of {memory_mib} MiB has room for a working set of {room} MiB, not {most:g}")


def encode_schedule(phases: tuple[Phase, ...], repeat: bool) -> str:
    """Write a schedule in the text form that the guest program reads (documented in guest/workload.c)."""
    rows = (
        f"{p.seconds:g}:{p.cpu_percent:g}:{p.working_set_mib:g}:{p.dirty_mib_per_second:g}:{ORDERS[p.order]}"
        for p in phases
    )
    return ("repeat;" if repeat else "") + ",".join(rows)


@dataclass(frozen=True)
class GuestSpec:
    """One virtual machine of the lab.

    Args:
        name: domain name, lower-case letters, digits and dashes, at most 32 characters.
        host: the host it starts on, such as ``h1``.
        phases: its load from boot on; `Lab.set_load` changes it later.
        repeat: start over after the last phase.
        memory_mib: at least 128, or QEMU's page sampling sees no RAM block to estimate a dirty rate from.
        vcpus: virtual CPUs; the load runs on one of them.
        disk_mib: size of a writable network disk that every host reaches; 0 for no disk.
        persistent: defined on its host, not only running.
        autostart: started with libvirtd of its host (persistent guests only).
        machine: QEMU machine type.
        flush_ms: how often the guest drops its address translations, 0: never. QEMU before 9.0 loses pages in live
            migrations of several rounds in software emulation where it does not (guest/workload.c says why); 3 ms
            costs a tenth of a CPU.
        metadata_xml: one element in a namespace of its own, put in the domain's <metadata>.

    Raises:
        ValueError: a value is out of its bounds.
    """

    name: str
    host: str = "h1"
    phases: tuple[Phase, ...] = IDLE
    repeat: bool = False
    memory_mib: int = 160
    vcpus: int = 1
    disk_mib: int = 0
    persistent: bool = True
    autostart: bool = False
    machine: Literal["pc", "q35"] = "pc"
    flush_ms: int = 0
    metadata_xml: str = ""

    def __post_init__(self) -> None:
        at = f"guest {self.name}"
        _check(_GUEST_NAME.fullmatch(self.name) is not None, f"{at}: a name has 1 to 32 characters of a-z 0-9 -")
        _check(128 <= self.memory_mib <= 65536, f"{at}: memory_mib must be 128 to 65536, not {self.memory_mib}")
        _check(1 <= self.vcpus <= 4, f"{at}: vcpus must be 1 to 4, not {self.vcpus}")
        _check(0 <= self.disk_mib <= 65536, f"{at}: disk_mib must be 0 to 65536, not {self.disk_mib}")
        _check(self.persistent or not self.autostart, f"{at}: only a persistent guest can be started automatically")
        _check(0 <= self.flush_ms <= 1000, f"{at}: flush_ms must be 0 to 1000, not {self.flush_ms}")
        _check(self.machine in ("pc", "q35"), f"{at}: machine must be pc or q35, not {self.machine}")
        if self.metadata_xml:
            try:
                root = parsed_metadata(self.metadata_xml)
            except ValueError as error:
                raise ValueError(f"{at}: metadata_xml {error}") from error
            _check(root.tag.startswith("{"), f"{at}: metadata_xml needs an element in a namespace of its own")
        check_phases(self.phases, self.memory_mib)
        _check(
            len(encode_schedule(self.phases, self.repeat)) <= KERNEL_COMMAND_LINE_CHARS,
            f"{at}: the schedule does not fit a kernel command line; give it with set_load after the boot",
        )


@dataclass(frozen=True)
class LabSpec:
    """A cluster on one machine.

    Args:
        name: 1 to 6 letters and digits; labs of different names and subnets can run side by side.
        hosts: number of hosts, 1 to 9, called h1, h2, ...
        guests: the virtual machines that `Lab.up` starts.
        subnet: an IPv4 /24 for the migration network; host N has address N in it, this machine 254.
        cpu_quota_cores: CPU time each host gets per second of time, its guests and libvirtd together.
        memory_limit_mib: memory each host has, its guests and libvirtd together.
        accelerator: ``auto`` takes KVM if a guest really runs on it, else ``tcg``.

    Raises:
        ValueError: a value is out of its bounds, or a guest is named twice or starts on a host that is not there.
    """

    name: str = "lab"
    hosts: int = 3
    guests: tuple[GuestSpec, ...] = ()
    subnet: str = "10.77.0.0/24"
    cpu_quota_cores: float = 0.6
    memory_limit_mib: int = 2048
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"

    def __post_init__(self) -> None:
        _check(_NAME.fullmatch(self.name) is not None, f"lab: a name has 1 to 6 characters of a-z 0-9, not {self.name}")
        _check(1 <= self.hosts <= MAX_HOSTS, f"lab: hosts must be 1 to {MAX_HOSTS}, not {self.hosts}")
        _check(ipaddress.IPv4Network(self.subnet).prefixlen == 24, f"lab: subnet must be a /24, not {self.subnet}")
        _check(
            0.1 <= self.cpu_quota_cores <= 1024, f"lab: cpu_quota_cores must be 0.1 to 1024: {self.cpu_quota_cores:g}"
        )
        _check(self.memory_limit_mib >= 512, f"lab: memory_limit_mib must be 512 or more, not {self.memory_limit_mib}")
        _check(
            self.accelerator in ("auto", "kvm", "tcg"), f"lab: accelerator must be auto, kvm or tcg: {self.accelerator}"
        )
        _check(len(self.guests) <= MAX_GUESTS, f"lab: at most {MAX_GUESTS} guests, not {len(self.guests)}")
        names = [guest.name for guest in self.guests]
        _check(len(set(names)) == len(names), f"lab: guest names must differ: {', '.join(sorted(names))}")
        for guest in self.guests:
            self.check_guest(guest)

    def check_guest(self, guest: GuestSpec) -> None:
        """Check that a guest fits this lab.

        Raises:
            ValueError: it starts on a host that is not there.
        """
        _check(guest.host in self.host_names, f"guest {guest.name}: no host {guest.host} in lab {self.name}")

    @property
    def host_names(self) -> tuple[str, ...]:
        """Names of the hosts in order."""
        return tuple(f"h{number}" for number in range(1, self.hosts + 1))

    def address(self, number: int) -> str:
        """IPv4 address of host `number`, or of this machine's end of the bridge for 254."""
        return str(ipaddress.IPv4Network(self.subnet)[number])

    def guest_uuid(self, guest: str) -> str:
        """UUID of a guest: always the same for the same lab and guest name."""
        return str(uuid.uuid5(_UUID_SPACE, f"{self.name}/guest/{guest}"))

    def host_uuid(self, host: str) -> str:
        """UUID of a host: always the same for the same lab and host name; migration refuses equal ones."""
        return str(uuid.uuid5(_UUID_SPACE, f"{self.name}/host/{host}"))


def parsed_metadata(text: str) -> ET.Element:
    """The element that a guest carries in its metadata.

    Raises:
        ValueError: it is not XML, longer or deeper than metadata may be, or declares entities.
    """
    if len(text) > METADATA_CHARACTERS:
        raise ValueError(f"is longer than {METADATA_CHARACTERS} characters")
    if "<!DOCTYPE" in text:
        raise ValueError("has a DOCTYPE")
    try:
        root = ET.fromstring(text)  # noqa: S314 - short, and without a DTD there are no entities
    except ET.ParseError as error:
        raise ValueError(f"is not XML: {error}") from error
    level, depth = [root], 0
    while level:
        level, depth = [child for element in level for child in element], depth + 1
    if depth > METADATA_DEPTH:
        raise ValueError(f"is nested more than {METADATA_DEPTH} deep")
    return root
