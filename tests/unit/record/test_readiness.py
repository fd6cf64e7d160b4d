"""When a record of advice is good enough for the next mode, and what it lacks if it is not."""

import pytest

from rebalancerd.cluster.advice import AdviceRecord, Verdict
from rebalancerd.cluster.policy import Mode
from rebalancerd.record.readiness import BARS, readiness


def record(right=0, needless=0, harmful=0, unknown=0, *, watched=9.0, days=8) -> AdviceRecord:
    verdicts = {
        Verdict.RIGHT: right,
        Verdict.NEEDLESS: needless,
        Verdict.HARMFUL: harmful,
        Verdict.UNKNOWN: unknown,
    }
    return AdviceRecord(verdicts=verdicts, watched_days=watched, advised_days=days)


def answers(told: AdviceRecord) -> dict[Mode, bool]:
    return {r.mode: r.ready for r in readiness(told)}


@pytest.mark.parametrize(
    ("told", "guarded", "auto"),
    [
        (record(), False, False),
        (record(31, 2, 1), True, False),
        (record(31, 2, 1, watched=6.9), False, False),
        (record(17, 2), False, False),
        (record(16, 4), True, False),
        (record(15, 5), False, False),
        (record(38, 0, 2), True, False),
        (record(37, 0, 3), False, False),
        (record(20, days=2), False, False),
        (record(49, 1, watched=14.0), True, True),
        (record(48, 1, 1, watched=14.0), True, True),
        (record(47, 1, 2, watched=14.0), True, False),
        (record(44, 6, watched=14.0), True, False),
        (record(49, 1, watched=13.9), True, False),
        (record(50, 0, watched=14.0, days=6), True, False),
        (record(watched=14.0), True, False),
        (record(3, watched=14.0), True, False),
        (record(3, 1, watched=20.0), False, False),
        (record(3, 0, 1, watched=29.0), False, False),
        (record(watched=28.0), True, True),
        (record(unknown=1, watched=28.0), False, False),
        (record(20, unknown=21), False, False),
    ],
)
def test_modes(told: AdviceRecord, guarded: bool, auto: bool) -> None:
    assert answers(told) == {Mode.GUARDED: guarded, Mode.AUTO: auto}


def test_what_is_missing_is_said() -> None:
    guarded, auto = readiness(record(3, watched=1.25))

    assert guarded.reason == "1.2 of 7 days watched; 3 of 20 pieces of advice scored"
    assert auto.reason == "1.2 of 14 days watched; 3 of 50 pieces of advice scored"
    (guarded, _) = readiness(record(10, 8, 2, days=1))
    assert guarded.reason == ("advice on 1 of 3 days; 50 % right, 80 % needed; 10.0 % harmful, at most 5 % allowed")


def test_auto_asks_for_all_that_guarded_does_and_more() -> None:
    guarded, auto = BARS[Mode.GUARDED], BARS[Mode.AUTO]

    assert auto.watched_days > guarded.watched_days
    assert auto.scored > guarded.scored
    assert auto.advised_days > guarded.advised_days
    assert auto.right_share > guarded.right_share
    assert auto.harmful_share < guarded.harmful_share
    assert auto.quiet_days > guarded.quiet_days
