"""The quiet hour: which hour of day a VM's own dirty-rate history calls quiet, and what is no proof of quiet."""

from collections.abc import Callable

import numpy as np
import pytest

from rebalancerd.cluster.quiet import NoQuietHour, QuietHour, QuietOutlook
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.units import MIB
from rebalancerd.predict.quiet import FEW_DAYS, MIN_DAYS, quiet_hours

DAY = 86_400.0
NOON = 100 * DAY + 12 * 3600.0
BUSY, QUIET = 80 * MIB, 3 * MIB
NAN = float("nan")


def days(count: int, **hours: float) -> list[float]:
    """That many whole days of hourly figures: busy, except in the hours given as ``h03=rate``."""
    day = [float(BUSY)] * 24
    for name, rate in hours.items():
        day[int(name[1:])] = rate
    return day * count


def hourly(*columns: list[float], end: float = 100 * DAY) -> Series:
    """One column per VM, named v0, v1 …, ending at midnight UTC."""
    values = np.array(columns, dtype=np.float32).T
    ids = tuple(f"v{i}" for i in range(len(columns)))
    return Series(resource="dirty", ids=ids, values=values, step_seconds=3600.0, end=end)


def fine(column: list[float], end: float = 100 * DAY) -> Series:
    values = np.array([column], dtype=np.float32).T
    return Series(resource="dirty", ids=("v0",), values=values, step_seconds=300.0, end=end)


def nothing() -> Series:
    return Series.empty("dirty", 300.0, 0.0)


def outlook(
    series: Series, now: float | None = BUSY, close: Callable[[], Series] = nothing, at: float = NOON
) -> QuietOutlook:
    (found,) = quiet_hours(series, close, {"v0": now}, at)
    return found


def test_the_hour_that_is_least_on_three_of_four_days() -> None:
    """12 days, 3 MiB/s around 03:00 UTC but for two nights with a backup: those do not make it busy, four would."""
    column = days(12, h03=QUIET, h04=20 * MIB)
    for night in (1, 5):
        column[24 * night + 3] = 300 * MIB

    assert outlook(hourly(column)) == QuietHour(
        vm_uuid="v0", hour_utc=3, rate_bytes_per_second=pytest.approx(QUIET), seen_days=12
    )
    for night in (7, 9):
        column[24 * night + 3] = 300 * MIB
    assert outlook(hourly(column)) == QuietHour(
        vm_uuid="v0", hour_utc=4, rate_bytes_per_second=pytest.approx(20 * MIB), seen_days=12
    )


def test_the_hour_is_that_of_the_step_a_row_stands_for() -> None:
    """A row of the history ends at its instant: the last of a series that ends at 03:00 is the hour from 02:00 on."""
    column = days(9)[:-21]
    for n in range(9):
        column[24 * n + 2] = QUIET

    found = outlook(hourly(column, end=100 * DAY + 3 * 3600))

    assert isinstance(found, QuietHour)
    assert (found.hour_utc, found.seen_days) == (2, 9)


@pytest.mark.parametrize("seen", [0, 1, MIN_DAYS - 1])
def test_an_hour_seen_on_too_few_days_is_no_habit(seen: int) -> None:
    column = days(12, h03=NAN)
    for n in range(seen):
        column[24 * n + 3] = QUIET

    found = outlook(hourly(column))

    assert isinstance(found, NoQuietHour)
    assert "no hour of the day is clearly quieter than now, the least 80 MiB/s" in found.reason


def test_a_young_history_says_how_little_was_seen() -> None:
    found = outlook(hourly(days(2, h03=QUIET)))

    assert found == NoQuietHour(vm_uuid="v0", reason="no hour of the day was measured on 3 days, at most on 2")
    assert isinstance(outlook(hourly(days(MIN_DAYS, h03=QUIET))), QuietHour)


