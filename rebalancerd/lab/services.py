"""Processes that serve all hosts of a lab: lxcfs, and where lxcfs falls short, the lab's own view of CPU time."""

from __future__ import annotations

import sys
from pathlib import Path

from rebalancerd.lab import cpuview
from rebalancerd.lab.cgroup import Cgroup
from rebalancerd.lab.commands import LabError, start_detached, succeeds, wait_until

START_SECONDS = 20.0


def serve_lxcfs(state_dir: Path, services: Cgroup, hosts: dict[str, Cgroup]) -> Path:
    """Start an lxcfs of the lab's own, if it is not running, and return its proc directory.

    Args:
        state_dir: directory of the lab.
        services: cgroup for the process.
        hosts: cgroup of each host, by name.

    Raises:
        LabError: lxcfs does not start, or it ended while hosts are up.
    """
    mount, log = state_dir / "lxcfs", state_dir / "lxcfs.log"
    if not _answers(mount):
        if any(group.pids() for group in hosts.values()):
            raise LabError("lxcfs of this lab ended while its hosts are up; take the lab down and up again")
        succeeds(("umount", "--lazy", str(mount)))
        mount.mkdir(exist_ok=True)
        start_detached(log, *services.command_in("lxcfs", "-p", str(state_dir / "lxcfs.pid"), str(mount)))
        wait_until(lambda: _answers(mount), START_SECONDS, "lxcfs does not start", log)
    return mount / "proc"


def serve_cpu_view(state_dir: Path, services: Cgroup, hosts: dict[str, Cgroup]) -> Path | None:
    """Where no cgroup v1 tells CPU time by CPU, which is what lxcfs needs, start the lab's own view of it.

    Returns:
        Directory with a directory per host that has a ``stat`` file; None where lxcfs does it.

    Raises:
        LabError: the process does not start.
    """
    if any("cpuacct" in hierarchy.controllers for hierarchy in services.hierarchies):
        return None
    views = state_dir / "cpuview"
    arguments, files = [], []
    for name, group in hosts.items():
        (views / name).mkdir(parents=True, exist_ok=True)
        files.append(views / name / "stat")
        arguments.append(f"{files[-1]}={next(path for path in group.directories if (path / 'cpu.stat').exists())}")
    pid_file, log = views / "pid", views / "log"
    if not (pid_file.exists() and int(pid_file.read_text() or 0) in services.pids()):
        script = ("sh", "-c", 'echo $$ >"$1"; shift; exec "$@"', "sh", str(pid_file))
        start_detached(log, *services.command_in(*script, sys.executable, "-I", str(cpuview.__file__), *arguments))
        wait_until(lambda: all(file.exists() for file in files), START_SECONDS, "no view of CPU time", log)
    return views


def _answers(mount: Path) -> bool:
    try:
        return (mount / "proc" / "stat").read_text().startswith("cpu")
    except OSError:
        return False
