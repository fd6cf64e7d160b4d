"""Real daemons on a real PostgreSQL and one simulated cluster: killed, frozen, cut off, and misled by a clock."""

import time
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from rebalancerd.cli.app import app
from rebalancerd.cli.client import Client
from rebalancerd.cli.exits import CliError
from rebalancerd.cluster.migration import MigrationState
from tests.controllers import FREEZE, KILL, WAKE, Cluster, judge
from tests.postgres_server import Postgres, wait_until

LEASE = 2.0
SLACK_SECONDS = 2.0  # for a busy machine: the bench measures what this only bounds


@pytest.fixture(scope="module")
def run(server: Postgres) -> Iterator[Cluster]:
    """One cluster for all tests of this file; each leaves it with a leader and three living controllers."""
    made = Cluster(server, names=("a", "b", "c"), lease_seconds=LEASE, serve=True)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _unharmed(run: Cluster) -> Iterator[None]:
    """Nothing was moved twice, no cap exceeded, nothing lost: whatever the test did."""
    run.resume()
    run.wait_for_leader()
    yield
    run.settle()
    found = judge(run)
    assert found.double_moves == []
    assert found.caps_exceeded == []
    assert found.lost_intents == []
    assert found.misplaced == []


def keep_busy(run: Cluster, holds, seconds: float, what: str) -> float:
    """Wait for something while there is always something to move."""
    begun, drained = time.monotonic(), 0.0
    while not holds():
        now = time.monotonic()
        assert now - begun < seconds, f"{what} did not happen within {seconds:g} s"
        if now - drained > 3.0:
            run.drain_next()
            drained = now
        time.sleep(0.02)
    return time.monotonic() - begun


def strike(run: Cluster, name: str, number: int, point: str) -> float:
    """Order it, wait until it struck; the instant."""
    orders = run.orders(name)
    orders.give(number, point)
    keep_busy(run, orders.struck.exists, 30, f"a start of {name}")
    return float(orders.struck.read_text())


def moved_by(run: Cluster, name: str, epoch: int) -> int:
    return sum(c.record.controller == name and c.record.epoch == epoch for c in run.calls())


def taken_over(run: Cluster, epoch: int, struck: float) -> str:
    """Who leads next; within two leases."""
    found = run.wait_for_leader(after=epoch)
    assert time.monotonic() - struck < 2 * LEASE + SLACK_SECONDS
    return found.controller


def asked(run: Cluster, name: str) -> dict:
    """Its status; empty while it does not answer, as at its start."""
    try:
        return Client(run.directory / f"{name}.sock").get("status")
    except CliError:
        return {}


def shown(run: Cluster, name: str) -> str:
    done = CliRunner().invoke(app, ["status", "--socket", str(run.directory / f"{name}.sock")])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_status_on_any_of_them_tells_who_leads(run: Cluster) -> None:
    leader = run.wait_for_leader()
    for name in run.names:
        wait_until((run.directory / f"{name}.sock").exists, 60, f"the API of {name}")
        wait_until(lambda name=name: asked(run, name).get("leader") is not None, 30, "a look")
        told = asked(run, name)
        assert told["leader"] == {
            "controller": leader.controller,
            "epoch": leader.epoch,
            "here": name == leader.controller,
        }
        assert "LEASE_LOST" not in {check["code"] for check in told["checks"]}
    other = next(n for n in run.names if n != leader.controller)
    assert f"leader       {leader.controller} ({other} stands by), tenure {leader.epoch}" in shown(run, other)
    assert f"leader       {leader.controller} (this one)" in shown(run, leader.controller)


def test_only_the_leader_records_cycles(run: Cluster) -> None:
    """A standby's cycles are in its log; the ledger is not told the same hour three times."""
    leader = run.wait_for_leader()
    before = run.ledger.cycles(limit=1)[0].id
    wait_until(lambda: run.ledger.cycles(limit=1)[0].id >= before + 5, 30, "five cycles")

    assert all("lease_lost" not in c.reason for c in run.ledger.cycles(limit=50))
    other = next(n for n in run.names if n != leader.controller)
    assert "stands by" in run.log(other)


