"""Which policy holds when: cron windows in a named zone, across changes of the clocks."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from rebalancerd.guard.policy_windows import fault, in_force
from rebalancerd.guard.settings import PolicyWindow

BERLIN = "Europe/Berlin"
NIGHT = PolicyWindow(start="0 20 * * *", end="0 6 * * *", name="night")


def at(text: str, where: str = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(where), fold=fold).timestamp()


def policy(text: str, *windows: PolicyWindow, fold: int = 0) -> str:
    return in_force(windows or (NIGHT,), BERLIN, at(text, fold=fold), "balance").policy


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        ("2026-06-10 19:59:59", "balance"),
        ("2026-06-10 20:00:00", "consolidate"),
        ("2026-06-11 00:00:00", "consolidate"),
        ("2026-06-11 05:29:59", "consolidate"),
        ("2026-06-11 05:30:00", "balance"),  # unfolding
        ("2026-06-11 06:00:00", "balance"),
        ("2026-06-11 12:00:00", "balance"),
    ],
)
def test_a_night_folds_from_evening_until_half_an_hour_before_its_end(instant, expected):
    assert policy(instant) == expected


def test_what_is_left_of_the_window_is_told():
    found = in_force((NIGHT,), BERLIN, at("2026-06-10 22:00"), "balance")
    assert found.until == at("2026-06-11 05:30")
    assert found.ends_at == at("2026-06-11 06:00")
    assert found.window is NIGHT
    unfolding = in_force((NIGHT,), BERLIN, at("2026-06-11 05:45"), "consolidate")
    assert (unfolding.policy, unfolding.until) == ("balance", at("2026-06-11 06:00"))
    outside = in_force((NIGHT,), BERLIN, at("2026-06-11 12:00"), "consolidate")
    assert (outside.policy, outside.window, outside.until) == ("consolidate", None, None)


@pytest.mark.parametrize(
    ("evening", "hours"), [("2026-03-28 20:00", 9), ("2026-10-24 20:00", 11), ("2026-06-10 20:00", 10)]
)
def test_the_clocks_going_forward_or_back_make_the_night_shorter_or_longer(evening, hours):
    found = in_force((NIGHT,), BERLIN, at(evening), "balance")
    assert found.ends_at == at(evening) + hours * 3600


def test_a_window_that_begins_in_the_skipped_hour_still_begins_and_ends():
    window = PolicyWindow(start="30 2 * * *", end="0 5 * * *", unfold_seconds=0)
    assert policy("2026-03-29 01:59", window) == "balance"
    assert policy("2026-03-29 04:00", window) == "consolidate"
    assert policy("2026-03-29 05:00", window) == "balance"


def test_a_window_that_begins_in_the_hour_shown_twice_is_open_from_then_on():
    window = PolicyWindow(start="30 2 * * *", end="0 5 * * *", unfold_seconds=0)
    assert policy("2026-10-25 02:40", window, fold=1) == "consolidate"
    assert policy("2026-10-25 04:59", window) == "consolidate"
    assert policy("2026-10-25 05:00", window) == "balance"


def test_a_window_of_the_week_spans_its_days():
    weekend = PolicyWindow(start="0 20 * * fri", end="0 5 * * mon", unfold_seconds=3600)
    assert policy("2026-06-12 19:00", weekend) == "balance"  # a Friday
    assert policy("2026-06-13 12:00", weekend) == "consolidate"
    assert policy("2026-06-15 03:59", weekend) == "consolidate"
    assert policy("2026-06-15 04:00", weekend) == "balance"


def test_the_first_of_two_open_windows_holds():
    day = PolicyWindow(start="0 0 * * *", end="0 23 * * *", policy="balance", unfold_seconds=0)
    assert policy("2026-06-10 22:00", day, NIGHT) == "balance"
    assert policy("2026-06-10 23:30", day, NIGHT) == "consolidate"


def test_a_yearly_window_is_found_a_year_later():
    yearly = PolicyWindow(start="0 12 24 12 *", end="0 6 27 12 *", unfold_seconds=0)
    assert policy("2026-12-26 06:00", yearly) == "consolidate"
    assert policy("2026-12-28 06:00", yearly) == "balance"


@pytest.mark.parametrize(
    ("window", "field", "words"),
    [
        (PolicyWindow(start="tonight", end="0 6 * * *"), "start", "no schedule"),
        (PolicyWindow(start="0 20 * * *", end="0 6 * * 1"), "end", "by name"),
        (PolicyWindow(start="0 20 30 feb *", end="0 6 * * *"), "start", "never comes"),
        (PolicyWindow(start="0 20 * * *", end="0 6 30 feb *"), "end", "does not end within 7 days"),
        (PolicyWindow(start="0 20 * * *", end="0 6 1 jul *"), "end", "does not end within 7 days"),
        (PolicyWindow(start="0 20 * * *", end="15 20 * * *"), "unfold_seconds", "all of the window"),
    ],
)
def test_a_window_that_cannot_be_is_named(window, field, words):
    found = fault(window, BERLIN, at("2026-01-01 00:00"))
    assert found is not None
    assert found[0] == field
    assert words in found[1]


def test_a_night_is_no_fault():
    assert fault(NIGHT, BERLIN, at("2026-01-01 00:00")) is None


def test_a_window_that_never_ends_holds_nothing():
    assert policy("2026-06-10 22:00", PolicyWindow(start="0 20 * * *", end="0 6 30 feb *")) == "balance"


def test_an_unknown_zone_is_said():
    with pytest.raises(ValueError, match="Atlantis"):
        in_force((NIGHT,), "Atlantis", 0.0, "balance")
