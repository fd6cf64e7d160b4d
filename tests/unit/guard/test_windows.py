"""Windows in a named zone, past midnight and across both changes of the clocks (Berlin, 2024)."""

from datetime import UTC, datetime

import pytest

from rebalancerd.guard.settings import Window
from rebalancerd.guard.windows import blackout, describe, forbids, minute_of_day, open_window, permits, zone

BERLIN = zone("Europe/Berlin")


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_by_the_wall_clock_of_the_zone():
    """09:00 to 17:00 in Berlin is 07:00 to 15:00 UTC in summer, 08:00 to 16:00 in winter; the end is out."""
    office = Window(start="09:00", end="17:00")
    for day, first, last in (("2024-07-03", "07:00", "14:59"), ("2024-01-03", "08:00", "15:59")):
        assert permits(office, BERLIN, utc(f"{day} {first}"))
        assert permits(office, BERLIN, utc(f"{day} {last}"))
    assert not permits(office, BERLIN, utc("2024-07-03 15:00"))
    assert not permits(office, BERLIN, utc("2024-01-03 07:59"))


def test_past_midnight_belongs_to_the_day_it_began():
    """Friday night, 22:00 to 06:00: Saturday 05:59 is in, Friday 05:59 and Saturday 22:00 are not."""
    night = Window(start="22:00", end="06:00", days=(4,))
    assert permits(night, BERLIN, utc("2024-07-05 20:00"))
    assert permits(night, BERLIN, utc("2024-07-06 03:59"))
    assert not permits(night, BERLIN, utc("2024-07-06 04:00"))
    assert not permits(night, BERLIN, utc("2024-07-05 03:59"))
    assert not permits(night, BERLIN, utc("2024-07-06 20:00"))


def test_sunday_night_reaches_into_monday():
    assert permits(Window(start="22:00", end="06:00", days=(6,)), zone("UTC"), utc("2024-07-08 03:00"))


def test_equal_ends_are_the_whole_day():
    assert permits(Window(start="08:00", end="08:00"), BERLIN, utc("2024-07-03 05:59"))


class TestSpringForward:
    """31 March 2024: 02:00 becomes 03:00 (01:00 UTC)."""

    backup = Window(start="02:15", end="02:45")

    def test_a_window_inside_the_gap_does_not_come(self):
        minutes = [utc("2024-03-31 00:00") + 60 * m for m in range(240)]
        assert not any(permits(self.backup, BERLIN, t) for t in minutes)

    def test_a_blackout_inside_the_gap_covers_both_readings(self):
        """Its scheduler may run it at 01:15 or at 03:15 local: 00:15 to 01:45 UTC is covered, no more."""
        assert forbids(self.backup, BERLIN, utc("2024-03-31 00:15"))
        assert forbids(self.backup, BERLIN, utc("2024-03-31 01:44"))
        assert not forbids(self.backup, BERLIN, utc("2024-03-31 00:14"))
        assert not forbids(self.backup, BERLIN, utc("2024-03-31 01:45"))

    def test_a_night_loses_an_hour(self):
        night = Window(start="22:00", end="06:00")
        assert permits(night, BERLIN, utc("2024-03-31 03:59"))
        assert not permits(night, BERLIN, utc("2024-03-31 04:00"))


class TestFallBack:
    """27 October 2024: 03:00 becomes 02:00 again (01:00 UTC)."""

    backup = Window(start="02:15", end="02:45")

    def test_a_window_comes_twice(self):
        assert permits(self.backup, BERLIN, utc("2024-10-27 00:20"))
        assert permits(self.backup, BERLIN, utc("2024-10-27 01:20"))
        assert not permits(self.backup, BERLIN, utc("2024-10-27 00:50"))

    def test_a_blackout_covers_both_and_what_is_between(self):
        assert not forbids(self.backup, BERLIN, utc("2024-10-27 00:14"))
        for t in ("00:15", "00:50", "01:05", "01:44"):
            assert forbids(self.backup, BERLIN, utc(f"2024-10-27 {t}"))
        assert not forbids(self.backup, BERLIN, utc("2024-10-27 01:45"))

    def test_a_night_gains_an_hour(self):
        night = Window(start="22:00", end="06:00")
        assert permits(night, BERLIN, utc("2024-10-27 04:59"))
        assert not permits(night, BERLIN, utc("2024-10-27 05:00"))


def test_first_of_several():
    a, b = Window(start="01:00", end="02:00", name="a"), Window(start="01:30", end="03:00", name="b")
    at = utc("2024-07-03 01:45")
    assert open_window((a, b), zone("UTC"), at) is a
    assert blackout((b, a), zone("UTC"), at) is b
    assert open_window((a, b), zone("UTC"), utc("2024-07-03 04:00")) is None
    assert describe(a) == "a (01:00-02:00)"
    assert describe(Window(start="01:00", end="02:00", days=(5, 6))) == "unnamed (01:00-02:00 on days 5,6)"


@pytest.mark.parametrize("text", ["", "9:00", "09:60", "24:01", "25:00", "0900", "-1:00", "09:00:00", "٠٩:٠٠", "+9:00"])
def test_what_is_no_time_of_day(text):
    with pytest.raises(ValueError, match="not a time of day"):
        minute_of_day(text)


def test_times_of_day():
    assert [minute_of_day(t) for t in ("00:00", "09:05", "24:00")] == [0, 545, 1440]


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "", "Europe"])
def test_unknown_zone(name):
    with pytest.raises(ValueError, match="time zone"):
        zone(name)