def test_a_killed_leaders_migration_is_adopted(run: Cluster) -> None:
    """Killed right after the call: the successor watches the job to its verdict and starts no second one."""
    leader = run.wait_for_leader()
    struck = strike(run, leader.controller, KILL, "call")
    last = run.calls()[-1].record
    assert taken_over(run, leader.epoch, struck) != leader.controller
    run.reap(leader.controller)
    run.spawn(leader.controller)

    wait_until(lambda: not run.ledger.open_migrations(), 30, "its verdict")

    record = next(r for r in run.ledger.migrations() if r.id == last.id)
    assert (record.state, record.adopted, record.epoch) == (MigrationState.SUCCEEDED, True, leader.epoch)
    assert sum(c.record.id == last.id for c in run.calls()) == 1


def test_an_intent_without_a_call_is_abandoned_once_it_can_no_longer_begin(run: Cluster) -> None:
    """Killed between intent and call: for start_before and one lease it counts as running."""
    leader = run.wait_for_leader()
    struck = strike(run, leader.controller, KILL, "intent")
    intent = next(r for r in run.ledger.open_migrations() if r.state is MigrationState.INTENT)
    taken_over(run, leader.epoch, struck)
    taken = time.monotonic()
    run.reap(leader.controller)
    run.spawn(leader.controller)

    keep_busy(run, lambda: intent.id not in {r.id for r in run.ledger.open_migrations()}, 30, "it was abandoned")

    assert time.monotonic() - taken > 2 * LEASE - 0.7  # of the successor's clock, which began a look earlier
    record = next(r for r in run.ledger.migrations() if r.id == intent.id)
    assert record.state is MigrationState.ABANDONED
    assert intent.id not in {c.record.id for c in run.calls()}


def test_a_leader_frozen_between_intent_and_call_never_calls(run: Cluster) -> None:
    """It wakes when another leads and has moved on: its last look before the call finds the lease gone."""
    leader = run.wait_for_leader()
    struck = strike(run, leader.controller, FREEZE, "intent")
    intent = next(r for r in run.ledger.open_migrations() if r.state is MigrationState.INTENT)
    successor = taken_over(run, leader.epoch, struck)
    keep_busy(run, lambda: moved_by(run, successor, leader.epoch + 1) > 0, 30, "a move of the successor")
    run.signal(leader.controller, WAKE)

    keep_busy(run, lambda: intent.id not in {r.id for r in run.ledger.open_migrations()}, 30, "it was closed")

    assert intent.id not in {c.record.id for c in run.calls()}
    wait_until(lambda: "lease_lost" in run.log(leader.controller), 10, "the late leader's own word")
    assert moved_by(run, leader.controller, leader.epoch + 1) == 0


def test_a_leader_woken_before_anybody_noticed_goes_on(run: Cluster) -> None:
    """Frozen for less than its lease between intent and call: nothing was lost, so the call is made."""
    leader = run.wait_for_leader()
    strike(run, leader.controller, FREEZE, "intent")
    intent = next(r for r in run.ledger.open_migrations() if r.state is MigrationState.INTENT)
    run.signal(leader.controller, WAKE)

    wait_until(lambda: intent.id in {c.record.id for c in run.calls()}, 10, "its call")
    assert run.leader().epoch == leader.epoch


def test_a_leader_cut_off_from_the_database_stops_and_its_watch_goes_on(run: Cluster) -> None:
    leader = run.wait_for_leader()
    run.cut(leader.controller)
    cut = time.monotonic()
    try:
        successor = taken_over(run, leader.epoch, cut)
        began = moved_by(run, leader.controller, leader.epoch)
        keep_busy(run, lambda: moved_by(run, successor, leader.epoch + 1) > 0, 30, "a move of the successor")
        assert moved_by(run, leader.controller, leader.epoch) == began
        assert "lease_not_renewed" in run.log(leader.controller)
        told = asked(run, leader.controller)
        assert told["health"] == "HEALTH_ERR"
        assert all(h["unusable"] is None for h in told["hosts"])  # it goes on sampling
    finally:
        run.heal(leader.controller)
    wait_until(
        lambda: asked(run, leader.controller).get("health") in ("HEALTH_OK", "HEALTH_WARN"),
        30,
        "it is back",
    )


