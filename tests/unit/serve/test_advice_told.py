"""The record of advice as operators see it: the line in ``status``, the API's answers, ``history --advice``, metrics."""

from dataclasses import replace

import pytest

from rebalancerd.cli.status import advice_words
from rebalancerd.cluster.advice import AdviceRecord, AdviceScore, Verdict
from rebalancerd.record.readiness import readiness
from rebalancerd.serve.advice_rows import advice_row
from rebalancerd.serve.metrics import Metrics
from rebalancerd.serve.schemas import History, Status
from rebalancerd.shadow import ShadowState
from tests.unit.record import advice_world
from tests.unit.serve import serve_world as build

V = Verdict


def state(watched: float, days: int, verdicts: dict[Verdict, int], **changes: object) -> ShadowState:
    record = AdviceRecord(verdicts=verdicts, watched_days=watched, advised_days=days, open=2, foreseen=4, late=1)
    return replace(ShadowState(record=record, readiness=readiness(record), scored=verdicts), **changes)


GOOD = state(9.0, 7, {V.RIGHT: 31, V.NEEDLESS: 2, V.HARMFUL: 1})


@pytest.mark.parametrize(
    ("told", "mode", "words"),
    [
        (
            GOOD,
            "recommend",
            (
                "34 pieces judged in 9.0 days: 31 right, 2 needless, 1 harmful; good enough for guarded; not good enough for "
                "auto: 9.0 of 14 days watched; 34 of 50 pieces of advice scored; 2.9 % harmful, at most 2 % allowed"
            ),
        ),
        (
            state(1.26, 1, {V.RIGHT: 3, V.UNKNOWN: 1, V.OVERTAKEN: 2}),
            "recommend",
            (
                "6 pieces judged in 1.3 days: 3 right, 0 needless, 0 harmful, 1 unknown, 2 overtaken; not good enough for "
                "guarded: 1.3 of 7 days watched; 3 of 20 pieces of advice scored"
            ),
        ),
        (
            state(21.0, 12, {V.RIGHT: 60}),
            "guarded",
            "60 pieces judged in 21 days: 60 right, 0 needless, 0 harmful; good enough for auto",
        ),
        (
            state(0.0, 0, {}, error="disk full"),
            "guarded",
            (
                "0 pieces judged in 0.0 days: 0 right, 0 needless, 0 harmful; not good enough for auto: 0.0 of 14 days watched; "
                "0 of 50 pieces of advice scored; not up to date: disk full"
            ),
        ),
    ],
)
def test_the_line_in_status(told: ShadowState, mode: str, words: str) -> None:
    assert advice_words(advice_row(told), mode) == words


def test_the_answer_to_status_tells_it(world: build.World) -> None:
    assert world.control.status().advice is None
    world.advice = GOOD

    told = Status.model_validate(world.control.status().model_dump(mode="json")).advice
    assert told is not None
    assert (told.scored, told.right, told.needless, told.harmful, told.open) == (34, 31, 2, 1, 2)
    assert (told.foreseen, told.late, told.unadvised, told.watched_days) == (4, 1, 0, 9.0)
    assert [(r.mode, r.ready) for r in told.ready] == [("guarded", True), ("auto", False)]


def test_history_tells_each_piece(world: build.World) -> None:
    given = advice_world.advice(move=replace(advice_world.advice().move, vm_uuid=build.WEB), cost=float("inf"))
    score = AdviceScore(
        advice_id=1, scored_at=given.due_at, verdict=V.HARMFUL, reason="b would have been hot", followed_at=given.due_at
    )
    world.ledger.advised = [(given, score), (replace(given, id=2), None)]

    told = History.model_validate(world.control.history(limit=5, vm="web1").model_dump(mode="json")).advice
    assert [(a.id, a.verdict, a.reason) for a in told] == [(1, "harmful", "b would have been hot"), (2, None, "")]
    assert (told[0].followed_at, told[0].predicted_cost, told[0].predicted_relief) == (given.due_at, None, 900.0)


def test_metrics() -> None:
    """Counters grow by what is new; gauges show the record."""
    metrics = Metrics()

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"rebalancerd_advice_{name}", labels)

    assert value("scored_total", verdict="harmful") == 0
    for _ in range(2):
        metrics.observe_advice(GOOD)
    assert value("scored_total", verdict="right") == 31
    assert value("record", verdict="needless") == 2
    assert value("hotspots", advice="foreseen") == 4
    assert (value("ready", mode="guarded"), value("ready", mode="auto")) == (1, 0)

    metrics.observe_advice(replace(state(10.0, 7, {V.RIGHT: 5}), scored={**GOOD.scored, V.RIGHT: 33, V.UNKNOWN: 1}))
    assert (value("scored_total", verdict="right"), value("scored_total", verdict="unknown")) == (33, 1)
    assert value("record", verdict="right") == 5
    assert (value("record", verdict="needless"), value("ready", mode="guarded")) == (0, 0)
