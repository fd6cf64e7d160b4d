"""What a machine needs to run a lab."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from rebalancerd.lab.commands import SEARCH_PATH

_LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# Debian package -> a program or a file that it brings
_NEEDED = {
    "gcc": "gcc",
    "iproute2": "tc",
    "libc6-dev": f"{_LIBRARIES}/libc.a",
    "libvirt-daemon-driver-qemu": f"{_LIBRARIES}/libvirt/connection-driver/libvirt_driver_qemu.so",
    "libvirt-daemon-system": "libvirtd",
    "lxcfs": "lxcfs",
    "qemu-system-x86": "qemu-system-x86_64",
    "qemu-utils": "qemu-nbd",
    "util-linux": "nsenter",
}


def required_packages() -> list[str]:
    """Debian packages that a lab needs and this machine does not have, sorted.

    The guest's kernel is not among them: it is fetched with apt-get and unpacked, not installed.
    """
    return [
        package
        for package, brings in _NEEDED.items()
        if not (Path(brings).exists() if brings.startswith("/") else shutil.which(brings, path=SEARCH_PATH))
    ]


def can_run() -> str | None:
    """Say why no lab can run here, in one line with the remedy; None if one can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"a lab needs Linux on x86_64, this is {platform.system()} on {platform.machine()}"
    if os.geteuid() != 0:
        return "a lab needs root: it makes namespaces, cgroups and a bridge"
    missing = required_packages()
    if missing:
        return f"a lab needs packages: apt-get install --no-install-recommends {' '.join(missing)}"
    if not Path("/dev/fuse").exists():
        return "a lab needs /dev/fuse for lxcfs: modprobe fuse"
    return None
