"""The ledger keeps what it was told, as it was told."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rebalancerd.cluster.decision import CommandKind
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.refusal import Code, about_vm
from rebalancerd.ports import Ledger, LedgerUnavailableError
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import (
    NOW,
    OTHER,
    UUID,
    FixedClock,
    finished,
    make_cycle,
    make_migration,
    make_plan,
)

HOSTILE = 'x\x1b[31m"; DROP TABLE migrations; --\n\u202e'


def test_it_is_a_ledger(ledger: SqlLedger) -> None:
    """It has every method of the port, with its signature (checked by the type checker here)."""
    port: Ledger = ledger

    assert port.open_migrations() == ()


def test_a_cycle_comes_back_as_it_was(ledger: SqlLedger) -> None:
    number = ledger.record_cycle(make_cycle())

    assert list(ledger.cycles()) == [make_cycle(id=number)]


def test_cycles_come_newest_first_and_by_pages(ledger: SqlLedger) -> None:
    for n in range(5):
        ledger.record_cycle(make_cycle(reason=f"cycle {n}", refusals=(about_vm(Code.PINNED, UUID, f"r{n}"),)))

    last = ledger.cycles(limit=2)
    earlier = ledger.cycles(limit=10, before=last[-1].id)

    assert [c.reason for c in last] == ["cycle 4", "cycle 3"]
    assert [c.reason for c in earlier] == ["cycle 2", "cycle 1", "cycle 0"]
    assert [c.refusals[0].detail for c in (*last, *earlier)] == ["r4", "r3", "r2", "r1", "r0"]
    assert list(ledger.cycles(limit=0)) == []


def test_a_plan_comes_back_with_its_digest(ledger: SqlLedger) -> None:
    plan = make_plan(expires_at=1_800_000_300)  # an int where a float is declared

    ledger.record_plan(plan)
    ledger.record_plan(plan)

    assert ledger.plan("p-1") == plan
    assert ledger.plan("p-1").digest == plan.digest
    assert ledger.plan("p-2") is None


def test_a_plan_id_never_stands_for_two_plans(ledger: SqlLedger) -> None:
    ledger.record_plan(make_plan())

    with pytest.raises(LedgerUnavailableError, match="p-1 is on record with other content"):
        ledger.record_plan(make_plan(why="something else"))

    assert ledger.plan("p-1").why == "relieves h1"


def test_a_plan_changed_in_the_database_is_found_out(ledger: SqlLedger) -> None:
    ledger.record_plan(make_plan())
    with ledger._writing() as connection:
        connection.exec_driver_sql(
            'UPDATE plans SET body = replace(body, \'"destination":"h2"\', \'"destination":"h9"\')'
        )

    with pytest.raises(LedgerUnavailableError, match="p-1 on record was changed"):
        ledger.plan("p-1")


def test_a_migration_from_intent_to_verdict(ledger: SqlLedger, clock: FixedClock) -> None:
    intent = make_migration()
    ledger.open_intent(intent)
    assert ledger.open_migrations() == (intent,)

    running = replace(intent, state=MigrationState.RUNNING, started_at=NOW + 1)
    clock.now += 5
    ledger.update_migration(running)
    ledger.update_migration(running)
    assert ledger.open_migrations() == (running,)

    ledger.update_migration(finished(running))
    assert ledger.open_migrations() == ()
    assert ledger.migrations() == (finished(running),)
    with ledger.reading() as connection:
        events = connection.exec_driver_sql("SELECT state, at FROM migration_events ORDER BY id").all()
    assert [tuple(e) for e in events] == [("intent", NOW), ("running", NOW + 5), ("succeeded", NOW + 5)]


def test_an_intent_cannot_be_written_twice(ledger: SqlLedger) -> None:
    ledger.open_intent(make_migration())

    with pytest.raises(LedgerUnavailableError, match="m-1 is not recorded: it is on record already"):
        ledger.open_intent(make_migration(vm_uuid=OTHER))


def test_a_vm_has_one_open_migration_of_ours(ledger: SqlLedger) -> None:
    ledger.open_intent(make_migration())

    with pytest.raises(LedgerUnavailableError, match="m-2 is not recorded: its VM has the open migration m-1"):
        ledger.open_intent(make_migration("m-2"))

    ledger.update_migration(make_migration("foreign", ours=False, state=MigrationState.RUNNING))
    ledger.update_migration(make_migration(state=MigrationState.ABANDONED))
    ledger.open_intent(make_migration("m-2"))
    assert [r.id for r in ledger.open_migrations()] == ["foreign", "m-2"]


def test_migrations_by_age_vm_and_number(ledger: SqlLedger) -> None:
    for n in range(4):
        record = make_migration(f"m-{n}", vm_uuid=UUID if n % 2 else OTHER, intent_at=NOW + n)
        ledger.open_intent(record)
        ledger.update_migration(finished(record))

    assert [r.id for r in ledger.migrations()] == ["m-3", "m-2", "m-1", "m-0"]
    assert [r.id for r in ledger.migrations(since=NOW + 2)] == ["m-3", "m-2"]
    assert [r.id for r in ledger.migrations(vm_uuid=OTHER)] == ["m-2", "m-0"]
    assert [r.id for r in ledger.migrations(limit=1)] == ["m-3"]


def test_hostile_and_broken_names_are_kept_as_data(ledger: SqlLedger) -> None:
    """Control characters and quotes come back as they are; broken Unicode and NUL never stop a record."""
    ledger.open_intent(make_migration(vm_name=HOSTILE))
    ledger.open_intent(make_migration("m-2", vm_uuid=OTHER, vm_name="bad\udcff\0"))
    ledger.record_cycle(make_cycle(reason="odd \udcff", refusals=(about_vm(Code.PINNED, OTHER, "\udcff\0"),)))

    assert {r.vm_name for r in ledger.open_migrations()} == {HOSTILE, "bad?\0"}
    assert ledger.cycles()[0].reason == "odd ?"


def test_it_survives_being_opened_again(ledger: SqlLedger, reopen: Callable[[], SqlLedger]) -> None:
    ledger.open_intent(make_migration())
    ledger.record_plan(make_plan())
    ledger.add_command(CommandKind.PAUSE, at=NOW, by="me")
    ledger.close()

    again = reopen()

    assert again.open_migrations() == (make_migration(),)
    assert again.plan("p-1") == make_plan()
    assert again.operator_state(NOW).paused.by == "me"


def test_threads_write_at_the_same_time(ledger: SqlLedger) -> None:
    """Every row of every thread is there, and numbers are not given twice."""
    numbers: list[int] = []
    errors: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for n in range(10):
                numbers.append(ledger.record_cycle(make_cycle()))
                ledger.open_intent(make_migration(f"m-{thread}-{n}", vm_uuid=f"{thread}-{n}"))
                ledger.operator_state(NOW)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert sorted(numbers) == list(range(1, 41))
    assert len(ledger.open_migrations()) == 40


def test_two_connections_of_two_ledgers_do_not_lose_rows(ledger: SqlLedger, reopen: Callable[[], SqlLedger]) -> None:
    """Another process (here: another ledger on the file) writes in between."""
    second = reopen()
    for n in range(5):
        ledger.record_cycle(make_cycle(reason=f"a{n}"))
        second.record_cycle(make_cycle(reason=f"b{n}"))

    assert len(ledger.cycles(limit=100)) == 10


def test_retention_forgets_cycles_but_no_migration(ledger: SqlLedger) -> None:
    for plan_id, at in (("p-1", NOW - 500), ("p-old", NOW - 500), ("p-new", NOW)):
        ledger.record_plan(make_plan(plan_id, created_at=at, expires_at=at + 300))
    ledger.open_intent(make_migration(intent_at=NOW - 500))
    old, new = ledger.record_cycle(make_cycle(started_at=NOW - 500)), ledger.record_cycle(make_cycle())
    ledger.add_command(CommandKind.DRAIN, at=NOW - 500, by="me", subject="h1")

    gone = ledger.prune(NOW - 100)

    assert gone == 2
    assert [c.id for c in ledger.cycles()] == [new]
    assert ledger.plan("p-old") is None
    assert ledger.plan("p-1") is not None, "a migration came of it"
    assert ledger.plan("p-new") is not None
    assert len(ledger.open_migrations()) == 1
    assert ledger.operator_state(NOW).drained == {"h1"}
    assert ledger.integrity_check() == ()
    ledger.prune(NOW + 1)
    assert ledger.record_cycle(make_cycle()) > new > old, "numbers are never given again"


def test_plans_that_propose_nothing_are_kept_for_a_day(ledger: SqlLedger, clock: FixedClock) -> None:
    ledger.record_plan(make_plan("p-empty", steps=(), expires_at=NOW - 86_500))
    ledger.record_plan(make_plan("p-full", expires_at=NOW - 86_500))

    ledger.prune(NOW - 90 * 86_400)

    assert ledger.plan("p-empty") is None
    assert ledger.plan("p-full") is not None


def test_a_ledger_in_memory(clock: FixedClock) -> None:
    """For simulation; threads share it."""
    memory = SqlLedger("sqlite://", clock)
    memory.open_intent(make_migration())
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(memory.open_migrations()))
    thread.start()
    thread.join()
    memory.close()

    assert found == [make_migration()]


def test_its_file_is_private(ledger: SqlLedger, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
