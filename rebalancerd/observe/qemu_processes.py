"""The guests that run on this host, told from the command lines of their QEMU processes.

Not from libvirt's files: pid files carry no UUID, status files are libvirt's own affair, and both lie elsewhere for
session daemons and in containers, while what was put on the command line is in /proc for every one of them. Whoever may
run a program on the host can write a command line, so it proves nothing: two processes with one UUID are both left
alone, and a curve is used only for a VM that libvirt lists there.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

PROC = Path("/proc")
MOST_COMMAND_BYTES = 1 << 20
MOST_MEMORY_BYTES = 1 << 50
_PROGRAM = re.compile(r"(?:.*/)?(?:qemu-system-[\w.-]+|qemu-kvm|qemu|kvm)")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SIZE = re.compile(r"(?:size=)?([0-9]{1,18})([bBkKmMgGtT]?)(?:,.*)?", re.S)
_BACKEND = re.compile(r'memory-backend-|.*"qom-type"\s*:\s*"memory-backend-', re.S)
_VCPU = re.compile(r"CPU [0-9]+/")  # libvirt has QEMU name its threads
_SHIFT = {"b": 0, "k": 10, "m": 20, "": 20, "g": 30, "t": 40}  # QEMU takes a bare number for MiB
_STARTED = 19  # field 22 of stat, counted from the one after the name


@dataclass(frozen=True, slots=True)
class QemuProcess:
    """A guest's process. ``started``: clock ticks after boot, by which a PID used again is told from the first one.

    ``fault``: why its memory is not measured, None if it may be.
    """

    pid: int
    started: int
    uuid: str
    memory_bytes: int
    fault: str | None = None


def running(proc: Path = PROC) -> tuple[QemuProcess, ...]:
    """Every guest, by UUID and PID; a process that ends meanwhile or is no guest is left out. Raises OSError without /proc."""
    found = []
    for entry in proc.iterdir():
        if entry.name.isascii() and entry.name.isdigit():
            process = _look(proc, int(entry.name))
            if process is not None:
                found.append(process)
    claims = Counter(process.uuid for process in found)
    twice = "several processes have this UUID"
    told = (replace(p, fault=twice) if claims[p.uuid] > 1 else p for p in found)
    return tuple(sorted(told, key=lambda p: (p.uuid, p.pid)))


def started_at(pid: int, proc: Path = PROC) -> int | None:
    """When a process started, clock ticks after boot; None if there is none of that PID."""
    try:
        text = (proc / str(pid) / "stat").read_text("ascii", "replace")
        return int(text.rpartition(")")[2].split()[_STARTED])  # the name before it may hold anything
    except (OSError, ValueError, IndexError):
        return None


def vcpu_nanoseconds(pid: int, proc: Path = PROC) -> int | None:
    """How long its vCPUs have run by now; None if that cannot be told.

    A guest that is paused, or waits for its incoming copy, looks quiet, and does not run.
    """
    total = None
    try:
        for task in (proc / str(pid) / "task").iterdir():
            if _VCPU.match((task / "comm").read_text("ascii", "replace")):
                total = (total or 0) + int((task / "schedstat").read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return total


def of_command(words: Sequence[str]) -> tuple[str, int, str | None] | None:
    """UUID, bytes of memory and fault of a QEMU command line; None if it is not one, or names no one UUID."""
    if not words or not _PROGRAM.fullmatch(words[0]):
        return None
    uuids = {value.lower() for value in _values(words, "uuid") if _UUID.fullmatch(value)}
    if len(uuids) != 1:
        return None
    sizes = {size for value in _values(words, "m") if (size := _bytes(value)) is not None}
    memory = sizes.pop() if len(sizes) == 1 else 0
    backends = sum(bool(_BACKEND.match(value)) for value in _values(words, "object"))
    fault = None
    if not memory:
        fault = "its command line tells no size of memory"
    elif backends > 1:
        fault = f"its memory is in {backends} parts"
    return uuids.pop(), memory, fault


def _look(proc: Path, pid: int) -> QemuProcess | None:
    try:
        with (proc / str(pid) / "cmdline").open("rb") as file:
            line = file.read(MOST_COMMAND_BYTES + 1)
    except OSError:
        return None
    if len(line) > MOST_COMMAND_BYTES:
        return None
    told = of_command(line.decode("utf-8", "replace").split("\0"))
    started = started_at(pid, proc)
    if told is None or started is None:
        return None
    uuid, memory_bytes, fault = told
    return QemuProcess(pid, started, uuid, memory_bytes, fault)


def _values(words: Sequence[str], option: str) -> list[str]:
    return [value for word, value in pairwise(words) if word in (f"-{option}", f"--{option}")]


def _bytes(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    size = int(match[1]) << _SHIFT[match[2].lower()]
    return size if 0 < size <= MOST_MEMORY_BYTES else None
