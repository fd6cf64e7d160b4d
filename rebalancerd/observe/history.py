"""History: fixed-step series of every VM and host in memory-mapped rings that a restart does not lose.

Two tiers, 5 min (or another step, that of the forecasts) × 48 h and 1 h × 35 days; a row is the mean of the samples that
fell into its step. 20,000 VMs need 24.5 MB per series and 24 h of the first tier. What cannot be read is kept aside, never
overwritten.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from rebalancerd.cluster.series import Series
from rebalancerd.observe.ring_file import NO_ROW, Floats, RingFile, RingFileError
from rebalancerd.observe.slot_index import SlotIndex, SlotIndexError

log = structlog.get_logger(__name__)

VM_CPU, VM_MEMORY = "vm_cpu_cores", "vm_memory_bytes"
VM_DIRTY, VM_STEAL = "vm_dirty_bytes_per_second", "vm_steal_cores"
HOST_CPU, HOST_MEMORY = "host_cpu_cores", "host_memory_bytes"
RESOURCES = {
    VM_CPU: "vm",
    VM_MEMORY: "vm",
    VM_DIRTY: "vm",
    VM_STEAL: "vm",
    HOST_CPU: "host",
    HOST_MEMORY: "host",
}
FORGET_SECONDS = 48 * 3600.0
BACKWARD_STEP_SECONDS = 7200.0
FIRST_CAPACITY = 64
HIGHEST_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Tier:
    """A resolution: ``rows`` steps of ``step_seconds``."""

    step_seconds: float
    rows: int


FINE_SECONDS = 48 * 3600.0
TIERS = (Tier(300.0, 576), Tier(3600.0, 840))


def tiers_of(step_seconds: float) -> tuple[Tier, ...]:
    """48 h in steps of that length and 35 days of hours: forecasts are made in the steps that load is recorded in."""
    return (Tier(step_seconds, math.ceil(FINE_SECONDS / step_seconds)), *TIERS[1:])


def _capacity_for(slots: int) -> int:
    """Columns to make for that many slots: a sixteenth to spare, in blocks of 64."""
    return math.ceil((slots + max(1, slots // 16)) / 64) * 64


class _Track:
    """One resource in one tier: the ring and the mean of the step that is under way."""

    def __init__(self, ring: RingFile) -> None:
        self.ring = ring
        last = ring.last_values()
        self._row = ring.last
        self._ticks = ring.samples
        # the samples behind a stored mean are not stored: as many as the row had ticks, a close guess after a restart
        self._count = np.where(np.isfinite(last), max(1, ring.samples), 0).astype(np.int64)
        self._sum = np.nan_to_num(last, nan=0.0).astype(np.float64) * self._count

    def add(self, row: int, slots: NDArray[np.intp], values: NDArray[np.float64]) -> None:
        if row != self._row:
            self._row, self._ticks = row, 0
            self._sum = np.zeros(self.ring.capacity)
            self._count = np.zeros(self.ring.capacity, dtype=np.int64)
        self._ticks += 1
        self._sum[slots] += values
        self._count[slots] += 1
        mean = np.full(self.ring.capacity, np.nan)
        np.divide(self._sum, self._count, out=mean, where=self._count > 0)
        self.ring.write(row, mean.astype(np.float32), self._ticks)

    def grow(self, capacity: int) -> None:
        more = capacity - self.ring.capacity
        self.ring.grow(capacity)
        self._sum = np.concatenate([self._sum, np.zeros(more)])
        self._count = np.concatenate([self._count, np.zeros(more, dtype=np.int64)])

    def clear(self, slots: list[int]) -> None:
        self.ring.clear(slots)
        self._sum[slots] = 0.0
        self._count[slots] = 0


class History:
    """Recorded history under a directory. Not thread-safe: its owner locks.

    ``tiers``: finest first; labs and tests take shorter steps. Raises OSError if the directory cannot be used.
    """

    def __init__(
        self, directory: Path, *, tiers: Sequence[Tier] = TIERS, forget_seconds: float = FORGET_SECONDS
    ) -> None:
        if not tiers or any(t.step_seconds <= 0 or t.rows < 1 for t in tiers):
            raise ValueError("history needs at least one tier with a positive step and a row")
        self.directory = Path(directory)
        self.tiers = tuple(tiers)
        self._forget_seconds = forget_seconds
        self.directory.mkdir(parents=True, exist_ok=True)
        self._latest = 0.0
        self._cache: dict[tuple[str, int], tuple[tuple[int, int], Series]] = {}
        self._changes = 0
        self._index: dict[str, SlotIndex] = {}
        self._tracks: dict[tuple[str, int], _Track] = {}
        self._open()

    def _open(self) -> None:
        for kind in sorted(set(RESOURCES.values())):
            self._index[kind] = self._open_index(kind)
        for resource, kind in RESOURCES.items():
            for number, tier in enumerate(self.tiers):
                capacity = _capacity_for(max(self._index[kind].end, FIRST_CAPACITY - 4))
                ring = self._open_ring(self._path(resource, tier), tier, capacity)
                track = _Track(ring)
                if ring.capacity < self._index[kind].end:
                    track.grow(capacity)
                self._tracks[resource, number] = track
                if ring.last != NO_ROW:
                    self._latest = max(self._latest, ring.last * tier.step_seconds)

    def append(self, now: float, values: Mapping[str, Mapping[str, float | None]]) -> None:
        """Add the samples of one tick: resource → id → value (cores, bytes, bytes per second); ``now`` in epoch seconds.

        None, NaN, infinite and negative values are left out. A clock that went back by less than two hours leaves the
        samples out until it has caught up; by more, the rings are kept aside and begun anew. Raises KeyError for an
        unknown resource, OSError.
        """
        if self._latest - now > BACKWARD_STEP_SECONDS:
            log.warning("history_clock_went_back", seconds=self._latest - now)
            self._restart("clock")
        self._latest = max(self._latest, now)
        clean = {resource: _clean(found) for resource, found in values.items()}
        for kind in sorted(set(RESOURCES.values())):
            seen = {name for resource, found in clean.items() if RESOURCES[resource] == kind for name in found}
            self._make_room(kind, seen, now)
        for resource, found in clean.items():
            index = self._index[RESOURCES[resource]]
            slots = np.fromiter(map(index.slot, found), dtype=np.intp, count=len(found))
            numbers = np.fromiter(found.values(), dtype=np.float64, count=len(found))
            for number, tier in enumerate(self.tiers):
                track, row = self._tracks[resource, number], math.floor(now / tier.step_seconds)
                if row >= track.ring.last:
                    track.add(row, slots, numbers)

    def series(self, resource: str, tier: int = 0) -> Series:
        """All complete steps of a resource, read-only; the step under way is left out. Raises KeyError, IndexError."""
        ring = self._tracks[resource, tier].ring
        step = self.tiers[tier].step_seconds
        # the step under way is complete once a later instant was seen
        last = ring.last if self._latest >= (ring.last + 1) * step else ring.last - 1
        if ring.last == NO_ROW or last < ring.first:
            return Series.empty(resource, step, max(0.0, last + 1) * step)
        stamp = (last, self._changes)
        cached = self._cache.get((resource, tier))
        if cached is not None and cached[0] == stamp:
            return cached[1]
        index = self._index[RESOURCES[resource]]
        ids = index.ids()
        slots = np.fromiter((index.slot(name) for name in ids), dtype=np.intp, count=len(ids))
        found = Series(
            resource=resource, ids=ids, values=ring.read(last, slots), step_seconds=step, end=(last + 1) * step
        )
        self._cache[resource, tier] = (stamp, found)
        return found

    def flush(self) -> None:
        """Bring everything to the disk. Raises OSError."""
        for index in self._index.values():
            index.save()
        for track in self._tracks.values():
            track.ring.flush()

    def close(self) -> None:
        """Flush and unmap. Raises OSError."""
        self.flush()
        for track in self._tracks.values():
            track.ring.close()

    def _make_room(self, kind: str, seen: set[str], now: float) -> None:
        index = self._index[kind]
        new = {name for name in seen if index.get(name) is None}
        changed = bool(new) and index.forget_before(now - self._forget_seconds)
        fresh = index.touch(seen, now)
        if not fresh and not changed:
            return
        self._changes += 1
        tracks = [t for (resource, _), t in self._tracks.items() if RESOURCES[resource] == kind]
        capacity = _capacity_for(index.end)
        for track in tracks:
            if track.ring.capacity < index.end:
                track.grow(capacity)
            track.clear(fresh)
        # after the columns are cleared and before a value is written: a crash leaves no column to the wrong id
        index.save()

    def _path(self, resource: str, tier: Tier) -> Path:
        return self.directory / f"{resource}.{tier.step_seconds:g}s.ring"

    def _open_index(self, kind: str) -> SlotIndex:
        path = self.directory / f"{kind}.slots.json"
        rings = [self._path(r, t) for r, k in RESOURCES.items() if k == kind for t in self.tiers]
        try:
            if not path.exists() and any(ring.exists() for ring in rings):
                raise SlotIndexError(f"{path} is missing, so nobody knows whose columns these are")
            index = SlotIndex(path)
        except SlotIndexError as error:
            for file in (path, *rings):
                _keep_aside(file, "unreadable", str(error))
            index = SlotIndex(path)
        if not path.exists():
            index.save()  # before any ring is made: a ring without an index belongs to nobody
        return index

    def _open_ring(self, path: Path, tier: Tier, capacity: int) -> RingFile:
        try:
            return RingFile(path, rows=tier.rows, step_seconds=tier.step_seconds, capacity=capacity)
        except RingFileError as error:
            _keep_aside(path, "unreadable", str(error))
            return RingFile(path, rows=tier.rows, step_seconds=tier.step_seconds, capacity=capacity)

    def _restart(self, suffix: str) -> None:
        for track in self._tracks.values():
            track.ring.close()
            _keep_aside(track.ring.path, suffix, "the clock went back")
        self._latest = 0.0
        self._cache.clear()
        self._tracks.clear()
        for index in self._index.values():
            index.save()
        self._open()


def _clean(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(v) for name, v in values.items() if v is not None and 0 <= v <= HIGHEST_FLOAT32}


def _keep_aside(path: Path, suffix: str, reason: str) -> None:
    """Rename out of the way; of several that were kept aside for the same reason the newest stays."""
    if path.exists():
        aside = path.with_name(f"{path.name}.{suffix}")
        path.replace(aside)
        log.warning("history_kept_aside", file=str(path), kept=str(aside), reason=reason)


__all__ = [
    "HOST_CPU",
    "HOST_MEMORY",
    "RESOURCES",
    "TIERS",
    "VM_CPU",
    "VM_DIRTY",
    "VM_MEMORY",
    "VM_STEAL",
    "Floats",
    "History",
    "Tier",
    "tiers_of",
]
