"""Advice in the ledger: as it was given, judged once, added up, forgotten in time, and in ledgers made before there was any."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from rebalancerd.cluster.advice import AdviceScore, Verdict, WatchedHour
from rebalancerd.ports import AdviceLedger
from rebalancerd.record import database, evolve
from rebalancerd.record.schema import advice as advice_table
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.advice_world import DUE, T0, advice
from tests.unit.record.record_values import FixedClock, make_cycle, make_migration

HOUR = int(T0 // 3600)
DAY = 86_400.0


def score(number: int, verdict: Verdict = Verdict.RIGHT, **changes: object) -> AdviceScore:
    made = AdviceScore(advice_id=number, scored_at=DUE, verdict=verdict, reason="a got hot", relief=10.0, harm=0.0)
    return replace(made, **changes)


def test_it_is_a_ledger_of_advice(ledger: SqlLedger) -> None:
    port: AdviceLedger = ledger

    assert port.unscored_advice() == ()


def test_advice_comes_back_as_it_was_until_it_is_judged(ledger: SqlLedger, reopen: Callable[[], SqlLedger]) -> None:
    first, second = (ledger.add_advice(advice(id=0, step=n, cost=float("inf"))) for n in (1, 2))
    ledger.score_advice(score(first))
    ledger.close()
    again = reopen()

    assert again.unscored_advice() == ((second, advice(id=second, step=2, cost=float("inf"))),)
    assert again.advice() == (
        (advice(id=second, step=2, cost=float("inf")), None),
        (advice(id=first, step=1, cost=float("inf")), score(first)),
    )


def test_the_first_verdict_stays(ledger: SqlLedger) -> None:
    number = ledger.add_advice(advice())
    ledger.score_advice(score(number, Verdict.HARMFUL))
    ledger.score_advice(score(number, Verdict.RIGHT))

    assert [s.verdict for _, s in ledger.advice() if s] == [Verdict.HARMFUL]


def test_by_vm_age_and_number(ledger: SqlLedger) -> None:
    other = replace(advice().move, vm_uuid="other")
    for n in range(3):
        ledger.add_advice(advice(proposed_at=T0 + n * DAY, due_at=DUE + n * DAY))
    ledger.add_advice(advice(move=other))

    assert [a.id for a, _ in ledger.advice(limit=2)] == [4, 3]
    assert [a.id for a, _ in ledger.advice(since=T0 + DAY)] == [3, 2]
    assert [a.id for a, _ in ledger.advice(vm_uuid="other")] == [4]


def test_windows_that_reach_into_a_time(ledger: SqlLedger) -> None:
    ledger.add_advice(advice())

    assert ledger.advised_sources(DUE, DUE + 10) == (("a", T0, DUE),)
    assert ledger.advised_sources(DUE + 1, DUE + 10) == ()
    assert ledger.advised_sources(T0 - 10, T0 - 1) == ()


def test_a_row_that_cannot_be_read_does_not_hide_the_others(ledger: SqlLedger) -> None:
    broken, sound = ledger.add_advice(advice()), ledger.add_advice(advice())
    with ledger._writing() as connection:
        connection.execute(update(advice_table).where(advice_table.c.id == broken).values(body='{"id": 1}'))

    assert [(n, a is None) for n, a in ledger.unscored_advice()] == [(broken, True), (sound, False)]
    assert [a.id for a, _ in ledger.advice()] == [sound]


def test_hostile_names_are_kept_as_data(ledger: SqlLedger) -> None:
    name = 'x\x1b[31m"; DROP TABLE advice; --\n\0\udc80'
    number = ledger.add_advice(advice(vm_name=name, move=replace(advice().move, source=name)))

    ((found, given),) = ledger.unscored_advice()
    assert (found, given is not None) == (number, True)


def test_what_advice_and_hours_add_up_to(ledger: SqlLedger) -> None:
    verdicts = [Verdict.RIGHT, Verdict.RIGHT, Verdict.NEEDLESS, Verdict.HARMFUL, Verdict.UNKNOWN, Verdict.OVERTAKEN]
    for day, verdict in enumerate(verdicts):
        number = ledger.add_advice(advice(proposed_at=T0 + day // 2 * DAY))
        ledger.score_advice(score(number, verdict, followed_at=T0 if day < 1 else None))
    ledger.add_advice(advice())
    ledger.score_advice(score(ledger.add_advice(advice(proposed_at=T0 - DAY))))
    ledger.add_watched_hour(WatchedHour(hour=HOUR - 1, known=1.0, hot_seconds=900.0, unadvised=9))
    ledger.add_watched_hour(WatchedHour(hour=HOUR, known=0.5, hot_seconds=300.0, foreseen=2, late=1, unadvised=3))
    ledger.add_watched_hour(WatchedHour(hour=HOUR, known=1.0, hot_seconds=0.0))
    ledger.add_watched_hour(WatchedHour(hour=HOUR + 1, known=1.0, hot_seconds=0.0))

    record = ledger.advice_record(HOUR * 3600.0)

    assert {v: record.count(v) for v in Verdict} == {
        Verdict.RIGHT: 2,
        Verdict.NEEDLESS: 1,
        Verdict.HARMFUL: 1,
        Verdict.UNKNOWN: 1,
        Verdict.OVERTAKEN: 1,
    }
    assert (record.scored, record.open, record.followed, record.advised_days) == (4, 1, 1, 2)
    assert record.watched_days == pytest.approx(1.5 / 24)
    assert (record.hot_seconds, record.foreseen, record.late, record.unadvised) == (300.0, 2, 1, 3)
    assert ledger.last_watched_hour(HOUR + 5) == HOUR + 1
    assert ledger.last_watched_hour(HOUR) == HOUR, "an hour that a clock ahead of time wrote stops nothing"
    assert ledger.last_watched_hour(0) is None


def test_an_empty_ledger_has_an_empty_record(ledger: SqlLedger) -> None:
    record = ledger.advice_record(0.0)

    assert (record.scored, record.open, record.watched_days, record.hotspots) == (0, 0, 0.0, 0)


def test_it_is_forgotten_with_its_score(ledger: SqlLedger) -> None:
    old, new = (ledger.add_advice(advice(proposed_at=at)) for at in (T0, T0 + DAY))
    ledger.score_advice(score(old))
    ledger.add_watched_hour(WatchedHour(hour=HOUR, known=1.0, hot_seconds=0.0))

    assert ledger.prune(T0 + DAY) == 2
    assert [a.id for a, _ in ledger.advice()] == [new]
    assert ledger.advice_record(0.0).scored == 0
    assert ledger.integrity_check() == ()


def test_a_ledger_of_the_first_schema_is_brought_up_to_date(path: Path, clock: FixedClock) -> None:
    """With everything in it: the version before knew no advice."""
    from alembic import command

    made = SqlLedger(f"sqlite:///{path}", clock)
    cycle = made.record_cycle(make_cycle())
    made.open_intent(make_migration())
    made.close()
    engine = database._engine(database.make_url(f"sqlite:///{path}"))
    config = evolve.alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0001"
    engine.dispose()

    again = SqlLedger(f"sqlite:///{path}", clock)

    assert list(again.cycles()) == [make_cycle(id=cycle)]
    assert again.open_migrations() == (make_migration(),)
    number = again.add_advice(advice(id=0))
    assert again.unscored_advice() == ((number, advice(id=number)),)
    again.close()
