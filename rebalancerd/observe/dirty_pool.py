"""Dirty-rate readings pooled into a curve with standard errors.

Page sampling looks at 512 pages per GiB, so one reading is a binomial estimate of the share of pages that changed;
libvirt then rounds the rate down to whole MiB/s. Both set a floor under the standard error, however well readings agree.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint, DirtyReading
from rebalancerd.cluster.units import GIB, MIB

SAMPLED_PAGES_PER_GIB = 512  # QEMU's default, migration/dirtyrate.h
MOST_READINGS = 64


@dataclass(frozen=True, slots=True)
class Sampling:
    """How readings come about: pages looked at in a guest (of that many bytes), and to what their rate is rounded."""

    pages: Callable[[int], float]
    rounded_bytes_per_second: float


BY_LIBVIRT = Sampling(lambda memory: memory / GIB * SAMPLED_PAGES_PER_GIB, float(MIB))


class DirtyPool:
    """Readings of the last ``keep_seconds`` by VM and period. Instants are epoch seconds. Not thread-safe."""

    def __init__(self, keep_seconds: float, sampling: Sampling = BY_LIBVIRT) -> None:
        self._keep, self._sampling = keep_seconds, sampling
        self._readings: dict[str, list[DirtyReading]] = defaultdict(list)

    def add(self, uuid: str, reading: DirtyReading) -> None:
        """Take a reading; the same one again, and one that makes no sense, changes nothing."""
        rate, period = reading.rate_bytes_per_second, reading.period_seconds
        if not (math.isfinite(rate) and rate >= 0 and math.isfinite(period) and period > 0):
            return
        kept = self._readings[uuid]
        if any(r.taken_at == reading.taken_at and r.period_seconds == period for r in kept):
            return
        kept.append(reading)
        del kept[:-MOST_READINGS]

    def keep(self, uuids: frozenset[str]) -> None:
        """Forget every other VM."""
        for uuid in self._readings.keys() - uuids:
            del self._readings[uuid]

    def last(self, uuid: str) -> DirtyReading | None:
        """The newest reading of a VM."""
        return max(self._readings.get(uuid, ()), key=lambda r: r.taken_at, default=None)

    def curve(self, uuid: str, now: float, memory_bytes: int) -> DirtyCurve | None:
        """The pooled curve at ``now``; None if no reading is recent. Unique bytes never exceed the memory."""
        fresh = [r for r in self._readings.get(uuid, ()) if 0 <= now - r.taken_at <= self._keep]
        if not fresh:
            return None
        by_period: dict[float, list[float]] = defaultdict(list)
        for reading in fresh:
            by_period[reading.period_seconds].append(min(reading.unique_bytes, float(memory_bytes)))
        points = tuple(_point(period, by_period[period], memory_bytes, self._sampling) for period in sorted(by_period))
        return DirtyCurve(points=points, age_seconds=now - max(r.taken_at for r in fresh))


def least_error(unique_bytes: float, memory_bytes: int, how: Sampling) -> float:
    """Standard error, bytes, of one look at a sample of the pages."""
    pages = max(1.0, how.pages(memory_bytes))
    doubt = 1.0 / (pages + 2)  # no change among n pages is no proof of none, and n changes none of all
    share = min(1.0 - doubt, max(unique_bytes / memory_bytes, doubt))
    return math.sqrt(share * (1.0 - share) / pages) * memory_bytes


def _point(period: float, values: list[float], memory_bytes: int, how: Sampling) -> DirtyPoint:
    count = len(values)
    mean = math.fsum(values) / count
    spread = math.fsum((v - mean) ** 2 for v in values) / (count - 1) if count > 1 else 0.0
    rounding = (how.rounded_bytes_per_second * period) ** 2 / 12
    variance = max(spread, least_error(mean, memory_bytes, how) ** 2 + rounding) / count
    return DirtyPoint(
        period_seconds=period, unique_bytes=mean, standard_error_bytes=math.sqrt(variance), readings=count
    )
