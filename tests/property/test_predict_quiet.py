"""Laws of quiet hours and spells: whatever the history holds, the hour was seen, and no spell is told without ground."""

from math import ceil, isfinite

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rebalancerd.cluster.quiet import QuietHour
from rebalancerd.cluster.series import Series
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.quiet import ABSURD, CLEARLY_BELOW, MIN_DAYS, QUANTILE, quiet_hours
from rebalancerd.predict.quiet_spell import LEAST_STEPS, STEPS_AHEAD, quiet_spells

rates = st.one_of(st.floats(width=32), st.sampled_from([0.0, 1e6, 1e8]), st.just(float("nan")))


@st.composite
def histories(draw: st.DrawFn) -> tuple[Series, float]:
    """Up to twelve days of hourly figures of three VMs, most of a kind, some odd, ending at any instant."""
    rows = draw(st.integers(0, 12 * 24))
    end = draw(st.floats(0, 1e9))
    fill = draw(st.sampled_from([1e6, 1e8, float("nan")]))
    values = draw(npst.arrays(np.float32, (rows, 3), elements=rates, fill=st.just(fill)))
    return Series(resource="dirty", ids=("a", "b", "c"), values=values, step_seconds=3600.0, end=end), end


def recorded(series: Series, column: int) -> dict[int, list[float]]:
    """Figures that can be a rate, by hour of day, read row by row."""
    found: dict[int, list[float]] = {hour: [] for hour in range(24)}
    rows = series.values.shape[0]
    for t in range(rows):
        value = float(series.values[t, column])
        middle = series.end - (rows - 1 - t) * 3600.0 - 1800.0
        if isfinite(value) and 0 <= value <= ABSURD:
            found[int(middle // 3600) % 24].append(value)
    return found


@given(histories(), st.floats(0, 1e9))
@settings(max_examples=120, deadline=None)
def test_a_quiet_hour_was_seen_often_enough_and_is_the_least(history: tuple[Series, float], now: float) -> None:
    series, at = history
    empty = Series.empty("dirty", 300.0, at)
    for column, found in enumerate(quiet_hours(series, lambda: empty, dict.fromkeys(series.ids, now), at)):
        typical = {
            hour: sorted(values)[ceil(QUANTILE * (len(values) - 1))]
            for hour, values in recorded(series, column).items()
            if len(values) >= MIN_DAYS
        }
        if isinstance(found, QuietHour):
            assert found.rate_bytes_per_second == typical[found.hour_utc] == min(typical.values())
            assert found.rate_bytes_per_second <= CLEARLY_BELOW * now
            assert found.seen_days == len(recorded(series, column)[found.hour_utc])
        else:
            assert found.reason
            assert not typical or min(typical.values()) > CLEARLY_BELOW * now


@given(histories(), st.floats(0, 1e9))
@settings(max_examples=40, deadline=None)
def test_one_by_one_is_the_same_as_all_at_once(history: tuple[Series, float], now: float) -> None:
    series, at = history
    empty = Series.empty("dirty", 300.0, at)

    together = quiet_hours(series, lambda: empty, dict.fromkeys(series.ids, now), at)
    alone = tuple(quiet_hours(series, lambda: empty, {uuid: now}, at)[0] for uuid in series.ids)

    assert together == alone


@given(histories(), histories())
@settings(max_examples=60, deadline=None)
def test_the_fine_series_only_ever_adds_caution(coarse: tuple[Series, float], other: tuple[Series, float]) -> None:
    """With the same hours seen, what the minutes say can raise what an hour is held for, never lower it."""
    (series, at), (minutes, _) = coarse, other
    finer = Series(resource="dirty", ids=minutes.ids, values=minutes.values, step_seconds=300.0, end=series.end)
    empty = Series.empty("dirty", 300.0, at)
    now = dict.fromkeys(series.ids, 1e9)
    for plain, strict in zip(
        quiet_hours(series, lambda: empty, now, at), quiet_hours(series, lambda: finer, now, at), strict=True
    ):
        if isinstance(plain, QuietHour) and isinstance(strict, QuietHour) and plain.seen_days == strict.seen_days:
            assert plain.hour_utc != strict.hour_utc or strict.rate_bytes_per_second >= plain.rate_bytes_per_second


@st.composite
def fine_histories(draw: st.DrawFn) -> tuple[Series, float]:
    """Up to half a day of five-minute figures of three VMs, some odd, and an instant up to an hour from its end."""
    rows = draw(st.integers(0, 144))
    end = draw(st.floats(1e6, 1e9))
    fill = draw(st.sampled_from([0.0, 1e6, 1e8, float("nan")]))
    values = draw(npst.arrays(np.float32, (rows, 3), elements=rates, fill=st.just(fill)))
    late = draw(st.floats(-3600.0, 3600.0))
    return Series(resource="dirty", ids=("a", "b", "c"), values=values, step_seconds=300.0, end=end), end + late


presents = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 1e6, 1e8]))


@given(fine_histories(), st.lists(presents, min_size=3, max_size=3), st.sampled_from(sorted(NAIVE)))
@settings(max_examples=120, deadline=None)
def test_a_quiet_spell_lies_within_the_hour_is_well_below_now_and_rests_on_a_history(
    history: tuple[Series, float], now: list[float | None], way: str
) -> None:
    series, at = history
    empty = Series.empty("dirty", 3600.0, at)
    asked = dict(zip(series.ids, now, strict=True))
    for uuid, spell in quiet_spells(NAIVE[way], series, empty, asked, at).items():
        column, present = series.values[:, series.ids.index(uuid)], asked[uuid]
        assert present is not None
        assert 0 < present <= ABSURD
        assert 0 <= spell.rate_bytes_per_second <= CLEARLY_BELOW * present
        assert 0 < spell.starts_in_seconds <= (STEPS_AHEAD + 1) * series.step_seconds
        assert ((column >= 0) & (column <= ABSURD)).sum() >= LEAST_STEPS
        assert way != "persistence"


@given(st.integers(0, 143), st.integers(LEAST_STEPS, 144), st.sampled_from(sorted(NAIVE)))
@settings(max_examples=60, deadline=None)
def test_gaps_in_a_steady_history_never_read_as_quiet(first: int, gap: int, way: str) -> None:
    values = np.full((144, 1), 1e8, dtype=np.float32)
    values[first : first + gap] = np.nan
    series = Series(resource="dirty", ids=("a",), values=values, step_seconds=300.0, end=3e8)

    assert quiet_spells(NAIVE[way], series, Series.empty("dirty", 3600.0, 3e8), {"a": 1e8}, 3e8) == {}