def test_a_restarted_database_finds_all_of_them_again(run: Cluster) -> None:
    """While it is away nothing is started; then one leads, and the others stand by."""
    run.wait_for_leader()
    keep_busy(run, lambda: run.line.ask("world", "moving") > 0, 30, "a migration")
    run.server.stop()
    down = time.time()
    time.sleep(2.5 * LEASE)
    run.server.start()
    up = time.time()

    assert not [c for c in run.calls() if down + 0.5 < c.at < up - 0.5]
    run.wait_for_leader(seconds=30)
    before = len(run.calls())
    keep_busy(run, lambda: len(run.calls()) > before, 40, "a move after it")


def test_a_database_that_hangs_stops_all_of_them_and_no_longer_than_it_hangs(run: Cluster) -> None:
    """Frozen, not gone: connections stay open and nothing answers. The lease runs out by each controller's own clock."""
    run.wait_for_leader()
    keep_busy(run, lambda: run.line.ask("world", "moving") > 0, 30, "a migration")
    run.server.freeze(FREEZE)
    hung = time.time()
    time.sleep(2.5 * LEASE)
    run.server.freeze(WAKE)
    back = time.time()

    assert not [c for c in run.calls() if hung + 0.5 < c.at < back - 0.1]
    run.wait_for_leader(seconds=30)
    before = len(run.calls())
    keep_busy(run, lambda: len(run.calls()) > before, 40, "a move after it")


def test_only_the_leader_aborts(run: Cluster) -> None:
    """A standby says whom to ask."""
    leader = run.wait_for_leader()
    other = next(n for n in run.names if n != leader.controller)
    wait_until(lambda: asked(run, other).get("leader") is not None, 30, "the standby's look")

    done = CliRunner().invoke(app, ["abort", "vm0", "--socket", str(run.directory / f"{other}.sock")])

    assert done.exit_code == 1
    assert f"{leader.controller} leads" in done.stderr


def test_a_step_of_the_databases_clock_makes_two_leaders_and_no_double_move(run: Cluster) -> None:
    """An hour forwards and back, again and again, while moves are made: the lease looks expired to the standbys."""
    first = run.wait_for_leader()
    for step in range(6):
        keep_busy(run, lambda: run.line.ask("world", "moving") > 0, 60, "a migration")
        leader = run.wait_for_leader()
        slow = (
            step % 2 == 1
        )  # a leader that renews before any standby looks keeps its tenure: every other time it cannot
        if slow:
            run.signal(leader.controller, FREEZE)
        try:
            with run.engine.begin() as connection:
                connection.exec_driver_sql("UPDATE lease SET expires_at = expires_at - 3600")
            if slow:
                run.wait_for_leader(after=leader.epoch)
            else:
                time.sleep(0.5)
            with run.engine.begin() as connection:
                connection.exec_driver_sql("UPDATE lease SET expires_at = expires_at + 60")  # back, a minute too far
        finally:
            if slow:
                run.signal(leader.controller, WAKE)

    found = run.wait_for_leader(seconds=30)
    assert found.epoch >= first.epoch + 3
    before = len(run.calls())
    keep_busy(run, lambda: len(run.calls()) > before, 60, "a move after it")


def test_a_leader_that_is_stopped_hands_over_at_once(run: Cluster) -> None:
    leader = run.wait_for_leader()
    begun = run.signal(leader.controller, 15)
    taken_over(run, leader.epoch, begun)
    run.reap(leader.controller)
    run.spawn(leader.controller)
