"""A VM that runs twice is on record once for each time that the breaker was closed over it."""

from dataclasses import replace

from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.snapshot import Doubled, Snapshot
from rebalancerd.guard.doubled import doubled
from rebalancerd.guard.memory import recall
from rebalancerd.guard.settings import GuardSettings
from tests.unit.plan.plan_cluster import host, vm

V = vm("v", "b")
ONCE = Snapshot(taken_at=0.0, hosts=(host("a"), host("b")), vms=(V,))
TWICE = replace(ONCE, doubled=(Doubled(vm_uuid=V.uuid, hosts=("a", "b")),))


def is_open(records, now, closed_at=None):
    operator = OperatorState(breaker_closed_at=closed_at)
    return recall(records, operator=operator, now=now, settings=GuardSettings()).breaker.is_open


def test_it_is_somebody_elses_and_opens_the_breaker():
    (record,) = doubled(TWICE, (), closed_at=None, now=100.0)

    assert (record.state, record.ours, record.ended_at) == (MigrationState.DUPLICATED, False, 100.0)
    assert (record.vm_uuid, record.source, record.destination) == (V.uuid, "b", "a")
    assert record.reason == "active on a, b without a migration of ours"
    assert is_open([record], now=100.0)
    assert doubled(ONCE, (), closed_at=None, now=100.0) == ()


def test_it_is_on_record_once_until_the_breaker_is_closed():
    first = doubled(TWICE, (), closed_at=None, now=100.0)
    again = doubled(TWICE, first, closed_at=150.0, now=160.0)

    assert doubled(TWICE, first, closed_at=None, now=130.0) == ()
    assert len(again) == 1
    assert is_open([*first, *again], now=160.0, closed_at=150.0)
    assert doubled(TWICE, (*first, *again), closed_at=150.0, now=170.0) == ()


def test_a_verdict_of_ours_has_told_it_already():
    ours = replace(doubled(TWICE, (), closed_at=None, now=100.0)[0], id="m-1", ours=True)

    assert doubled(TWICE, (ours,), closed_at=None, now=130.0) == ()


def test_a_clock_that_was_set_back_does_not_fill_the_ledger():
    once = doubled(TWICE, (), closed_at=5000.0, now=100.0)

    assert len(once) == 1
    assert doubled(TWICE, once, closed_at=5000.0, now=130.0) == ()
    assert is_open(once, now=5001.0, closed_at=5000.0)
