"""Laws of windows: a blackout forbids at least whenever its wall clock says so, and never the whole week."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rebalancerd.guard.settings import Window
from rebalancerd.guard.windows import forbids, permits, zone

minutes = st.integers(0, 1439).map(lambda m: f"{m // 60:02}:{m % 60:02}")
windows = st.builds(Window, start=minutes, end=minutes, days=st.lists(st.integers(0, 6), unique=True).map(tuple))
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
instants = st.integers(1_700_000_000, 1_760_000_000)


@given(windows, zones, instants)
def test_a_blackout_covers_the_wall_clock(window, name, instant):
    where = zone(name)
    assert forbids(window, where, instant) or not permits(window, where, instant)


@given(windows, zones, instants)
def test_both_agree_on_days_without_a_change_of_the_clocks(window, name, instant):
    where = zone(name)
    offsets = {datetime.fromtimestamp(instant, where).utcoffset()}
    for days in (-3, -2, -1, 1, 2):
        offsets.add((datetime.fromtimestamp(instant, where) + timedelta(days=days)).utcoffset())
    if len(offsets) == 1:
        assert forbids(window, where, instant) == permits(window, where, instant)


@given(windows, zones, instants)
def test_no_day_no_window(window, name, instant):
    never = Window(start=window.start, end=window.end, days=())
    assert not permits(never, zone(name), instant)
    assert not forbids(never, zone(name), instant)
