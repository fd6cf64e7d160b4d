"""Dirty-page readings and the curve pooled from them.

QEMU's calc-dirty-rate returns unique pages dirtied in a period divided by the period, so it saturates at the writable
working set: one figure without its period means nothing, two or more periods give a curve U(t) (docs/design.md).
"""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class DirtyReading:
    """One finished calculation. ``rate_bytes_per_second`` is unique bytes dirtied ÷ ``period_seconds``."""

    taken_at: float
    period_seconds: float
    rate_bytes_per_second: float

    @property
    def unique_bytes(self) -> float:
        """Unique bytes dirtied within the period."""
        return self.rate_bytes_per_second * self.period_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class DirtyPoint:
    """Pooled readings of one period: mean unique bytes, standard error of that mean, and how many readings."""

    period_seconds: float
    unique_bytes: float
    standard_error_bytes: float
    readings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DirtyCurve:
    """Unique bytes dirtied against time, at the measured periods in increasing order; ``age_seconds`` of the newest."""

    points: tuple[DirtyPoint, ...]
    age_seconds: float

    def __post_init__(self) -> None:
        """Reject unordered periods."""
        periods = [p.period_seconds for p in self.points]
        if not periods or any(b <= a for a, b in pairwise(periods)) or periods[0] <= 0:
            raise ValueError(f"periods must be positive and increasing, not {periods}")
