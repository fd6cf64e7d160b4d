"""Quiet hours and spells: when, by its own history, a VM dirties so little memory that a migration of it is easy."""

from dataclasses import dataclass

from rebalancerd.cluster.demand import sane
from rebalancerd.cluster.dirty import DirtyCurve


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietHour:
    """The hour of day in which a VM dirties least, clearly less than now.

    ``hour_utc``: 0 to 23, in UTC; showing it in another time zone is the caller's matter. ``rate_bytes_per_second``: what
    it dirties in that hour on three of four days (p75 of ``seen_days`` days), unique bytes per second.
    """

    vm_uuid: str
    hour_utc: int
    rate_bytes_per_second: float
    seen_days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoQuietHour:
    """No quiet hour of a VM is known yet, and why, in words."""

    vm_uuid: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietSpell:
    """The next time within the hour at which a VM is expected to dirty clearly less than now.

    ``starts_in_seconds``: from the snapshot's instant, above 0. ``rate_bytes_per_second``: what it then dirties at most
    in three of four cases (p75 of the forecast), unique bytes per second. ``basis``: who forecast.
    """

    vm_uuid: str
    starts_in_seconds: float
    rate_bytes_per_second: float
    basis: str


QuietOutlook = QuietSpell | QuietHour | NoQuietHour


def present_dirty_rate(curve: DirtyCurve | None) -> float | None:
    """Unique bytes per second dirtied now, over the shortest period measured (history keeps the same); None: unknown."""
    if curve is None:
        return None
    return sane(curve.points[0].unique_bytes / curve.points[0].period_seconds)
