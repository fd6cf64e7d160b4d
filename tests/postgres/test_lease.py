"""The shared lease and its fence, on a real PostgreSQL and clocks that tests move."""

import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import insert
from sqlalchemy.engine import make_url

from rebalancerd.cluster.migration import MigrationState
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.lease import SharedLease
from rebalancerd.record.postgres import Access, make_engine
from rebalancerd.record.rows import migration_row
from rebalancerd.record.schema import migrations
from rebalancerd.record.sql_ledger import SqlLedger
from tests.postgres_server import Postgres
from tests.unit.record.record_values import FixedClock, make_migration

SECONDS = 600.0  # of the database's clock: it does not run out within a test unless a test lets it


class Hands:
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_800_000_000.0 + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Controller:
    """A ledger with a lease as its fence."""

    def __init__(self, url: str, name: str, seconds: float = SECONDS) -> None:
        self.clock = Hands()
        self.ledger = SqlLedger(url, self.clock, access=Access(idle_seconds=0.3, lock_seconds=0.2))
        engine = make_engine(make_url(url), Access(idle_seconds=0.3, lock_seconds=0.2), connections=2)
        self.engine = engine
        self.lease = SharedLease(engine, url, self.clock, controller=name, seconds=seconds)
        self.ledger.fence = self.lease

    def intent(self, vm: str = "vm-1", **changes):
        record = make_migration(id=f"m-{vm}", vm_uuid=vm, controller=self.lease.controller, epoch=self.lease.epoch)
        record = replace(record, **changes)
        self.ledger.open_intent(record)
        return record

    def close(self) -> None:
        self.ledger.close()
        self.engine.dispose()


@pytest.fixture
def pair(url: str):
    made = (Controller(url, "a"), Controller(url, "b"))
    yield made
    for controller in made:
        controller.close()


def expire(controller: Controller) -> None:
    with controller.ledger._writing() as connection:
        connection.exec_driver_sql("UPDATE lease SET expires_at = extract(epoch FROM clock_timestamp()) - 1")


def test_the_first_takes_it_and_the_second_stands_by(pair) -> None:
    a, b = pair

    assert a.lease.look()
    assert not b.lease.look()

    assert (a.lease.held(), a.lease.standby, a.lease.epoch) == (True, False, 1)
    assert (b.lease.held(), b.lease.standby, b.lease.epoch) == (False, True, 0)
    seen = b.lease.tenure()
    assert (seen.controller, seen.epoch, seen.ours) == ("a", 1, False)
    assert 0 < seen.expires_in_seconds <= SECONDS


def test_renewals_keep_the_tenure(pair) -> None:
    a, b = pair
    a.lease.look()
    for _ in range(5):
        a.clock.now += SECONDS / 2
        assert a.lease.look()
        assert not b.lease.look()
    assert a.lease.epoch == 1
    assert a.lease.held()


def test_an_expired_lease_is_taken_with_the_next_epoch(pair) -> None:
    a, b = pair
    a.lease.look()
    expire(a)

    assert b.lease.look()

    assert b.lease.epoch == 2
    assert not a.lease.look()
    assert a.lease.tenure().controller == "b"


def test_held_ends_on_our_own_clock_without_asking(pair) -> None:
    """A controller that was frozen or cut off knows by itself that its time is over."""
    a, _ = pair
    a.lease.look()
    a.clock.now += SECONDS - 0.01
    assert a.lease.held()
    a.clock.now += 0.02
    assert not a.lease.held()
    assert a.lease.standby


def test_a_lease_lost_in_a_freeze_before_the_answer_is_not_held(pair, monkeypatch) -> None:
    """It counts from when the renewal was asked for, not from when its answer was read."""
    a, _ = pair
    a.lease.look()
    learn = a.lease._learn

    def frozen(row, asked_at):
        a.clock.now += SECONDS + 1
        return learn(row, asked_at)

    monkeypatch.setattr(a.lease, "_learn", frozen)
    a.lease.look()

    assert not a.lease.held()


def test_who_comes_back_before_anybody_took_it_goes_on_in_its_tenure(pair) -> None:
    a, _ = pair
    a.lease.look()
    a.clock.now += SECONDS + 1
    assert not a.lease.held()

    assert a.lease.look()
    assert (a.lease.epoch, a.lease.held()) == (1, True)


