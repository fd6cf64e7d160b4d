"""Who came back, since when, and how many VMs arrived."""

from dataclasses import replace

from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.guard.returns import Returns, arrived, follow
from tests.unit.plan.plan_cluster import host, vm


def shot(*hosts, vms=()):
    return Snapshot(taken_at=0.0, hosts=tuple(hosts), vms=tuple(vms))


def test_the_first_snapshot_knows_of_no_return():
    assert follow(None, shot(host("a"), host("b", unusable="stale")), 0.0, 100.0) == Returns(frozenset({"a"}))


def test_a_host_that_is_ready_again_or_new_came_back():
    was = follow(None, shot(host("a"), host("b", unusable="stale"), host("c", mode=HostMode.DRAIN)), 0.0, 100.0)
    now = follow(was, shot(host("a"), host("b"), host("c"), host("d")), 10.0, 100.0)

    assert now.since == {"b": 10.0, "c": 10.0, "d": 10.0}
    assert now.ages(30.0) == {"b": 20.0, "c": 20.0, "d": 20.0}


def test_a_host_that_kept_its_vms_was_not_away():
    was = follow(None, shot(host("a", unusable="stale"), vms=[vm("v", "a")]), 0.0, 100.0)

    assert follow(was, shot(host("a"), vms=[vm("v", "a")]), 10.0, 100.0).since == {}


def test_it_is_a_host_like_any_other_after_the_ramp_or_when_it_is_away_again():
    was = Returns(frozenset({"a", "b"}), {"a": 0.0, "b": 50.0})

    assert follow(was, shot(host("a"), host("b")), 100.0, 100.0).since == {"b": 50.0}
    assert follow(was, shot(host("a"), host("b", unusable="down")), 20.0, 100.0).since == {"a": 0.0}


def test_arrivals_of_the_hour_are_counted_by_destination():
    base = MigrationRecord(
        id="1", vm_uuid="u", vm_name="v", source="a", destination="b", state=MigrationState.SUCCEEDED, intent_at=5000.0
    )
    rows = [
        base,
        replace(base, ended_at=5100.0),
        replace(base, destination="c", ended_at=100.0),
        replace(base, state=MigrationState.FAILED),
    ]

    assert arrived(rows, 6000.0) == {"b": 2}
