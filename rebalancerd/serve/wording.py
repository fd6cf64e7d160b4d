"""Figures in words for explanations: times in UTC, shares in per cent, sizes in binary units."""

import math
from datetime import UTC, datetime

from rebalancerd.cluster.units import GIB, MIB


def instant(epoch_seconds: float) -> str:
    """``2026-03-01 12:00:05 UTC``; a number that is no date is shown as it is."""
    try:
        return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{epoch_seconds!r} s"


def span(seconds: float | None) -> str:
    """``80 ms``, ``9.2 s``, ``3 min``, ``2.5 h``, ``3 days``; ``unknown`` for None, ``unbounded`` for infinity."""
    if seconds is None or math.isnan(seconds):
        return "unknown"
    if math.isinf(seconds):
        return "unbounded"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 20 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


def share(value: float | None) -> str:
    """0.813 as ``81 %``; None as ``unknown``."""
    return "unknown" if value is None else f"{value * 100:.0f} %"


def size(count: float | None) -> str:
    """Bytes as ``1.5 GiB`` or ``96 MiB``; None as ``unknown``."""
    if count is None or math.isnan(count):
        return "unknown"
    if math.isinf(count):
        return "unbounded"
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def cores(count: float | None) -> str:
    """``0.43 cores``; None as ``an unknown number of cores``."""
    return "unknown CPU" if count is None else f"{count:.2f} cores"


def counted(count: int, one: str, many: str | None = None) -> str:
    """``1 step``, ``3 steps``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def kwh(value: float) -> str:
    """Kilowatt-hours with as many places as small clusters need: ``52.10``, ``2.240``, ``0.0123``."""
    return f"{value:.{2 if abs(value) >= 10 else 3 if abs(value) >= 1 else 4}f}"
