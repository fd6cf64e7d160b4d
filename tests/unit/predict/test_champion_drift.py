"""When a challenger is promoted, and when a model in use loses its trust and gets it back."""

import math
from dataclasses import dataclass, replace

import pytest

from rebalancerd.predict import champion, drift
from rebalancerd.predict.dataset import sound
from rebalancerd.predict.drift import Drift, Trust, Watched
from tests.unit.predict import learned_models as models


@dataclass(frozen=True)
class Score:
    rows: int = 40
    total_time_gmre: float | None = 0.10
    bad_share: float | None = 0.05
    coverage90: float | None = 0.9
    false_converges: float | None = None


PHYSICS = Score(total_time_gmre=0.30, bad_share=0.2, coverage90=0.95)
CHAMPION = Score(total_time_gmre=0.15, bad_share=0.1)


def test_better_than_both_is_promoted() -> None:
    found = champion.decide(Score(), CHAMPION, PHYSICS)

    assert found.promote
    assert "10.0%" in found.why and "15.0%" in found.why and "30.0%" in found.why


def test_without_a_champion_physics_is_to_be_beaten() -> None:
    assert champion.decide(Score(), None, PHYSICS).promote
    assert not champion.decide(Score(total_time_gmre=0.31), None, PHYSICS).promote


@pytest.mark.parametrize(
    ("challenger", "part"),
    [
        (Score(total_time_gmre=0.20), "of the champion"),
        (Score(total_time_gmre=0.149), "of the champion"),  # better by chance only
        (Score(total_time_gmre=0.40), "of the champion"),
        (Score(total_time_gmre=None), "unknown"),
        (Score(total_time_gmre=math.nan), "not clearly below"),
        (Score(bad_share=0.11), "bad predictions"),
        (Score(bad_share=None), "bad predictions"),
        (Score(bad_share=math.nan), "bad predictions"),
        (Score(false_converges=0.5), "falsely said to converge"),
        (Score(coverage90=0.79), "bounds held in 79.0%"),
        (Score(coverage90=None), "bounds held in unknown"),
        (Score(coverage90=math.nan), "bounds held in"),
        (Score(rows=11), "11 migrations only"),
        (Score(rows=41), "other migrations"),
    ],
)
def test_what_is_not_clearly_better_stays_challenger(challenger: Score, part: str) -> None:
    found = champion.decide(challenger, CHAMPION, PHYSICS)

    assert not found.promote
    assert part in found.why


def test_beating_the_champion_is_not_enough_where_physics_is_better() -> None:
    found = champion.decide(Score(), replace(CHAMPION, total_time_gmre=0.5), replace(PHYSICS, total_time_gmre=0.09))

    assert not found.promote
    assert "physics" in found.why


def test_a_champion_without_figures_is_not_beaten_by_accident() -> None:
    assert not champion.decide(Score(), replace(CHAMPION, total_time_gmre=math.nan), PHYSICS).promote


def test_the_newest_are_tested_on() -> None:
    rows = [models.labelled(i, seconds=10.0) for i in (*range(20, 40), *range(20))]
    learned, tested = champion.split(rows)

    assert [r.at for r in learned] == list(range(28))
    assert [r.at for r in tested] == list(range(28, 40))
    assert champion.split(rows[:5])[0] == ()


def test_absurd_rows_are_left_out_and_named() -> None:
    good = [models.labelled(i, seconds=10.0) for i in range(20)]
    bad = models.labelled(99, seconds=-1.0)
    found = champion.screen([bad, *reversed(good)], sound, [("m-0", "unreadable")])

    assert list(found.rows) == good
    assert [name for name, _ in found.absurd] == ["m-0", "m-99"]
    assert found.stop is None


def test_where_many_are_absurd_none_is_believed() -> None:
    good = [models.labelled(i, seconds=10.0) for i in range(20)]
    bad = [models.labelled(50 + i, seconds=1e12) for i in range(6)]
    found = champion.screen([*good, *bad], sound)

    assert found.rows == ()
    assert found.stop is not None and found.stop.startswith("6 of 26 migrations are absurd")


# drift


def watched(model_off: float, physics_off: float, *, spread: float = 10.0, index: int = 0, **changes: bool) -> Watched:
    """A migration of 20 s that the model and physics mistook by those factors."""
    row = models.labelled(index, seconds=20.0, **changes)
    return Watched(row, models.cost(20.0 * model_off, spread=spread), models.cost(20.0 * physics_off))


def judged(items: list[Watched], trust: Trust | None = None, now: float = 1000.0) -> Trust:
    return drift.judge(trust or Trust(reason="new"), drift.measure(items), now=now, least_rows=12)


def test_a_good_model_keeps_its_trust_unchanged() -> None:
    trust = Trust(since=5.0, reason="new")

    assert judged([watched(1.1, 1.4) for _ in range(30)], trust) is trust


def test_clearly_worse_than_physics_is_demoted() -> None:
    found = judged([watched(2.0 + 0.01 * i, 1.2) for i in range(20)])

    assert found == Trust(trusted=False, since=1000.0, reason=found.reason, after=1000.0)
    assert "clearly worse than physics over 20 migrations" in found.reason


@pytest.mark.parametrize("count", [1, 2, 5, 11])
def test_a_few_bad_runs_do_not_demote(count: int) -> None:
    assert judged([watched(20.0, 1.0, spread=1.0) for _ in range(count)]).trusted


@pytest.mark.parametrize("rows", [12, 20, 50])
def test_two_bad_runs_among_good_ones_do_not_demote(rows: int) -> None:
    items = [watched(1.1, 1.12) for _ in range(rows - 2)] + [watched(0.02, 1.1, spread=1.01)] * 2

    assert judged(items).trusted


def test_a_little_worse_is_not_enough() -> None:
    assert judged([watched(1.25, 1.2) for _ in range(50)]).trusted


def test_bounds_that_do_not_hold_demote() -> None:
    """Its expected times are good, but half of the migrations take longer than its upper bound."""
    items = [watched(0.95, 0.8, spread=1.01 if i % 2 else 2.0) for i in range(24)]
    found = judged(items)

    assert not found.trusted
    assert "12 of 24 migrations" in found.reason


def test_runs_that_never_ended_tell_of_bounds_only() -> None:
    told = watched(1.0, 1.0, succeeded=False)
    found = drift.measure([told, watched(1.0, 1.0)])

    assert (found.rows, found.bounded, found.covered) == (1, 2, 1)
    warned = replace(told, model=replace(told.model, non_convergence=models.Estimate(value=0.4, upper=0.6)))
    assert drift.measure([warned]).covered == 1
    assert not judged([told] * 20).trusted


def test_nothing_watched_decides_nothing() -> None:
    assert drift.measure([]) == Drift()
    assert judged([]).trusted
    demoted = Trust(trusted=False, since=1.0, reason="bad")
    assert judged([], demoted) is demoted


def test_trust_comes_back_when_it_is_right_again_and_not_before() -> None:
    demoted = Trust(trusted=False, since=1.0, reason="bad", after=1.0)

    assert judged([watched(1.1, 1.3) for _ in range(11)], demoted) is demoted, "too few"
    assert judged([watched(1.3, 1.28) for _ in range(30)], demoted) is demoted, "not clearly worse is not right"
    assert judged([watched(0.9, 0.8, spread=1.01) for _ in range(30)], demoted) is demoted, "bounds do not hold"
    again = judged([watched(1.1, 1.3) for _ in range(12)], demoted)
    assert again.trusted and again.since == again.after == 1000.0
    assert "right again over 12 migrations" in again.reason
