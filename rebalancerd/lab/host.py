"""One host of a lab: a process that holds its namespaces, a cgroup with its limits, and a libvirtd of its own inside both."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rebalancerd.lab.cgroup import Cgroup
from rebalancerd.lab.commands import LabError, run, start_detached, wait_until
from rebalancerd.lab.domain import CHANNEL_DIR, CONSOLE_DIR, EMULATOR
from rebalancerd.lab.network import Link, remove_link

if TYPE_CHECKING:
    import libvirt

START_SECONDS = 60.0
_CAPABILITIES = Path("cache/qemu/capabilities")
# What a program on a host may read about the host; libvirt reads stat and meminfo.
PROC_FILES = ("stat", "meminfo", "loadavg", "uptime", "cpuinfo", "swaps", "diskstats")
# directory below the host's own -> where the host sees it
BINDS = {
    "etc": "/etc/libvirt",
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
}


@dataclass(frozen=True)
class LabHost:
    """A host, as a client sees it.

    Args:
        name: ``h1``, ``h2``, ...; also its hostname.
        number: 1, 2, ...
        address: its IPv4 address on the migration network.
        directory: where its configuration, sockets and logs are.
        host_uuid: the UUID its libvirtd reports.
        cpu_quota_cores: CPU seconds per second that it has. libvirt reports all CPUs of the machine, so what the host
            can really use has to be taken from here.
        memory_limit_bytes: memory that it has, guests and libvirtd together.
        cgroup: all of its processes.
        port: interface of the bridge it is attached to.
    """

    name: str
    number: int
    address: str
    directory: Path
    host_uuid: str
    cpu_quota_cores: float
    memory_limit_bytes: int
    cgroup: Cgroup
    port: str

    @property
    def uri(self) -> str:
        """Libvirt URI for this machine, read and write."""
        return f"qemu+unix:///system?socket={self.directory}/run/libvirt-sock"

    @property
    def ro_uri(self) -> str:
        """Libvirt URI for this machine by the read-only socket: libvirtd itself refuses any change through it."""
        return f"qemu+unix:///system?socket={self.directory}/run/libvirt-sock-ro"

    @property
    def peer_uri(self) -> str:
        """Libvirt URI by which another host of the lab reaches this one (the destination of a migration)."""
        return f"qemu+tcp://{self.address}/system"

    @property
    def migration_address(self) -> str:
        """Address for migration data; give ``tcp://<address>`` as the migration URI."""
        return self.address

    @property
    def link(self) -> Link:
        """Its cable. Only for a host that is up.

        Raises:
            LabError: the host is not up.
        """
        pid = self.holder_pid()
        if pid is None:
            raise LabError(f"host {self.name} is not up")
        return Link(port=self.port, holder_pid=pid)

    def holder_pid(self) -> int | None:
        """Process that keeps the host's namespaces, None if the host is not up."""
        return self._pid(self.directory / "holder.pid")

    def libvirtd_pid(self) -> int | None:
        """Process id of the host's libvirtd, None if it is not running."""
        return self._pid(self.directory / "run" / "libvirtd.pid")

    def responsive(self) -> bool:
        """Whether its libvirtd runs and is not stopped by a signal (a client of a stopped one waits for ever)."""
        pid = self.libvirtd_pid()
        try:
            return pid is not None and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TtZX"
        except OSError:
            return False

    def command_on(self, *argv: str) -> tuple[str, ...]:
        """Wrap a command so that it runs on the host: its cgroup, network, hostname, /proc figures and libvirt sockets.

        Raises:
            LabError: the host is not up.
        """
        enter = ("nsenter", f"--target={self.link.holder_pid}", "--mount", "--uts", "--net", "--")
        return self.cgroup.command_in(*enter, *argv)

    def start(self, proc_dirs: tuple[Path, ...], hosts_text: str) -> None:
        """Start the process that holds the host's namespaces, if it is not there; the network and libvirtd come after.

        Args:
            proc_dirs: directories with files to show in /proc, the first that has one wins.
            hosts_text: the host's /etc/hosts.

        Raises:
            LabError: the host does not come up in time.
        """
        if self.holder_pid() is not None:
            return
        for name in BINDS:
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "run" / Path(CHANNEL_DIR).name).mkdir(exist_ok=True)
        (self.directory / "log" / Path(CONSOLE_DIR).name).mkdir(exist_ok=True)
        (self.directory / "etc" / "libvirtd.conf").write_text(self._libvirtd_conf())
        (self.directory / "etc" / "qemu.conf").write_text(_QEMU_CONF)
        (self.directory / "hosts").write_text(hosts_text)
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        script = self.directory / "start.sh"
        script.write_text(_start_script(self, proc_dirs))
        log = self.directory / "start.log"
        inside = self.cgroup.command_in("unshare", "--mount", "--uts", "--net", "--", "sh", str(script))
        start_detached(log, *inside)
        wait_until(ready.exists, START_SECONDS, f"host {self.name} does not come up", log)

    def give_limits(self) -> None:
        """Make its cgroup, if it is not there, and limit it.

        Raises:
            LabError: the kernel refuses.
        """
        self.cgroup.create()
        self.cgroup.limit(self.cpu_quota_cores, self.memory_limit_bytes)

    def power_off(self) -> None:
        """End libvirtd in good order and then all else on the host, and take its cable out; nothing happens if it is off.

        Raises:
            LabError: something cannot be ended.
        """
        if self.libvirtd_pid() is not None:
            self.kill_libvirtd(signal.SIGTERM)
        self.cgroup.remove()
        remove_link(self.port)

    def start_libvirtd(self) -> None:
        """Start libvirtd if it is not running, and wait until it answers; guests that run already are taken over.

        It starts on one CPU, the same for every host, and may use all of them afterwards: libvirt takes the CPUID leaves
        of the CPU on which it starts, the topology's among them, for the host's own, and drops what `learn_emulator`
        gave it if they differ (seen: a first `getCapabilities` of 8 s on every other host).

        Raises:
            LabError: it does not start, with the end of its log.
        """
        if self.libvirtd_pid() is not None:
            return
        # no system bus: a machined of this machine would put the guests in a cgroup of its own
        environment = ("env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent", "LC_ALL=C")
        cpus = os.sched_getaffinity(0)
        one_cpu = ("taskset", "--cpu-list", str(min(cpus)))
        daemon = ("libvirtd", "--daemon", "--listen", "--pid-file", "/run/libvirt/libvirtd.pid")
        try:
            run(*self.command_on(*environment, *one_cpu, *daemon), timeout=START_SECONDS)
            with self.connected():
                self._spread_libvirtd(cpus)
        except LabError as error:
            log = self.directory / "log" / "libvirtd.log"
            tail = log.read_text(errors="replace").strip().splitlines()[-5:] if log.exists() else []
            raise LabError("\n".join([f"libvirtd of {self.name} does not start: {error}", *tail])) from error

    def _spread_libvirtd(self, cpus: set[int]) -> None:
        """Let every thread of libvirtd run on these CPUs; threads and processes to come do as those that make them."""
        pid = self.libvirtd_pid()
        for thread in Path(f"/proc/{pid}/task").iterdir() if pid else ():
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(thread.name), cpus)

    def learn_emulator(self, cache_dir: Path, others: tuple[LabHost, ...]) -> None:
        """Give this host and others what libvirt knows about QEMU, so that each need not find out itself.

        Measured: finding out takes 8 s of a host with 0.6 cores. libvirt checks what it is given, and finds out anew
        after an upgrade; the cache then learns from it.

        Args:
            cache_dir: where it is kept between labs.
            others: the hosts to give it to after this one.

        Raises:
            LabError: libvirtd cannot tell about QEMU.
        """
        kept, own = cache_dir / "qemu-capabilities", self.directory / _CAPABILITIES
        if not own.exists():
            _copy_files(kept, own)
        with self.connected() as connection:
            connection.getCapabilities()  # asks every QEMU of the machine, as a client's first look would
            connection.getDomainCapabilities(EMULATOR, "x86_64", None, "qemu")
        _copy_files(own, kept)
        for other in others:
            if not (other.directory / _CAPABILITIES).exists():
                _copy_files(own, other.directory / _CAPABILITIES)

    def kill_libvirtd(self, number: int = signal.SIGKILL) -> None:
        """Send libvirtd a signal; its guests go on.

        Raises:
            LabError: it is not running, or does not end of a signal that should end it.
        """
        pid = self.libvirtd_pid()
        if pid is None:
            raise LabError(f"libvirtd of {self.name} is not running")
        self.cgroup.kill(pid, number)

    @contextmanager
    def connected(self) -> Iterator[libvirt.virConnect]:
        """Connect to the host's libvirtd for as long as the context lasts.

        Raises:
            LabError: libvirtd does not answer, or a call within the context failed.
        """
        import libvirt

        if not self.responsive():
            raise LabError(f"libvirtd of {self.name} is not running")
        libvirt.registerErrorHandler(_ignore_message, None)  # errors are raised; libvirt would print them as well
        try:
            connection = libvirt.open(self.uri)
            try:
                yield connection
            finally:
                connection.close()
        except libvirt.libvirtError as error:
            raise LabError(f"libvirtd of {self.name}: {error.get_error_message()}") from error

    def _pid(self, file: Path) -> int | None:
        try:
            pid = int(file.read_text())
        except (OSError, ValueError):
            return None
        return pid if pid in self.cgroup.pids() else None  # never a process that only has the same number

    def _libvirtd_conf(self) -> str:
        rows = (
            "listen_tls = 0",
            "listen_tcp = 1",
            'auth_tcp = "none"',
            'auth_unix_rw = "none"',
            'auth_unix_ro = "none"',
        )
        own = (f'host_uuid = "{self.host_uuid}"', 'unix_sock_rw_perms = "0700"', 'unix_sock_ro_perms = "0777"')
        return "\n".join((*rows, *own, 'log_outputs = "2:file:/var/log/libvirt/libvirtd.log"', ""))


