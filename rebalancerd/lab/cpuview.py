"""A /proc/stat per host where lxcfs has none: on cgroup v2 lxcfs shows the whole machine's CPU time to every host.

Runs as a process of the lab (``python cpuview.py FILE=CGROUP ...``) and rewrites, four times a second, one
file per host that is bound over its /proc/stat.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

PERIOD_SECONDS = 0.25
WIDTH = 160


def stat_text(machine_stat: str, user_seconds: float, system_seconds: float, since_seconds: float, ticks: int) -> str:
    """Write a /proc/stat of a host that used this CPU time, idle for the rest, evenly over the machine's CPUs.

    Args:
        machine_stat: the machine's own /proc/stat, for the number of CPUs and the lines that are not about CPUs.
        user_seconds: CPU time of the host in user mode.
        system_seconds: CPU time of the host in kernel mode.
        since_seconds: time since the machine was booted.
        ticks: clock ticks per second.
    """
    lines = machine_stat.splitlines()
    cpus = [line.split()[0] for line in lines if line.startswith("cpu") and not line.startswith("cpu ")]

    def row(name: str, share: float) -> str:
        user, system = user_seconds * share, system_seconds * share
        idle = max(0.0, since_seconds * share * len(cpus) - user - system)
        return f"{name} {user * ticks:.0f} 0 {system * ticks:.0f} {idle * ticks:.0f} 0 0 0 0 0 0".ljust(WIDTH - 1)

    rows = [row("cpu ", 1.0), *(row(cpu, 1.0 / len(cpus)) for cpu in cpus)]
    rest = [line for line in lines if line.startswith(("ctxt", "btime", "processes", "procs_running", "procs_blocked"))]
    return "\n".join([*rows, *(line.ljust(WIDTH - 1) for line in rest)]) + "\n"


def cgroup_cpu_seconds(directory: Path) -> tuple[float, float]:
    """CPU time of a cgroup (v2) in user and in kernel mode, seconds."""
    values = dict(line.split() for line in (directory / "cpu.stat").read_text().splitlines())
    return int(values["user_usec"]) / 1e6, int(values["system_usec"]) / 1e6


def write_once(views: dict[Path, Path], machine_stat: Path = Path("/proc/stat")) -> None:
    """Rewrite each file from its cgroup, in place (a new file would not show under the mount)."""
    text, ticks = machine_stat.read_text(), os.sysconf("SC_CLK_TCK")
    for file, directory in views.items():
        try:
            user, system = cgroup_cpu_seconds(directory)
        except OSError:
            continue  # the host is being taken down
        content = stat_text(text, user, system, time.monotonic(), ticks).encode()
        handle = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(handle, content, 0)
        finally:
            os.close(handle)


def main(arguments: list[str]) -> None:
    """Rewrite the files until killed."""
    views = {Path(file): Path(directory) for file, _, directory in (item.partition("=") for item in arguments)}
    while True:
        write_once(views)
        time.sleep(PERIOD_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