@pytest.mark.parametrize("odd", [NAN, -1.0, -float("inf"), float("inf"), 1e20])
def test_what_is_no_figure_never_reads_as_quiet(odd: float) -> None:
    """A gap, a negative or an absurd rate every night at 03:00; 05:00 is known and a little quieter."""
    found = outlook(hourly(days(12, h03=odd, h05=30 * MIB)))

    assert isinstance(found, QuietHour)
    assert found.hour_utc == 5


def test_no_history_and_an_unknown_present_give_no_quiet_hour() -> None:
    assert outlook(hourly([NAN] * 240)) == NoQuietHour(vm_uuid="v0", reason="no dirty rate of it is on record")
    assert outlook(nothing()) == NoQuietHour(vm_uuid="v0", reason="no dirty rate of it is on record")
    assert outlook(hourly(days(9, h03=QUIET)), now=None) == NoQuietHour(
        vm_uuid="v0", reason="its present dirty rate is not known"
    )


def test_quiet_is_clearly_below_the_present() -> None:
    """At half the present rate it is, a little above that it is not."""
    column = days(9, h03=40 * MIB)

    assert isinstance(outlook(hourly(column), now=80 * MIB), QuietHour)
    assert isinstance(outlook(hourly(column), now=79 * MIB), NoQuietHour)


@pytest.mark.parametrize(("at", "hour"), [(0.0, 2), (2.5, 23), (22.9, 23), (23.1, 2), (12.0, 23)])
def test_of_hours_equally_quiet_the_next_to_come_is_taken(at: float, hour: int) -> None:
    """02:00 and 23:00 read the same; the hour that is under way comes last."""
    found = outlook(hourly(days(9, h02=0.0, h23=0.0)), at=100 * DAY + at * 3600)

    assert isinstance(found, QuietHour)
    assert found.hour_utc == hour


def test_where_days_are_few_a_busy_spell_within_the_hour_counts() -> None:
    """Four days are on record; yesterday 03:00 had five minutes of 500 MiB/s, which the hour's mean hides."""
    close = [float(BUSY)] * 288
    close[36:48] = [float(QUIET)] * 12
    close[40] = 500 * MIB
    close[60:72] = [4.0 * MIB] * 12
    column = days(4, h03=QUIET, h05=4 * MIB)

    for series, hour in ((hourly(column), 3), (hourly(days(FEW_DAYS, h03=QUIET, h05=4 * MIB)), 3)):
        found = outlook(series)
        assert isinstance(found, QuietHour)
        assert found.hour_utc == hour
    few = outlook(hourly(column), close=lambda: fine(close))
    many = outlook(hourly(column * 2), close=lambda: fine(close))

    assert isinstance(few, QuietHour)
    assert (few.hour_utc, few.seen_days) == (5, 4)
    assert isinstance(many, QuietHour)
    assert many.hour_utc == 3


def test_an_hour_of_which_most_is_missing_is_not_seen() -> None:
    """No hourly figures; in the minutes 03:00 is quiet on three days, but on one of them only five of twelve are known."""
    close = [NAN] * (3 * 288)
    for n in range(3):
        close[288 * n + 36 : 288 * n + 48] = [float(QUIET)] * 12
    whole = outlook(nothing(), close=lambda: fine(close))
    close[36:43] = [NAN] * 7
    part = outlook(nothing(), close=lambda: fine(close))

    assert whole == QuietHour(vm_uuid="v0", hour_utc=3, rate_bytes_per_second=QUIET, seen_days=3)
    assert part == NoQuietHour(vm_uuid="v0", reason="no hour of the day was measured on 3 days, at most on 2")


def test_vms_are_judged_each_by_its_own_column() -> None:
    series = hourly(days(9, h03=QUIET), days(9, h14=5 * MIB))

    found = quiet_hours(series, nothing, {"v1": BUSY, "stranger": BUSY, "v0": BUSY}, NOON)

    assert [f.vm_uuid for f in found] == ["v1", "stranger", "v0"]
    assert [f.hour_utc if isinstance(f, QuietHour) else None for f in found] == [14, None, 3]