def _copy_files(source: Path, target: Path) -> None:
    """Copy the files of a directory, if there is one, where they differ."""
    for path in source.glob("*.xml"):
        copy, content = target / path.name, path.read_bytes()
        if not copy.exists() or copy.read_bytes() != content:
            target.mkdir(parents=True, exist_ok=True)
            part = copy.with_suffix(".part")
            part.write_bytes(content)
            part.replace(copy)


def _ignore_message(_context: object, _error: object) -> None:
    pass


_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
# keeps QEMU in the cgroup of the host
cgroup_controllers = []
namespaces = []
remember_owner = 0
# needs no virtlogd
stdio_handler = "file"
"""


def _start_script(host: LabHost, proc_dirs: tuple[Path, ...]) -> str:
    """Shell script run in new namespaces: show the host its own files, then hold the namespaces open."""
    binds = {str(host.directory / name): target for name, target in BINDS.items()}
    binds[str(host.directory / "hosts")] = "/etc/hosts"
    for name in PROC_FILES:
        for directory in proc_dirs:
            if (directory / name).exists():
                binds[str(directory / name)] = f"/proc/{name}"
                break
    lines = [f"mount --bind {quote(source)} {target}" for source, target in binds.items()]
    lines += [f"hostname {host.name}", "ip link set lo up"]
    files = {name: quote(str(host.directory / name)) for name in ("holder.pid", "ready")}
    lines += [f"echo $$ >{files['holder.pid']}", f": >{files['ready']}", "exec sleep infinity"]
    return "\n".join(["set -e", *lines, ""])
