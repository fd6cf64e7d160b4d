"""Skill scores, coverage and widths: forecasts held against what came, and what follows from a day of them."""

import math
from dataclasses import replace

import numpy as np
import pytest

from rebalancerd.cluster.series import Series
from rebalancerd.predict.demand.skill import (
    MODEL,
    REFERENCES,
    SCORED_STEPS,
    WAYS,
    Due,
    Tally,
    missed,
    score,
    skill_of,
)
from rebalancerd.predict.demand.trial import (
    FACTOR_LEAST,
    FACTOR_MOST,
    Factors,
    Record,
    adapted,
    judge,
)
from rebalancerd.predict.drift import Trust

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
IDS = ("u", "v", "w")
ON = {"u": ("a", 2.0), "v": ("a", 4.0), "w": ("b", 2.0)}
HOUR = 3600.0


def due(column: int = 0, at: float = 1200.0, off: float = 0.0) -> Due:
    """Three VMs of which the model says 0.5 + off, persistence 0.4 and everybody else 0.3."""
    means = np.full((len(WAYS), 3), 0.3, dtype=np.float32)
    means[0], means[1] = 0.5 + off, 0.4
    return Due(
        column=column,
        made_at=at - 300.0 * SCORED_STEPS[column],
        due=at,
        ids=IDS,
        hosts=tuple(ON[i][0] for i in IDS),
        sizes=np.array([ON[i][1] for i in IDS]),
        means=means,
        high=means + np.float32(0.05),
        levels=LEVELS,
        quantiles=np.tile(np.array([0.4, 0.45, 0.5, 0.55, 0.6], dtype=np.float32), (3, 1)),
    )


def series(shares: tuple[float, ...] = (0.5, 0.5, 0.5), end: float = 1200.0) -> Series:
    values = np.full((4, 3), np.nan, dtype=np.float32)
    values[-1] = [share * ON[i][1] for share, i in zip(shares, IDS, strict=True)]
    return Series(resource="vm_cpu_cores", ids=IDS, values=values, step_seconds=300.0, end=end)


def test_a_skill_score_is_one_less_the_ratio_of_mean_squared_errors() -> None:
    tally = Tally.none()
    for column in range(3):
        tally = tally.plus(score(due(column, off=0.05), series(), ON))
    found = skill_of(tally)

    assert found.count == 9 and tally.squared.shape == (3, 5)
    assert found.best == "persistence"
    assert found.overall == pytest.approx(1 - 0.05**2 / 0.1**2, abs=1e-4)
    assert found.by_step[2]["ewma"] == pytest.approx(1 - 0.05**2 / 0.2**2, abs=1e-4)
    assert math.sqrt(found.errors["persistence"]) == pytest.approx(0.1, abs=1e-4)
    assert found.coverage == (1.0, 1.0, 1.0)


def test_the_pinball_of_the_95_percent_quantile() -> None:
    """The model's quantile, 0.55, lies 0.05 above what came: a loss of 0.05 × 0.05; persistence's, 0.45, as far below."""
    tally = score(due(), series(), ON)

    assert tally.pinball[0, WAYS.index(MODEL)] == pytest.approx(3 * 0.05 * 0.05, abs=1e-6)
    assert tally.pinball[0, WAYS.index("persistence")] == pytest.approx(3 * 0.95 * 0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("seen", "on", "scored"),
    [
        (series((math.nan, 0.5, 0.5)), ON, 2),
        (series((math.inf, 0.5, -0.5)), ON, 1),
        (series(), {**ON, "u": ("b", 2.0)}, 2),  # moved: its history is in cores of another host
        (series(), {**ON, "v": ("a", 8.0)}, 2),  # resized
        (series(), {"w": ON["w"]}, 1),  # gone
        (series(end=1500.0), ON, 0),  # nothing recorded at its instant
        (series(end=1210.0), ON, 0),  # rows at other instants
        (series(end=9e9), ON, 0),  # the clock jumped: long out of the ring
        (series(end=600.0), ON, 0),  # not yet
        (replace(series(), ids=("x", "y", "z")), ON, 0),
    ],
)
def test_what_cannot_be_compared_is_not_scored(seen: Series, on: dict[str, tuple[str, float]], scored: int) -> None:
    tally = score(due(), seen, on)

    assert tally.count.tolist() == [scored, 0, 0]
    assert np.isfinite(tally.squared).all()


