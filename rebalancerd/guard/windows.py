"""Windows and blackouts: local times of day in a named zone, past midnight and across changes of the clocks.

A window permits by the wall clock: at 02:30 shown twice it is open twice, and a time the clocks skip never comes. A
blackout forbids by the wall clock and also from the earliest instant its start can mean to the latest its end can
mean, so that the backup it protects is covered whether its own scheduler skips, shifts or repeats that hour.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rebalancerd.guard.settings import Window

DAY_MINUTES = 24 * 60


def zone(name: str) -> ZoneInfo:
    """The time zone of that name. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"time zone {name!r} is not known here") from error


def minute_of_day(text: str) -> int:
    """Minutes since midnight of "HH:MM"; "24:00" is the end of the day. Raises ValueError."""
    hours, colon, minutes = text.partition(":")
    if not (
        colon and len(hours) == 2 and len(minutes) == 2 and (hours + minutes).isascii() and (hours + minutes).isdigit()
    ):
        raise ValueError(f"not a time of day: {text!r} (HH:MM)")
    total = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or total > DAY_MINUTES:
        raise ValueError(f"not a time of day: {text!r} (00:00 to 24:00)")
    return total


def permits(window: Window, where: ZoneInfo, instant: float) -> bool:
    """Whether the wall clock at ``instant`` (epoch seconds) is inside. Equal start and end mean the whole day."""
    local = datetime.fromtimestamp(instant, where)
    start, end = minute_of_day(window.start), minute_of_day(window.end)
    now = local.hour * 60 + local.minute
    today, yesterday = local.weekday() in window.days, (local.weekday() - 1) % 7 in window.days
    if start < end:
        return today and start <= now < end
    return (today and now >= start) or (yesterday and now < end)


def forbids(window: Window, where: ZoneInfo, instant: float) -> bool:
    """Whether a blackout is on at ``instant``: by the wall clock, or in doubt because of a change of the clocks."""
    if permits(window, where, instant):
        return True
    start, end = minute_of_day(window.start), minute_of_day(window.end)
    length_days = 0 if start < end else 1
    local = datetime.fromtimestamp(instant, where)
    for back in (0, 1, 2):
        day = local.date() - timedelta(days=back)
        if day.weekday() not in window.days:
            continue
        first = min(_meanings(datetime.combine(day, time()) + timedelta(minutes=start), where))
        last = max(_meanings(datetime.combine(day, time()) + timedelta(days=length_days, minutes=end), where))
        if first <= instant < last:
            return True
    return False


def open_window(windows: Iterable[Window], where: ZoneInfo, instant: float) -> Window | None:
    """The first window that permits at ``instant``."""
    return next((w for w in windows if permits(w, where, instant)), None)


def blackout(windows: Iterable[Window], where: ZoneInfo, instant: float) -> Window | None:
    """The first blackout that is on at ``instant``."""
    return next((w for w in windows if forbids(w, where, instant)), None)


def describe(window: Window) -> str:
    """The window in words."""
    days = "" if len(set(window.days)) == 7 else " on days " + ",".join(str(d) for d in sorted(set(window.days)))
    return f"{window.name or 'unnamed'} ({window.start}-{window.end}{days})"


def _meanings(local: datetime, where: ZoneInfo) -> tuple[float, float]:
    """Both instants a local time can mean; equal but for a time that is skipped or shown twice."""
    first, second = (local.replace(tzinfo=where, fold=fold).astimezone(UTC).timestamp() for fold in (0, 1))
    return first, second
