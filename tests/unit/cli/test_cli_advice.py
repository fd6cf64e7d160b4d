"""Advice on the command line: the line in ``status``, and ``history --advice``."""

from dataclasses import replace
from typing import Any

import pytest

from rebalancerd.cluster.advice import AdviceRecord, AdviceScore, Verdict
from rebalancerd.record.readiness import readiness
from rebalancerd.shadow import ShadowState
from tests.unit.record import advice_world
from tests.unit.serve import serve_world as build

EVIL = "evil\x1b[2J\n"


def test_status_has_a_line(run: Any, world: build.World) -> None:
    assert "\nadvice " not in run("status").out
    record = AdviceRecord(verdicts={Verdict.RIGHT: 3}, watched_days=2.0, advised_days=1)
    world.advice = ShadowState(record=record, readiness=readiness(record))

    (line,) = [text for text in run("status").out.splitlines() if text.startswith("advice")]
    assert line == (
        "advice       3 pieces judged in 2.0 days: 3 right, 0 needless, 0 harmful; not good enough for auto: "
        "2.0 of 14 days watched; 3 of 50 pieces of advice scored"
    )


def test_history_lists_each_piece_with_its_verdict(run: Any, world: build.World) -> None:
    assert "no advice is on record" in run("history", "--advice").out
    given = replace(advice_world.advice(), vm_name=EVIL)
    score = AdviceScore(
        advice_id=1,
        scored_at=given.due_at,
        verdict=Verdict.NEEDLESS,
        reason="a never got hot",
        followed_at=given.due_at,
    )
    world.ledger.advised = [(given, score), (replace(given, id=2), None)]

    done = run("history", "--advice")
    assert done.code == 0
    assert "needless, followed" in done.out
    assert "a never got hot" in done.out
    assert "open" in done.out
    assert "is judged after 2023-11-14" in done.out
    assert "\x1b[2J" not in done.out


@pytest.mark.parametrize("words", [["history"], ["history", "--advice"]])
def test_its_json_has_both(run: Any, words: list[str]) -> None:
    assert '"advice"' in run(*words, "--output", "json").out
