"""`make test-systemd`: a Debian image booted under QEMU, in which systemd runs the shipped units for real.

Needs root, debootstrap and QEMU, some 2 GiB of disk, and minutes to a quarter of an hour of software emulation; so it is no part of `make test`.
The base system is kept for the next time in the directory given.
"""

import argparse
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "udev", "python3", "libvirt0", "libvirt-daemon-system", "libvirt-clients", "libpam-systemd",
    "qemu-system-x86", "linux-image-cloud-amd64", "initramfs-tools", "procps", "ca-certificates",
)  # fmt: skip
CONFIGURATION = """mode = "recommend"
[[hosts]]
name = "here"
uri = "qemu:///system"
agent_url = "http://127.0.0.1:9178/metrics"
[[hosts]]
name = "gone"
uri = "qemu+unix:///system?socket=/run/none"
[ticks]
sample = "10 s"
decide = "20 s"
[observe]
call_deadline = "60 s"
stale_after = "5 min"
[models]
cost = "physics"
demand = "persistence"
"""
# an emulated machine is some thirty times slower than a real one
PATIENT = """[Service]
TimeoutStartSec=30min
WatchdogSec=0
"""
LAUNCHER = """#!/usr/bin/python3
import sys
sys.path.insert(0, "/opt/rebalancerd")
from rebalancerd.cli.app import main
main()
"""
CHECK = """[Unit]
Description=Asks whether the units of rebalancerd run
After=basic.target
[Service]
Type=simple
ExecStart=/usr/bin/python3 /opt/check.py
[Install]
WantedBy=multi-user.target
"""
IMAGE_MIB = 3500
MEMORY_MIB = 3072
NEEDED = ("debootstrap", "qemu-system-x86_64", "mkfs.ext4", "chroot")


def base(directory: Path) -> Path:
    """A fresh copy of the base system, made once."""
    kept, root = directory / "base", directory / "root"
    if not (directory / "base.complete").exists():
        shutil.rmtree(kept, ignore_errors=True)
        print(f"making a {SUITE} system in {kept}", flush=True)
        _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(kept))
        (directory / "base.complete").touch()
    shutil.rmtree(root, ignore_errors=True)
    _run("cp", "-a", "--reflink=auto", str(kept), str(root))
    return root


def install(root: Path) -> None:
    """The program as the guide installs it, its units, the polkit rules and the check."""
    place = root / "opt" / "rebalancerd"
    shutil.copytree(sysconfig.get_path("purelib"), place, symlinks=True,
                    ignore=shutil.ignore_patterns("*.pth", "__editable__*", "_rebalancerd*", "rebalancerd", "rebalancerd-*", "mypy*", "ruff*"))  # fmt: skip
    shutil.copytree(ROOT / "rebalancerd", place / "rebalancerd", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("models", "config", "systemd"):
        shutil.copytree(ROOT / name, place / "rebalancerd" / f"_{name}", ignore=shutil.ignore_patterns("data"))
    launcher = root / "usr" / "bin" / "rebalancerd"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    units = root / "etc" / "systemd" / "system"
    for path in (ROOT / "systemd").iterdir():
        if path.suffix in (".service", ".path"):
            shutil.copy(path, units)
    shutil.copy(ROOT / "systemd" / "rebalancerd.sysusers", root / "usr" / "lib" / "sysusers.d" / "rebalancerd.conf")
    shutil.copy(ROOT / "systemd" / "rebalancerd.tmpfiles", root / "usr" / "lib" / "tmpfiles.d" / "rebalancerd.conf")
    shutil.copy(ROOT / "config" / "polkit" / "50-rebalancerd.rules", root / "etc" / "polkit-1" / "rules.d")
    with (root / "etc" / "libvirt" / "libvirtd.conf").open("a") as stream:
        stream.write('access_drivers = [ "polkit" ]\n')
    settings = root / "etc" / "rebalancerd" / "rebalancerd.toml"
    settings.parent.mkdir()
    settings.write_text(CONFIGURATION)
    shutil.copy(Path(__file__).with_name("check.py"), root / "opt" / "check.py")
    (units / "check.service").write_text(CHECK)
    patience = units / "rebalancerd.service.d" / "emulated.conf"
    patience.parent.mkdir()
    patience.write_text(PATIENT)
    (root / "etc" / "fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (root / "etc" / "hostname").write_text("image\n")
    # the sandboxed program cannot keep what it compiles
    _run("chroot", str(root), "python3", "-m", "compileall", "-q", "-j", "2", "/opt/rebalancerd")
    _run("chroot", str(root), "systemd-sysusers")
    enabled = (
        "rebalancerd",
        "rebalancerd-agent",
        "rebalancerd-train.path",
        "check",
        "libvirtd.socket",
        "libvirtd-ro.socket",
    )
    _run("chroot", str(root), "systemctl", "--quiet", "enable", *enabled)


def boot(root: Path, directory: Path, seconds: float) -> str:
    """Everything the machine says on its console, until it powers off or the time is over."""
    disk = directory / "disk.img"
    disk.unlink(missing_ok=True)
    _run("mkfs.ext4", "-q", "-d", str(root), str(disk), f"{IMAGE_MIB}M")
    (kernel,), (initrd,) = (sorted((root / "boot").glob(f"{name}-*"))[-1:] for name in ("vmlinuz", "initrd.img"))
    argv = [
        "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB),
        "-nographic", "-no-reboot", "-nic", "none", "-kernel", str(kernel), "-initrd", str(initrd),
        "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe", "-append", "root=/dev/vda rw console=ttyS0 quiet",
    ]  # fmt: skip
    console = directory / "console.log"
    end = time.monotonic() + seconds
    with console.open("wb") as stream:
        machine = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        try:
            while machine.poll() is None and time.monotonic() < end:
                time.sleep(1.0)
                if b"RESULT end" in console.read_bytes():
                    break
        finally:
            machine.kill()
            machine.wait()
    return console.read_text(errors="replace")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def main() -> int:
    """0 if every question was answered well, 1 if not, 2 if the machine cannot be made here."""
    given = argparse.ArgumentParser(prog="python -m tests.image", description=__doc__)
    given.add_argument("--directory", type=Path, default=ROOT / ".image")
    given.add_argument("--seconds", type=float, default=3600.0, help="longest time for the machine")
    asked = given.parse_args()
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent or sys.version_info[:2] != (3, 11):
        print(f"cannot be made here: {', '.join(absent) or 'Debian 12 has Python 3.11'}", file=sys.stderr)
        return 2
    asked.directory.mkdir(parents=True, exist_ok=True)
    root = base(asked.directory)
    install(root)
    began = time.monotonic()
    told = boot(root, asked.directory, asked.seconds)
    results = re.findall(r"^RESULT (\w+) (ok|FAILED)(.*?)\s*$", told.replace("\r", ""), re.M)
    for name, result, detail in results:
        print(f"{name}: {result}{detail}")
    print(f"{time.monotonic() - began:.0f} s from power on to power off")
    wanted = {"daemon", "agent", "trainer", "stop", "exposure", "denied", "end"}
    good = {name for name, result, _ in results if result == "ok"}
    if wanted - good:
        print(f"not shown: {', '.join(sorted(wanted - good))}; see {asked.directory / 'console.log'}", file=sys.stderr)
    return 1 if wanted - good else 0


if __name__ == "__main__":
    raise SystemExit(main())