def test_only_one_of_many_takes_a_free_lease(url: str) -> None:
    made = controllers = [Controller(url, f"c{n}") for n in range(6)]
    for round_ in range(3):
        won: list[bool] = []
        threads = [threading.Thread(target=lambda c=c, won=won: won.append(c.lease.look())) for c in controllers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(won) == 1, round_
        expire(controllers[0])
        next(c for c in controllers if c.lease.held()).lease.release()
        controllers = [c for c in controllers if not c.lease._released]
    for controller in made:
        controller.close()


def test_release_lets_a_standby_take_over_at_once(pair) -> None:
    a, b = pair
    a.lease.look()
    a.lease.release()

    assert not a.lease.held()
    assert b.lease.look()
    assert not a.lease.look()
    assert b.lease.held()


def test_a_forward_step_of_the_databases_clock_makes_two_that_believe_and_one_that_can_write(pair) -> None:
    a, b = pair
    a.lease.look()
    expire(a)  # what a step of the clock by more than the lease does
    assert b.lease.look()
    assert a.lease.held()
    assert b.lease.held()

    b.intent("vm-1")
    with pytest.raises(LedgerUnavailableError, match=r"a \(epoch 1\) does not lead any more: b \(epoch 2\) does"):
        a.intent("vm-2")

    assert not a.lease.held()
    assert [r.vm_uuid for r in b.ledger.open_migrations()] == ["vm-1"]


def test_a_backward_step_does_not_lengthen_a_dead_leaders_lease(pair) -> None:
    """A standby goes by its own clock: no renewal within a whole lease."""
    a, b = pair
    a.lease.look()
    with a.ledger._writing() as connection:
        connection.exec_driver_sql("UPDATE lease SET expires_at = expires_at + 86400")
    assert not b.lease.look()
    b.clock.now += SECONDS - 1
    assert not b.lease.look()
    b.clock.now += 2
    assert b.lease.look()
    assert b.lease.epoch == 2


def test_a_living_leader_keeps_it_whatever_the_standbys_clock_does(pair) -> None:
    a, b = pair
    a.lease.look()
    for _ in range(4):
        assert not b.lease.look()
        a.lease.look()
        b.clock.now += SECONDS * 10
    assert a.lease.look()


def test_an_intent_needs_its_own_tenure_and_an_unexpired_lease(pair) -> None:
    a, b = pair
    with pytest.raises(LedgerUnavailableError, match="nobody does"):
        a.intent()
    a.lease.look()
    with pytest.raises(LedgerUnavailableError, match="intent is of epoch 7, the lease of epoch 1"):
        a.intent(epoch=7)
    expire(b)
    with pytest.raises(LedgerUnavailableError, match="the lease expired"):
        a.intent()
    a.lease.look()
    a.intent()
    assert len(a.ledger.open_migrations()) == 1


def test_a_verdict_of_who_does_not_lead_is_not_written(pair) -> None:
    """The successor's word about a migration is never overwritten."""
    a, b = pair
    a.lease.look()
    record = a.intent()
    expire(a)
    b.lease.look()
    b.ledger.update_migration(replace(record, state=MigrationState.RUNNING, reason="adopted"))

    with pytest.raises(LedgerUnavailableError, match="does not lead any more"):
        a.ledger.update_migration(replace(record, state=MigrationState.FAILED, ended_at=1.0))
    with pytest.raises(LedgerUnavailableError, match="does not lead any more"):
        a.ledger.use_approval(1, record.id)

    assert b.ledger.open_migrations()[0].reason == "adopted"


def test_nobody_takes_over_within_an_intents_transaction(pair) -> None:
    """The successor waits for the commit, so what it then reads holds that intent."""
    a, _ = pair
    a.lease.look()
    record = replace(make_migration(), epoch=1, controller="a")
    with a.ledger._leading(record):
        begun = time.monotonic()
        with a.engine.begin() as connection, pytest.raises(Exception, match="lock timeout"):
            connection.exec_driver_sql("UPDATE lease SET expires_at = 0")
        assert time.monotonic() - begun >= 0.15


def test_a_leader_frozen_within_a_transaction_gives_the_row_back(pair) -> None:
    """PostgreSQL ends its transaction; else nobody could ever take over."""
    a, b = pair
    a.lease.look()
    expire(a)
    took: list[float] = []

    def stand_by() -> None:
        begun = time.monotonic()
        while not b.lease.held() and time.monotonic() - begun < 5:
            with suppress(LedgerUnavailableError):  # the lock is waited for, not for long
                b.lease.look()
        took.append(time.monotonic() - begun)

    standby = threading.Thread(target=stand_by)
    with pytest.raises(LedgerUnavailableError), a.ledger._leading() as connection:  # noqa: PT012
        standby.start()
        standby.join()  # meanwhile this one does nothing, as a frozen process does
        connection.execute(insert(migrations).values(migration_row(make_migration())))

    assert b.lease.held()
    assert took[0] < 2.0
    assert a.ledger.open_migrations() == ()


def test_a_wiped_lease_never_gives_a_number_twice(pair) -> None:
    a, _ = pair
    a.lease.look()
    a.intent()
    with a.ledger._writing() as connection:
        connection.exec_driver_sql("DELETE FROM lease")
    a.lease.look()
    assert a.lease.epoch > 1


def test_look_tells_that_the_database_is_away(pair) -> None:
    a, _ = pair
    a.lease._engine = make_engine(make_url("postgresql://x@127.0.0.1:1/x"), Access())
    with pytest.raises(LedgerUnavailableError, match=r"127\.0\.0\.1"):
        a.lease.look()


def test_a_migration_may_think_longer_than_a_lease_allows(
    server: Postgres, monkeypatch: pytest.MonkeyPatch, clock: FixedClock
) -> None:
    """The database ends idle transactions for the lease's sake; bringing the schema up to date is not one of them."""
    from alembic import command

    real = command.upgrade

    def slow(*args: object) -> None:
        time.sleep(1.0)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "upgrade", slow)
    ledger = SqlLedger(server.create("slow"), clock, access=Access(idle_seconds=0.2))
    ledger.close()