def test_values_outside_the_central_90_percent_and_ties() -> None:
    quantiles = np.array([[0.4, 0.45, 0.5, 0.55, 0.6]] * 3 + [[0.0, 0.0, 0.0, 0.0, 0.2], [0.0] * 5], dtype=np.float32)
    found = missed(LEVELS, quantiles, np.array([0.3, 0.5, 0.7, 0.0, 0.0], dtype=np.float32))

    assert found[:3].tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    assert found[3] == pytest.approx([0.05 / 0.95, 0.0]), "idle, as three quarters of the forecasts said"
    assert found[4] == pytest.approx([0.05, 0.05]), "always idle: neither too narrow nor too wide"


def hours(record: Record, first: int, count: int, off: float, at: int = 0) -> Record:
    """With a tally of the model off by that much for each hour."""
    for hour in range(first, first + count):
        record = record.plus((at + hour) * HOUR + 10.0, score(due(0, off=off), series(), ON))
    return record


BAD, GOOD = 0.2, 0.01


@pytest.mark.parametrize("count", [1, 12, 24])
def test_no_verdict_before_a_day(count: int) -> None:
    record = hours(Record(HOUR, {}), 100, count, BAD)
    trust, skill = judge(Trust(), record, now=(100 + count) * HOUR - 60)

    assert trust.trusted and not skill.judged
    assert skill.overall is not None and skill.overall < 0


def test_a_day_below_zero_demotes_and_a_day_above_promotes() -> None:
    record = hours(Record(HOUR, {}), 100, 25, BAD)
    demoted, skill = judge(Trust(), record, now=124.5 * HOUR)
    assert not demoted.trusted and skill.judged
    assert "worse than persistence over a day: skill -3.00" in demoted.reason

    record = hours(record, 125, 12, GOOD)
    still, _ = judge(demoted, record, now=136.5 * HOUR)
    assert still == demoted, "what demoted it, and half a day, are no day"
    record = hours(record, 137, 14, GOOD)
    again, _ = judge(still, record, now=150.5 * HOUR)
    assert again.trusted and "better than persistence again over a day" in again.reason


def test_a_day_with_holes_is_none() -> None:
    record = hours(hours(Record(HOUR, {}), 100, 2, BAD), 120, 5, BAD)

    assert judge(Trust(), record, now=124.5 * HOUR)[0].trusted


def test_a_clock_that_went_back_leaves_no_scores_in_the_future() -> None:
    record = hours(Record(HOUR, {}), 100, 30, BAD)

    assert sorted(record.kept(110 * HOUR).parts) == list(range(100, 111))
    assert record.kept(10 * HOUR).parts == {}
    assert record.kept(9e9).parts == {}
    assert judge(Trust(), record, now=110 * HOUR)[0].trusted


def test_nothing_scored_is_no_skill() -> None:
    assert skill_of(Tally.none()).overall is None
    assert judge(Trust(), Record(HOUR, {}), now=1e9)[0] == Trust()
    assert len(REFERENCES) == 4


def batch(low: float, high: float) -> Tally:
    tally = Tally.none()
    tally.count[:] = 100.0
    tally.missed[:, 0], tally.missed[:, 1] = 100 * low, 100 * high
    return tally


def test_widths_are_bounded_and_each_side_is_its_own() -> None:
    factors = Factors()
    for _ in range(200):
        factors = adapted(factors, batch(0.9, 0.0))
    assert (factors.low, factors.high) == (FACTOR_MOST, pytest.approx(FACTOR_LEAST, rel=0.5))
    for _ in range(2000):
        factors = adapted(factors, batch(0.0, 0.05))
    assert factors.low == FACTOR_LEAST
    assert adapted(factors, Tally.none()) == factors
