"""Whether a guest really runs on KVM here."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rebalancerd.lab.image import Image

PROBE_SECONDS = 8.0


def guest_runs_on_kvm(image: Image, timeout: float = PROBE_SECONDS) -> bool:
    """Boot the lab's own guest on KVM and see whether it gets as far as its program within `timeout` seconds.

    That /dev/kvm opens, or even makes a virtual machine, says little: on a machine that is itself virtual the guest may
    never get on. Measured: a boot takes about 2 s in software emulation, below 1 s on hardware.
    """
    if not Path("/dev/kvm").exists():
        return False
    argv = ["qemu-system-x86_64", "-accel", "kvm", "-m", "160", "-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-serial", "stdio", "-no-reboot", "-kernel", str(image.kernel), "-initrd", str(image.initramfs)]
    argv += ["-append", "console=ttyS0 quiet loglevel=3 panic=-1 lab.probe"]
    try:
        done = subprocess.run(argv, check=False, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL)
    except (subprocess.TimeoutExpired, OSError):
        return False
    return b"LAB probe boot=" in done.stdout
