"""A real polkitd, and on demand a real libvirtd that asks it for every call, in a mount namespace of their own.

The shipped rules file is all that lies in /etc/polkit-1/rules.d there. Accounts of these tests exist in that namespace only.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

RULES = Path(__file__).parents[2] / "config" / "polkit" / "50-rebalancerd.rules"
POLKITD = Path("/usr/lib/polkit-1/polkitd")
ACTIONS = Path("/usr/share/polkit-1/actions/org.libvirt.api.policy")
UIDS = {"rebalancerd": 4711, "rebalancerd-observe": 4712, "somebody": 4713}
START_SECONDS = 60.0
EMPTY = ("/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/etc/libvirt")

BUS = """<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>"""

SCRIPT = """set -e
mount -t tmpfs none /etc/polkit-1/rules.d
cp {room}/under-test.rules /etc/polkit-1/rules.d/50-rebalancerd.rules
chmod 644 /etc/polkit-1/rules.d/50-rebalancerd.rules
mount --bind {room}/passwd /etc/passwd
mount --bind {room}/group /etc/group
for place in {empty}; do mkdir -p $place; mount -t tmpfs none $place; done
export DBUS_SYSTEM_BUS_ADDRESS=unix:path={room}/bus LC_ALL=C
echo $$ >{room}/pid
dbus-daemon --config-file={room}/bus.conf --nofork --nopidfile &
until [ -S {room}/bus ]; do sleep 0.05; done
{polkitd} --replace >{room}/polkitd.log 2>&1 &
until dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetNameOwner \\
    string:org.freedesktop.PolicyKit1 >/dev/null 2>&1; do sleep 0.05; done
: >{room}/ready
wait
"""

LIBVIRTD = """listen_tls = 0
listen_tcp = 0
auth_unix_ro = "polkit"
auth_unix_rw = "polkit"
access_drivers = [ "polkit" ]
"""

QEMU = """user = "root"
group = "root"
security_driver = "none"
remember_owner = 0
"""


def missing() -> str | None:
    """Why polkit cannot be run here, None if it can."""
    if os.geteuid() != 0:
        return "polkitd and its accounts need root"
    needed = ("dbus-daemon", "dbus-send", "pkcheck", "unshare", "nsenter", "setpriv")
    absent = [name for name in needed if shutil.which(name) is None]
    absent += [str(path) for path in (POLKITD, ACTIONS) if not path.exists()]
    if absent:
        return (
            f"not installed: {', '.join(absent)} (packages polkitd, pkexec or policykit-1, dbus, libvirt-daemon-system)"
        )
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"no mount namespace can be made: {tried.stderr.strip()}" if tried.returncode else None


@dataclass(frozen=True)
class PolkitRoom:
    """A running polkitd; ``pid`` holds its namespace."""

    directory: Path
    pid: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *argv: str) -> list[str]:
        """A command that runs inside."""
        bus = f"DBUS_SYSTEM_BUS_ADDRESS=unix:path={self.directory}/bus"
        return ["nsenter", f"--target={self.pid}", "--mount", "--", "env", bus, "LC_ALL=C", *argv]

    @contextmanager
    def account(self, name: str) -> Iterator[str]:
        """A process of that account as pkcheck wants it named: process, start, user."""
        uid = str(UIDS[name])
        idle = subprocess.Popen(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "sleep", "600"])
        try:
            while f"Uid:\t{uid}\t{uid}" not in Path(f"/proc/{idle.pid}/status").read_text():
                time.sleep(0.01)
            start = Path(f"/proc/{idle.pid}/stat").read_text().rpartition(")")[2].split()[19]
            yield f"{idle.pid},{start},{uid}"
        finally:
            idle.kill()
            idle.wait()

    def allows(self, subject: str, action: str, **details: str) -> bool:
        """What polkitd answers without asking anybody for a password."""
        given = [part for key, value in details.items() for part in ("--detail", key, value)]
        asked = subprocess.run(
            self.command("pkcheck", "--action-id", action, "--process", subject, *given),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # 1 not authorised, 2 a person would be asked, 3 one was and declined; anything else is no answer
        assert asked.returncode in (0, 1, 2, 3), asked.stderr
        assert "Error" not in asked.stderr, asked.stderr
        return asked.returncode == 0

    def start_libvirtd(self) -> None:
        """Start a libvirtd that asks polkit for every call."""
        conf = self.directory / "libvirtd.conf"
        conf.write_text(LIBVIRTD)
        qemu_conf = Path(f"/proc/{self.pid}/root/etc/libvirt/qemu.conf")
        qemu_conf.write_text(QEMU)
        # one CPU and one emulator: libvirt probes QEMU again whenever it finds itself on a CPU with another CPUID
        bin_directory = self.directory / "bin"
        bin_directory.mkdir()
        (bin_directory / "qemu-system-x86_64").symlink_to("/usr/bin/qemu-system-x86_64")
        within = (
            "taskset",
            "--cpu-list",
            str(min(os.sched_getaffinity(0))),
            "env",
            f"PATH={bin_directory}:/usr/sbin:/sbin",
        )
        daemon = self.command(
            *within, "/usr/sbin/libvirtd", "--config", str(conf), "--pid-file", "/run/libvirt/libvirtd.pid"
        )
        with (self.directory / "libvirtd.log").open("wb") as log:
            self.started.append(subprocess.Popen(daemon, stdout=log, stderr=log))
        sockets = Path(f"/proc/{self.pid}/root/run/libvirt")
        self._wait((sockets / "libvirt-sock-ro").exists, "libvirtd")

    def _wait(self, there: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + START_SECONDS
        while not there():
            assert time.monotonic() < until, f"{what} did not start: {self.told()}"
            time.sleep(0.05)

    def told(self) -> str:
        """What the daemons inside printed."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.directory.glob("*.log")))


