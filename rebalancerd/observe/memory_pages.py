"""An exact-enough dirty curve from outside: thousands of a guest's pages read again and again from its QEMU process.

libvirt's calculation looks at 512 pages a GiB and knows whole seconds only, so how fast a guest dirties memory within
the allowed downtime, which decides whether a pre-copy ends, is not seen. On the guest's own host its RAM is a mapping of
the QEMU process; reading 4096 random pages takes some 20 ms and disturbs nothing. What is compared is content, so a
write that puts the value that was there is missed, as it is by libvirt. Needs the right to read another process's
memory (root, or CAP_SYS_PTRACE).
"""

import os
import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.cluster.units import PAGE_BYTES
from rebalancerd.observe.dirty_pool import Sampling

PERIODS_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
PAGES = 4096
LEAST_BYTES = 16 * 1024 * 1024  # no guest's RAM is smaller
BY_PAGES = Sampling(lambda memory: min(PAGES, memory / PAGE_BYTES), 0.0)
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw.. ")


class MemoryUnreadableError(Exception):
    """The process's memory cannot be read, or no mapping of it can be the guest's RAM; the text says which."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A stretch of a process's address space, bytes."""

    start: int
    size: int


def ram_mapping(maps: str, memory_bytes: int) -> Mapping:
    """The mapping that holds a guest's RAM: the smallest writable one that is large enough.

    ``maps``: content of ``/proc/PID/maps``. Raises MemoryUnreadableError if none is.
    """
    found = []
    for line in maps.splitlines():
        match = _MAPPING.match(line)
        if match:
            start, end = int(match[1], 16), int(match[2], 16)
            if end - start >= max(memory_bytes, LEAST_BYTES):
                found.append(Mapping(start, end - start))
    if not found:
        raise MemoryUnreadableError(f"no mapping of {memory_bytes} bytes or more")
    return min(found, key=lambda m: (m.size, m.start))


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
    """Read pages of a running guest now and after each period; one reading for each period.

    A reading that comes late (a busy host) has the rate of its own length, so that equal periods can be pooled. Takes the
    longest period. Raises MemoryUnreadableError, also where the process ends meanwhile.
    """
    try:
        mapping = ram_mapping((proc / str(pid) / "maps").read_text(), memory_bytes)
        handle = os.open(proc / str(pid) / "mem", os.O_RDONLY)
    except OSError as error:
        raise MemoryUnreadableError(f"process {pid}: {error.strerror}") from error
    try:
        count = min(pages, memory_bytes // PAGE_BYTES)
        draw = random.Random(seed)  # noqa: S311 - which pages, no secret
        # the guest's RAM begins the mapping; what was merged with it, if anything, follows
        chosen = sorted(draw.sample(range(memory_bytes // PAGE_BYTES), count))
        addresses = [mapping.start + page * PAGE_BYTES for page in chosen]
        begun = monotonic()
        before = _sums(handle, addresses)
        readings = []
        for period in sorted(periods):
            sleep(max(0.0, begun + period - monotonic()))
            length = monotonic() - begun
            now = _sums(handle, addresses)
            changed = sum(a != b for a, b in zip(before, now, strict=True))
            unique = changed / count * memory_bytes
            readings.append(DirtyReading(taken_at=wall(), period_seconds=period, rate_bytes_per_second=unique / length))
        return tuple(readings)
    except OSError as error:
        raise MemoryUnreadableError(f"process {pid}: {error.strerror}") from error
    finally:
        os.close(handle)


def _sums(handle: int, addresses: Sequence[int]) -> list[int]:
    return [zlib.crc32(os.pread(handle, PAGE_BYTES, address)) for address in addresses]
