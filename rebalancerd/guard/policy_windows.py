"""Which policy holds when: windows that begin and end by cron expressions in a named time zone.

A window begins at a fire time of ``start`` and ends at the first fire time of ``end`` after it, as APScheduler has them:
a time that the clocks skip fires when they have gone on, one that they show twice fires at the first. So a window is as
long as the wall clock says, 25 h of autumn included. ``unfold_seconds`` before its end the balancing begins that
spreads the VMs again, so that the cluster is unfolded when the window ends, not after.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from rebalancerd.guard.settings import PolicyWindow
from rebalancerd.guard.windows import zone

MORNING_SECONDS = 3600.0  # after a window of consolidation that its unfolding looks ahead to
LONGEST = timedelta(days=7)
LOOKED_BACK = tuple(timedelta(hours=h) for h in (1, 6, 25, 8 * 24, 32 * 24, 367 * 24))
DAY_OF_WEEK = 4  # field of a cron expression


@dataclass(frozen=True, slots=True)
class InForce:
    """The policy that holds now, and why: in ``window`` (None: outside all), until ``until`` (epoch seconds).

    ``ends_at``: when the window ends; in its last part, which unfolds, the policy is ``balance`` already.
    """

    policy: str
    window: PolicyWindow | None = None
    until: float | None = None
    ends_at: float | None = None


def in_force(windows: Iterable[PolicyWindow], where: str, instant: float, otherwise: str) -> InForce:
    """The policy at ``instant`` (epoch seconds): that of the first window that is open, else ``otherwise``.

    Raises ValueError for an unknown zone or an expression that is none.
    """
    tz = zone(where)
    now = datetime.fromtimestamp(instant, tz)
    for window in windows:
        end = _open_until(window, where, now)
        if end is None:
            continue
        fold_until = end - timedelta(seconds=window.unfold_seconds)
        if now.timestamp() < fold_until.timestamp():
            return InForce(window.policy, window, fold_until.timestamp(), end.timestamp())
        return InForce("balance", window, end.timestamp(), end.timestamp())
    return InForce(otherwise)


def describe(window: PolicyWindow) -> str:
    """The window in words."""
    return f"{window.name or 'unnamed'} ({window.start} to {window.end})"


def fault(window: PolicyWindow, where: str, instant: float) -> tuple[str, str] | None:
    """(field, reason) of what is wrong with a window, None if nothing: no cron, never begins, never ends, no time to fold.

    ``instant``: from which on the next window is looked at.
    """
    for field in ("start", "end"):
        expression = getattr(window, field)
        if (reason := cron_fault(expression)) is not None:
            return field, reason
    tz = zone(where)
    now = datetime.fromtimestamp(instant, tz)
    begin = _next(window.start, where, now)
    if begin is None:
        return "start", f"{window.start!r} never comes"
    end = _next(window.end, where, begin + timedelta(seconds=1))
    if end is None or end.timestamp() - begin.timestamp() > LONGEST.total_seconds():
        return "end", f"a window that begins {begin:%a %Y-%m-%d %H:%M} does not end within {LONGEST.days} days"
    if window.unfold_seconds >= end.timestamp() - begin.timestamp():
        return "unfold_seconds", f"it is all of the window that begins {begin:%a %H:%M} and ends {end:%a %H:%M}"
    return None


def cron_fault(expression: str) -> str | None:
    """What is wrong with a cron expression, in words; None if nothing."""
    try:
        CronTrigger.from_crontab(expression)
    except (ValueError, TypeError, OverflowError) as error:
        return f"{expression[:60]!r} is no schedule: {error}"
    if any(c.isdigit() for c in expression.split()[DAY_OF_WEEK]):
        return "days of the week are written by name, as their numbers mean different days to different programs"
    return None


def coming(window: PolicyWindow, where: str, now: datetime) -> tuple[datetime, datetime] | None:
    """(begin, end) of the window that is open at ``now``, else of the next one; None where none comes or it never ends.

    Raises ValueError for an expression that is none.
    """
    end = _open_until(window, where, now)
    begin = _last(window.start, where, now) if end is not None else _next(window.start, where, now)
    if begin is None:
        return None
    end = _next(window.end, where, begin + timedelta(seconds=1))
    return None if end is None or end.timestamp() - begin.timestamp() > LONGEST.total_seconds() else (begin, end)


def _open_until(window: PolicyWindow, where: str, now: datetime) -> datetime | None:
    """The end of the window that is open at ``now``, None if none is."""
    begin = _last(window.start, where, now)
    if begin is None:
        return None
    end = _next(window.end, where, begin + timedelta(seconds=1))
    if end is None or end.timestamp() - begin.timestamp() > LONGEST.total_seconds():
        return None
    return end if now.timestamp() < end.timestamp() else None


@lru_cache(maxsize=64)
def _trigger(expression: str, where: str) -> CronTrigger:
    return CronTrigger.from_crontab(expression, timezone=ZoneInfo(where))


def _next(expression: str, where: str, after: datetime) -> datetime | None:
    """The first fire time at or after an instant."""
    found: datetime | None = _trigger(expression, where).get_next_fire_time(None, after)
    return found


def _last(expression: str, where: str, now: datetime) -> datetime | None:
    """The last fire time at or before an instant, within a year and a day."""
    for back in LOOKED_BACK:
        instant = now.timestamp() - back.total_seconds()
        found = _next(expression, where, datetime.fromtimestamp(instant, now.tzinfo))
        last = None
        while found is not None and found.timestamp() <= now.timestamp():
            last = found
            found = _next(expression, where, datetime.fromtimestamp(last.timestamp() + 1, now.tzinfo))
        if last is not None:
            return last
    return None
