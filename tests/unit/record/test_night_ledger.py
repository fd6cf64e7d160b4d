"""Nights in the ledger: written while they go on, read again after a restart, kept when all around them is forgotten."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, update

from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.night import Evening, Night, NightsTotal
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record import schema
from rebalancerd.record.export import lines
from rebalancerd.record.salvage import salvage
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import NOW, UUID, FixedClock

HOUR = 3600.0
NIGHT = Night(
    window="night (0 20 * * * to 0 6 * * *)",
    began_at=NOW,
    ends_at=NOW + 10 * HOUR,
    noted_at=NOW,
    mode="auto",
    evening=Evening(vms=((UUID, "h1"), ("odd-\udcff", "h2"))),
)
KEPT = Evening(vms=((UUID, "h1"), ("odd-?", "h2")))


def over(night: Night, kwh: float) -> Night:
    end = night.began_at + 10 * HOUR
    return replace(night, unfolded_joules=kwh * 3.6e6, asleep_seconds=(("h2", 2 * HOUR),), noted_at=end, ended_at=end)


def move(number: str, ended_at: float | None, *, seconds: float | None = 60.0, ours: bool = True) -> MigrationRecord:
    return MigrationRecord(
        id=number,
        vm_uuid=number,
        vm_name=number,
        source="h1",
        destination="h2",
        state=MigrationState.SUCCEEDED if ended_at else MigrationState.RUNNING,
        intent_at=NOW,
        started_at=None if seconds is None or ended_at is None else ended_at - seconds,
        ended_at=ended_at,
        ours=ours,
    )


def test_a_night_under_way_is_there_after_a_restart_with_its_evening(
    ledger: SqlLedger, reopen: Callable[[], SqlLedger]
) -> None:
    assert ledger.night_under_way() is None
    number = ledger.record_night(NIGHT)
    later = replace(NIGHT, id=number, noted_at=NOW + HOUR, actual_joules=5.0, evening=KEPT)
    assert ledger.record_night(later) == number

    assert reopen().night_under_way() == later
    assert reopen().nights() == (replace(later, evening=Evening()),)


def test_what_is_over_is_not_under_way_and_counts_in_the_total(ledger: SqlLedger) -> None:
    first = replace(NIGHT, id=ledger.record_night(NIGHT))
    ledger.record_night(over(first, 2.0))
    second = over(replace(NIGHT, began_at=NOW + 24 * HOUR), -0.5)
    ledger.record_night(second)
    third = ledger.record_night(replace(NIGHT, began_at=NOW + 48 * HOUR, unfolded_joules=9e9))

    assert ledger.nights_total() == NightsTotal(nights=2, saved_kwh=1.5)
    assert [n.saved_kwh for n in ledger.nights(3)] == [2500.0, -0.5, 2.0]
    assert [n.id for n in ledger.nights(1)] == [third]
    found = ledger.night_under_way()
    assert found is not None and found.id == third


def test_the_moves_of_a_night_are_ours_that_ended_in_it(ledger: SqlLedger) -> None:
    records = (
        move("before", NOW - 1),
        move("in", NOW + 100),
        move("failed", NOW + 200, seconds=30.0),
        move("never-began", NOW + 300, seconds=None),
        move("running", None),
        move("others", NOW + 400, ours=False),
        move("after", NOW + HOUR + 1),
    )
    for record in records:
        ledger.update_migration(record)
    assert ledger.moves_between(NOW, NOW + HOUR) == (2, pytest.approx(90.0))


def test_evenings_are_forgotten_and_nights_are_not(ledger: SqlLedger) -> None:
    ledger.record_night(over(NIGHT, 1.0))
    ledger.record_night(replace(NIGHT, began_at=NOW + 24 * HOUR))
    assert ledger.prune(NOW + 11 * HOUR) == 1
    with ledger.reading() as connection:
        assert connection.execute(select(func.count()).select_from(schema.night_evenings)).scalar() == 1
    found = ledger.night_under_way()
    assert found is not None and found.evening == KEPT
    assert len(ledger.nights()) == 2


def test_a_night_that_cannot_be_read_is_left_out_and_told(ledger: SqlLedger) -> None:
    ledger.record_night(over(NIGHT, 1.0))
    broken = ledger.record_night(NIGHT)
    with ledger._writing() as connection:
        connection.execute(update(schema.nights).where(schema.nights.c.id == broken).values(body='{"window": 3}'))
    assert ledger.night_under_way() is None
    assert [n.saved_kwh for n in ledger.nights()] == [1.0]
    assert any(f"night {broken} cannot be read" in line for line in ledger.integrity_check())


def test_without_its_evening_a_night_goes_on_from_where_vms_are(ledger: SqlLedger) -> None:
    ledger.record_night(NIGHT)
    with ledger._writing() as connection:
        connection.execute(update(schema.night_evenings).values(body="[]"))
    found = ledger.night_under_way()
    assert found is not None and found.evening == Evening()


def test_a_controller_that_does_not_lead_writes_no_night(ledger: SqlLedger) -> None:
    class Elsewhere:
        def check(self, _connection: Connection, _epoch: int | None) -> None:
            raise LedgerUnavailableError("c2 leads")

    ledger.fence = Elsewhere()
    with pytest.raises(LedgerUnavailableError, match="c2 leads"):
        ledger.record_night(NIGHT)
    ledger.fence = None
    assert ledger.nights() == ()


def test_nights_are_saved_from_a_damaged_file(ledger: SqlLedger, path: Path) -> None:
    ledger.record_night(over(NIGHT, 2.0))
    ledger.record_night(NIGHT)
    broken = ledger.record_night(NIGHT)
    with ledger._writing() as connection:
        connection.execute(update(schema.nights).where(schema.nights.c.id == broken).values(body="{}"))
    ledger.close()

    found = salvage(path, path.with_name("saved.sqlite"))

    assert (found.saved["nights"], found.left_out["nights"]) == (2, 1)
    saved = SqlLedger(f"sqlite:///{path.with_name('saved.sqlite')}", FixedClock())
    kept = saved.night_under_way()
    assert kept is not None and kept.evening == KEPT
    assert saved.nights_total() == NightsTotal(nights=1, saved_kwh=2.0)
    assert saved.integrity_check() == ()
    saved.close()


def test_nights_are_exported(ledger: SqlLedger) -> None:
    ledger.record_night(over(NIGHT, 2.0))
    ledger.record_night(replace(NIGHT, began_at=NOW + 24 * HOUR))
    with ledger.reading() as connection:
        told = [line["row"] for line in lines(connection, tables=("nights",), since=NOW + HOUR) if "row" in line]
    assert [(row["window_name"], row["began_at"], row["body"]["mode"]) for row in told] == [
        (NIGHT.window, NOW + 24 * HOUR, "auto")
    ]