@contextmanager
def polkit_room(rules: str | None = None) -> Iterator[PolkitRoom]:
    """polkitd with the shipped rules, or others."""
    with TemporaryDirectory(prefix="rl-polkit-") as made:
        room = Path(made)
        room.chmod(0o755)
        (room / "under-test.rules").write_text(RULES.read_text() if rules is None else rules)
        (room / "bus.conf").write_text(BUS.format(path=room / "bus"))
        accounts = "".join(f"{name}:x:{uid}:{uid}::/nonexistent:/bin/sh\n" for name, uid in UIDS.items())
        (room / "passwd").write_text(Path("/etc/passwd").read_text() + accounts)
        (room / "group").write_text(_with_members(Path("/etc/group").read_text()))
        script = room / "start.sh"
        script.write_text(SCRIPT.format(room=room, polkitd=POLKITD, empty=" ".join(EMPTY)))
        # a PID namespace as well would hide the clients from polkitd; killing the session ends all that was started
        argv = ["unshare", "--mount", "--propagation", "private", "--", "bash", str(script)]
        with (room / "start.log").open("wb") as log:
            holder = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        found = PolkitRoom(room, holder.pid)
        try:
            found._wait((room / "ready").exists, "polkitd")
            yield found
        finally:
            _end(holder, found.started)


def _with_members(group: str) -> str:
    """Both accounts in the group libvirt, which by Debian's own rule may do everything."""
    lines = []
    for line in group.splitlines():
        comma = "" if line.endswith(":") else ","
        lines.append(f"{line}{comma}rebalancerd,rebalancerd-observe" if line.startswith("libvirt:") else line)
    lines += [f"{name}:x:{uid}:" for name, uid in UIDS.items()]
    return "\n".join(lines) + "\n"


def _end(holder: subprocess.Popen[bytes], started: list[subprocess.Popen[bytes]]) -> None:
    """End what was started inside: everything whose mount namespace is the room's."""
    try:
        ours = Path(f"/proc/{holder.pid}/ns/mnt").readlink()
    except OSError:
        ours = None
    for proc in Path("/proc").iterdir():
        try:
            if ours and proc.name.isdigit() and int(proc.name) != holder.pid and (proc / "ns/mnt").readlink() == ours:
                os.kill(int(proc.name), 9)
        except OSError:
            continue
    holder.kill()
    for child in (holder, *started):
        child.wait()
