"""An exact-enough dirty curve from outside: thousands of a guest's pages read again and again from its QEMU process.

libvirt's calculation looks at 512 pages a GiB and knows whole seconds only, so how fast a guest dirties memory within
the allowed downtime, which decides whether a pre-copy ends, is not seen. On the guest's own host its RAM is a mapping of
the QEMU process; reading 4096 random pages takes some 20 ms and disturbs nothing: pages that do not exist, are swapped
out or have not arrived yet (post-copy) are never read, so that none is made, brought back or fetched by looking. What is
compared is content, so a write that puts the value that was there is missed, as it is by libvirt. Needs the right to
read another process's memory: root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (``mem`` and ``pagemap`` are their
owner's alone).
"""

import os
import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.cluster.units import MIB, PAGE_BYTES
from rebalancerd.observe.dirty_pool import Sampling

PERIODS_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
PAGES = 4096
LEAST_BYTES = 16 * MIB  # no guest's RAM is smaller
MERGED_BYTES = 64 * MIB  # no more than that is merged with it: a mapping larger still is another thing
LATE = 1.5  # times the period
BY_PAGES = Sampling(lambda memory: min(PAGES, memory / PAGE_BYTES), 0.0)
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (rw..) ")
_HOST_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_ENTRY_BYTES = 8  # of pagemap, whose highest bit says that the page is there (Documentation/admin-guide/mm/pagemap.rst)
_ABSENT = -1


class MemoryUnreadableError(Exception):
    """The process's memory cannot be read, or no mapping of it can be the guest's RAM; the text says which."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A stretch of a process's address space, bytes."""

    start: int
    size: int


def ram_mapping(maps: str, memory_bytes: int) -> Mapping:
    """The mapping that holds a guest's RAM: the writable one of its size, else the smallest that is a little larger.

    ``maps``: content of ``/proc/PID/maps``. A size that only several neighbours have together counts too: the kernel
    splits a mapping where a part has a policy of its own. Raises MemoryUnreadableError if none is, or if several could
    be: what is not the guest's RAM may be quiet while the guest is not.
    """
    alone, joined = _writable(maps)
    wanted = max(memory_bytes, LEAST_BYTES)
    exact = {m for m in alone if m.size == wanted} or {m for m in joined if m.size == wanted}
    larger = [m for m in alone if wanted < m.size <= wanted + MERGED_BYTES]
    smallest = min((m.size for m in larger), default=0)
    found = exact or {m for m in larger if m.size == smallest}
    if not found:
        raise MemoryUnreadableError(f"no mapping of {memory_bytes} bytes")
    if len(found) > 1:
        raise MemoryUnreadableError(f"{len(found)} mappings could be its {memory_bytes} bytes")
    return found.pop()


def _writable(maps: str) -> tuple[list[Mapping], list[Mapping]]:
    """Writable mappings as they are listed, and with neighbours of the same kind put together."""
    alone: list[Mapping] = []
    joined: list[Mapping] = []
    kind = ""
    for line in maps.splitlines():
        match = _MAPPING.match(line)
        if not match:
            kind = ""
            continue
        start, end = int(match[1], 16), int(match[2], 16)
        alone.append(Mapping(start, end - start))
        last = joined[-1] if joined else None
        if last is not None and match[3] == kind and last.start + last.size == start:
            joined[-1] = Mapping(last.start, end - last.start)
        else:
            joined.append(alone[-1])
        kind = match[3]
    return alone, joined


def measure(
    pid: int,
    memory_bytes: int,
    *,
    monotonic: Callable[[], float],
    wall: Callable[[], float],
    sleep: Callable[[float], None],
    periods: Sequence[float] = PERIODS_SECONDS,
    pages: int = PAGES,
    seed: int = 0,
    proc: Path = Path("/proc"),
) -> tuple[DirtyReading, ...]:
    """Read pages of a running guest now and after each period; one reading for each period that was not missed by far.

    A reading that comes late (a busy host) has the rate of its own length, so that equal periods can be pooled; one that
    comes much too late is left out, because by that rate a guest that rewrites the same pages looks quieter than it is.
    Takes the longest period. A page that appears or goes has changed. Raises MemoryUnreadableError, also where the
    process ends meanwhile.
    """
    count = min(pages, memory_bytes // PAGE_BYTES)
    if count < 1:
        raise MemoryUnreadableError(f"{memory_bytes} bytes are no guest's memory")
    with _Memory(pid, memory_bytes, proc) as memory:
        draw = random.Random(seed)  # noqa: S311 - which pages, no secret
        chosen = sorted(draw.sample(range(memory_bytes // PAGE_BYTES), count))
        begun = monotonic()
        before = memory.sums(chosen)
        there = any(value != _ABSENT for value in before)
        readings = []
        for period in sorted(periods):
            sleep(max(0.0, begun + period - monotonic()))
            length = monotonic() - begun
            now = memory.sums(chosen)
            there = there or any(value != _ABSENT for value in now)
            changed = sum(a != b for a, b in zip(before, now, strict=True))
            unique = changed / count * memory_bytes
            if length <= LATE * period:
                rate = unique / length
                readings.append(DirtyReading(taken_at=wall(), period_seconds=period, rate_bytes_per_second=rate))
    if not there:  # a guest that runs has touched some of its memory
        raise MemoryUnreadableError(f"none of {count} pages exists")
    return tuple(readings)


class _Memory:
    """The guest's RAM in a process, open for reading. Every failure is a MemoryUnreadableError."""

    def __init__(self, pid: int, memory_bytes: int, proc: Path) -> None:
        self._pid = pid
        self._open: list[int] = []
        directory = proc / str(pid)
        try:
            maps = (directory / "maps").read_text("utf-8", "replace")
            for name in ("mem", "pagemap"):
                self._open.append(os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC))
            # the guest's RAM begins the mapping; what was merged with it, if anything, follows
            self._start = ram_mapping(maps, memory_bytes).start
        except OSError as error:
            self._close()
            raise self._unreadable(error) from error
        except MemoryUnreadableError:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def sums(self, pages: Sequence[int]) -> list[int]:
        """A checksum of each page, by its number from the start of RAM."""
        try:
            return [self._sum(self._start + page * PAGE_BYTES) for page in pages]
        except OSError as error:
            raise self._unreadable(error) from error

    def _sum(self, address: int) -> int:
        memory, pagemap = self._open
        entry = os.pread(pagemap, _ENTRY_BYTES, address // _HOST_PAGE_BYTES * _ENTRY_BYTES)
        if len(entry) == _ENTRY_BYTES and not entry[-1] & 0x80:
            return _ABSENT
        content = os.pread(memory, PAGE_BYTES, address)
        if len(entry) < _ENTRY_BYTES or len(content) < PAGE_BYTES:  # so it reads once the process has ended
            raise MemoryUnreadableError(f"process {self._pid} has ended")
        return zlib.crc32(content)

    def _unreadable(self, error: OSError) -> MemoryUnreadableError:
        return MemoryUnreadableError(f"process {self._pid}: {error.strerror}")

    def _close(self) -> None:
        while self._open:
            os.close(self._open.pop())
