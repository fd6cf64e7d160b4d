"""Control groups of the lab, on cgroup v1, v2 or both mounted at once (each controller is in one of them only)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rebalancerd.lab.commands import LabError

CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory")
_CPU_PERIOD_US = 100_000


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup file system.

    Args:
        mount: where it is mounted.
        version: 1 or 2.
        controllers: those of `CONTROLLERS` that it has.
    """

    mount: Path
    version: int
    controllers: frozenset[str]


def mounted_hierarchies(mountinfo: str | None = None) -> tuple[Hierarchy, ...]:
    """Find the cgroup file systems that have a controller the lab uses.

    Args:
        mountinfo: text of /proc/self/mountinfo; read from there by default.

    Raises:
        LabError: the cpu or the memory controller is in none of them.
    """
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    found: dict[frozenset[str], Hierarchy] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        mount, kind, options = Path(left.split()[4]), right.split()[0], right.split()[2].split(",")
        if kind == "cgroup":
            names = frozenset(options) & frozenset(CONTROLLERS)
        elif kind == "cgroup2" and (mount / "cgroup.controllers").exists():
            names = frozenset((mount / "cgroup.controllers").read_text().split()) & frozenset(CONTROLLERS)
        else:
            continue
        if names:
            found.setdefault(names, Hierarchy(mount, 1 if kind == "cgroup" else 2, names))
    have = frozenset().union(*found)
    for needed in ("cpu", "memory"):
        if needed not in have:
            raise LabError(f"no mounted cgroup file system has the {needed} controller")
    return tuple(found.values())


@dataclass(frozen=True)
class Cgroup:
    """One group of processes, the same path in every hierarchy that matters.

    Args:
        path: relative to the mount points, such as ``rebalancerd-lab-x/h1``.
        hierarchies: where to make it.
    """

    path: str
    hierarchies: tuple[Hierarchy, ...]

    @property
    def directories(self) -> tuple[Path, ...]:
        """Its directory in each hierarchy."""
        return tuple(hierarchy.mount / self.path for hierarchy in self.hierarchies)

    def siblings(self) -> frozenset[str]:
        """Names of the other groups beside it that begin like it, up to the last dash."""
        name = Path(self.path).name
        prefix = name.rpartition("-")[0]
        return frozenset(path.name for at in self.directories for path in at.parent.glob(f"{prefix}-*")) - {name}

    def create(self) -> None:
        """Make the group, and the ones above it, if they are not there.

        Raises:
            LabError: the kernel refuses, for example because this process is confined to a part of the tree.
        """
        for hierarchy in self.hierarchies:
            at = hierarchy.mount
            for part in Path(self.path).parts:
                try:
                    if hierarchy.version == 2:
                        _delegate(at, hierarchy.controllers)
                    (at / part).mkdir(exist_ok=True)
                    if hierarchy.version == 1 and "cpuset" in hierarchy.controllers:
                        for name in (
                            "cpuset.cpus",
                            "cpuset.mems",
                        ):  # empty in a new group, and then it takes no process
                            (at / part / name).write_text((at / name).read_text())
                except OSError as error:
                    raise LabError(f"cannot make cgroup {at / part}: {error.strerror}") from error
                at /= part

    def limit(self, cpu_cores: float, memory_bytes: int) -> None:
        """Limit the group: CPU seconds per second, and bytes of memory.

        Raises:
            LabError: the kernel refuses the limit.
        """
        quota = round(cpu_cores * _CPU_PERIOD_US)
        for hierarchy in self.hierarchies:
            values: dict[str, str] = {}
            if "cpu" in hierarchy.controllers:
                values |= (
                    {"cpu.max": f"{quota} {_CPU_PERIOD_US}"}
                    if hierarchy.version == 2
                    else {"cpu.cfs_period_us": str(_CPU_PERIOD_US), "cpu.cfs_quota_us": str(quota)}
                )
            if "memory" in hierarchy.controllers:
                name = "memory.max" if hierarchy.version == 2 else "memory.limit_in_bytes"
                values |= {name: str(memory_bytes)}
            for name, value in values.items():
                try:
                    (hierarchy.mount / self.path / name).write_text(value)
                except OSError as error:
                    raise LabError(f"cannot set {name} of cgroup {self.path}: {error.strerror}") from error

    def command_in(self, *argv: str) -> tuple[str, ...]:
        """Wrap a command so that it joins the group before anything else, and does not run if it cannot."""
        files = [str(directory / "cgroup.procs") for directory in self.directories]
        script = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1" || exit 70; shift; n=$((n - 1)); done; exec "$@"'
        return ("sh", "-c", script, "sh", str(len(files)), *files, *argv)

    def pids(self) -> frozenset[int]:
        """Processes in the group and in the groups below it."""
        found: set[int] = set()
        for top in self.directories:
            for directory in _tree(top):
                try:
                    found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
                except OSError:
                    continue  # removed while we looked
        return frozenset(found - {0})

    def kill(self, pid: int, number: int = signal.SIGKILL, timeout: float = 10.0) -> None:
        """Send a signal to a process of the group, and wait for its end if the signal is one that ends it.

        Raises:
            LabError: the process is not in the group, or still there after `timeout` seconds.
        """
        if pid not in self.pids():
            raise LabError(f"process {pid} is not in cgroup {self.path}")
        os.kill(pid, number)
        deadline = time.monotonic() + timeout
        while number in (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT) and pid in self.pids():
            if time.monotonic() > deadline:
                raise LabError(f"process {pid} is still there {timeout:g} s after signal {number}")
            time.sleep(0.02)

    def cpu_seconds(self) -> float:
        """CPU time the group has used, seconds; 0 if it is not there."""
        for directory in self.directories:
            for name, key, unit in (("cpuacct.usage", "", 1e-9), ("cpu.stat", "usage_usec", 1e-6)):
                try:
                    lines = (directory / name).read_text().splitlines()
                except OSError:
                    continue
                for line in lines:
                    if line.startswith(key):
                        return int(line.split()[-1]) * unit
        return 0.0

    def remove(self, timeout: float = 20.0) -> None:
        """Kill every process in the group and below and remove the groups; nothing happens if they are gone.

        Raises:
            LabError: something is still there after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        # In the order in which processes join: one that has not joined the first hierarchy yet can then join none.
        for top in self.directories:
            while top.exists():
                for pid in self.pids():
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                for directory in sorted(_tree(top), reverse=True):
                    try:
                        directory.rmdir()
                    except OSError:
                        continue  # busy: a process is still ending
                if time.monotonic() > deadline:
                    raise LabError(f"cgroup {top} cannot be removed; processes in it: {sorted(self.pids())}")
                time.sleep(0.02)


def _tree(top: Path) -> Iterator[Path]:
    for directory, _, _ in os.walk(top):
        yield Path(directory)


def _delegate(directory: Path, controllers: frozenset[str]) -> None:
    wanted = controllers - frozenset((directory / "cgroup.subtree_control").read_text().split())
    if wanted:
        (directory / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))
