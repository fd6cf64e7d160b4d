"""What a night saved: the same demand, on the hosts of the evening and as it was."""

import pytest

from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.power_curve import PowerDefaults
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.record.night_account import closed, moved, noted, opened

POWER = PowerDefaults(idle_watts=100.0, watts_per_core=10.0)
HOUR = 3600.0


def vm(uuid, on, cpu=2.0, waits=None):
    facts = VmFacts(uuid=uuid, name=uuid, vcpus=8, memory_bytes=GIB)
    return Vm(
        facts=facts, host=on, state=DomainState.RUNNING, load=VmLoad(cpu_cores=cpu, memory_bytes=GIB, steal_cores=waits)
    )


def snapshot(at, *vms, frozen=None, hosts=("a", "b")):
    facts = HostFacts(uuid=None, cpus=8, memory_bytes=64 * GIB)
    made = tuple(
        Host(name=n, facts=facts, cores=8.0, memory_bytes=64 * GIB, idle_watts=100.0, max_watts=180.0) for n in hosts
    )
    return Snapshot(taken_at=at, hosts=made, vms=vms, frozen=frozen)


def note(night, snap, asleep=(), most=2 * HOUR):
    return noted(night, snap, asleep=frozenset(asleep), power=POWER, cpu_headroom=0.8, most_seconds=most)


def evening():
    return opened("night", snapshot(0.0, vm("x", "a"), vm("y", "b")), 10 * HOUR)


def test_nothing_moved_nothing_saved():
    night = note(evening(), snapshot(HOUR, vm("x", "a"), vm("y", "b")))
    assert night.actual_joules == pytest.approx(2 * 120.0 * HOUR)
    assert night.saved_kwh == 0.0
    assert night.accounted_seconds == HOUR


def test_a_host_that_sleeps_saves_its_idle_power_and_not_its_vms_work():
    night = note(evening(), snapshot(HOUR, vm("x", "a"), vm("y", "a")), asleep=("b",))
    assert night.actual_joules == pytest.approx(140.0 * HOUR)
    assert night.unfolded_joules == pytest.approx(240.0 * HOUR)
    assert night.saved_kwh == pytest.approx(0.1)
    assert night.asleep_seconds == (("b", HOUR),)


def test_an_empty_host_that_is_on_saves_nothing():
    night = note(evening(), snapshot(HOUR, vm("x", "a"), vm("y", "a")))
    assert night.saved_kwh == pytest.approx(0.0)


def test_demand_is_that_of_the_night_on_the_hosts_of_the_evening():
    night = note(evening(), snapshot(HOUR, vm("x", "a", 1.0), vm("y", "a", 3.0)), asleep=("b",))
    assert night.unfolded_joules == pytest.approx((110.0 + 130.0) * HOUR)


def test_a_vm_that_came_at_night_counts_where_it_is():
    night = note(evening(), snapshot(HOUR, vm("x", "a"), vm("y", "b"), vm("new", "b", 4.0)))
    assert night.saved_kwh == 0.0
    assert night.actual_joules == pytest.approx((120.0 + 160.0) * HOUR)


def test_a_host_that_is_gone_leaves_its_vms_where_they_are():
    night = note(evening(), snapshot(HOUR, vm("x", "a"), vm("y", "a"), hosts=("a",)))
    assert night.unfolded_joules == pytest.approx(night.actual_joules)


@pytest.mark.parametrize("frozen", [None, "half of all hosts lost their load at once"])
def test_for_time_without_a_reading_nothing_is_claimed(frozen):
    late = 2 * HOUR + 1 if frozen is None else HOUR
    night = note(evening(), snapshot(late, vm("x", "a"), vm("y", "a"), frozen=frozen), asleep=("b",))
    assert (night.saved_kwh, night.accounted_seconds, night.missed_seconds) == (0.0, 0.0, late)
    assert note(night, snapshot(late + HOUR, vm("x", "a"), vm("y", "a")), asleep=("b",)).accounted_seconds == HOUR


def test_a_clock_that_went_back_adds_nothing():
    night = note(evening(), snapshot(HOUR, vm("x", "a"), vm("y", "b")))
    assert note(night, snapshot(HOUR - 60, vm("x", "a"), vm("y", "b"))) == night


def test_hot_hosts_are_counted_and_those_that_folding_caused():
    night = note(evening(), snapshot(HOUR, vm("x", "a", 4.0), vm("y", "a", 4.0)), asleep=("b",))
    assert (night.hot_seconds, night.caused_seconds) == (HOUR, HOUR)
    night = note(evening(), snapshot(HOUR, vm("x", "a", 7.0), vm("y", "a", 0.0)), asleep=("b",))
    assert (night.hot_seconds, night.caused_seconds) == (HOUR, 0.0)


def test_a_vm_that_is_too_large_wherever_it_is_is_not_folding_s_doing():
    night = note(evening(), snapshot(HOUR, vm("x", "b", 7.0), vm("y", "a", 0.0)))
    assert (night.hot_seconds, night.caused_seconds) == (HOUR, 0.0)


def test_what_a_full_host_leaves_unserved_is_hot_and_saves_nothing():
    night = note(evening(), snapshot(HOUR, vm("x", "a", 4.0, waits=2.0), vm("y", "a", 4.0, waits=2.0)))
    assert night.saved_kwh == pytest.approx(0.0)
    assert night.hot_seconds == HOUR


def test_what_a_reading_shows_that_cannot_be_trusted_is_not_claimed():
    snap = snapshot(HOUR, vm("x", "a"), vm("y", "a"))
    night = noted(
        evening(),
        snap,
        asleep=frozenset("b"),
        power=POWER,
        cpu_headroom=0.8,
        most_seconds=2 * HOUR,
        trusted=False,
    )
    assert (night.saved_kwh, night.missed_seconds) == (0.0, HOUR)


def test_moves_are_paid_for():
    night = moved(evening(), 3, 60.0, POWER)
    assert (night.moves, night.moves_joules) == (3, pytest.approx(60.0 * 0.5 * 10.0))
    assert night.saved_kwh < 0


def test_what_passed_since_the_last_reading_of_a_night_that_is_over_is_missed():
    night = closed(note(evening(), snapshot(HOUR, vm("x", "a"), vm("y", "b"))), 10 * HOUR)
    assert (night.ended_at, night.accounted_seconds, night.missed_seconds) == (10 * HOUR, HOUR, 9 * HOUR)
