"""Whether a guest really runs on KVM here."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rebalancerd.lab.image import Image

PROBE_SECONDS = 8.0


def guest_runs_on_kvm(image: Image, cache_dir: Path, timeout: float = PROBE_SECONDS) -> bool:
    """Boot the lab's own guest on KVM and see whether it gets as far as its program within `timeout` seconds.

    The answer is kept in the cache until this machine is booted again or the image changes.

    That /dev/kvm opens, or even makes a virtual machine, says little: on a machine that is itself virtual the guest may
    never get on. Measured: a boot takes about 2 s in software emulation, below 1 s on hardware.
    """
    if not Path("/dev/kvm").exists():
        return False
    answer_file = cache_dir / "kvm-probe"
    question = f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {image.kernel} {image.initramfs}"
    for answer in (True, False):
        if answer_file.exists() and answer_file.read_text() == f"{question} {answer}\n":
            return answer
    answer = _boots(image, timeout)
    answer_file.write_text(f"{question} {answer}\n")
    return answer


def _boots(image: Image, timeout: float) -> bool:
    argv = ["qemu-system-x86_64", "-accel", "kvm", "-m", "160", "-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-serial", "stdio", "-no-reboot", "-kernel", str(image.kernel), "-initrd", str(image.initramfs)]
    argv += ["-append", "console=ttyS0 quiet loglevel=3 panic=-1 lab.probe"]
    try:
        done = subprocess.run(argv, check=False, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL)
    except (subprocess.TimeoutExpired, OSError):
        return False
    return b"LAB probe boot=" in done.stdout
