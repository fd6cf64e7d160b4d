"""Faults while a migration runs, on real hosts: the fixed part that every test run has. The rest is in the other files."""

import signal
import time

import pytest

from rebalancerd.cluster.migration import MigrationState
from tests.lab.after import known_to
from tests.lab.strike import Strike


@pytest.mark.lab_full
def test_fault_08_daemon_killed_in_mid_migration(strike: Strike) -> None:
    """The migration goes on without it; started again it adopts the watch and starts nothing anew."""
    struck = strike.under_way()
    strike.daemon.kill()
    assert strike.share(struck.source) >= 0, "libvirt goes on"
    strike.daemon.start()

    record = strike.verdict(struck)

    assert record.state is MigrationState.SUCCEEDED, record
    assert record.adopted
    assert strike.whole(struck)["traveller"] == struck.destination
    assert strike.since(set())[-1].id == record.id, "nothing was started anew"


def test_fault_11_libvirtd_of_the_source_killed(strike: Strike) -> None:
    struck = strike.under_way()
    strike.restart_libvirtd(struck.source)

    record = strike.verdict(struck)

    assert record.state is MigrationState.FAILED, record
    strike.whole(struck)


def test_fault_12_libvirtd_of_the_destination_killed(strike: Strike) -> None:
    """It stays where it is; the destination is not asked again for a while."""
    struck = strike.under_way()
    strike.restart_libvirtd(struck.destination)

    record = strike.verdict(struck)

    assert record.state is MigrationState.FAILED, record
    strike.told("HOST_QUARANTINED")
    strike.whole(struck)


def test_fault_13_qemu_of_the_destination_killed(strike: Strike) -> None:
    struck = strike.under_way()
    strike.kill_qemu(struck.destination)

    record = strike.verdict(struck)

    assert record.state is MigrationState.FAILED, record
    strike.whole(struck)


def test_fault_13_qemu_of_the_source_killed(strike: Strike) -> None:
    """The guest is gone. It is told, and neither restarted nor moved."""
    struck = strike.under_way()
    strike.kill_qemu(struck.source)

    record = strike.verdict(struck)

    assert record.state is MigrationState.VM_STOPPED, record
    strike.told("VM_CRASHED")
    strike.whole(struck, lost=["traveller"], alerts=["VM_CRASHED"])
    assert [r.id for r in strike.since(set())][-1] == record.id, "not retried"


@pytest.mark.lab_full
def test_fault_15_paused_by_its_owner_in_mid_migration(strike: Strike) -> None:
    """libvirt takes such a pause as help to converge and may let the guest run again where it arrives.

    Whatever libvirt makes of it is told as it is, and nobody but its owner resumes a guest that is left paused.
    """
    struck = strike.under_way()
    assert strike.virsh(struck.source, "suspend", "traveller").returncode == 0
    strike.lab.shape(struck.source)

    record = strike.verdict(struck)
    left = [k for host in strike.lab.hosts for k in known_to(host) if k.paused]
    time.sleep(5)

    assert record.state in (MigrationState.SUCCEEDED, MigrationState.DEGRADED, MigrationState.FAILED), record
    assert bool(left) == (record.state is not MigrationState.SUCCEEDED), (record, left)
    alerts = ["VM_PAUSED_AFTER_MOVE"] if left else []
    place = strike.whole(struck, paused=[k.name for k in left], alerts=alerts)["traveller"]
    if left:
        assert strike.virsh(place, "resume", "traveller").returncode == 0
        strike.whole(struck)


@pytest.mark.lab_full
def test_fault_36_a_host_that_answers_connections_and_nothing_else(strike: Strike) -> None:
    """Its libvirtd is stopped in mid-migration: the rest is looked after, and it is judged when it answers again."""
    struck = strike.under_way()
    strike.lab.kill_libvirtd(struck.source, signal.SIGSTOP)
    try:
        strike.told("UNOBSERVED_MIGRATION")
        strike.daemon.wait(lambda: strike.record(struck).state is MigrationState.UNOBSERVED, 30, "it is unobserved")
        cycle = strike.daemon.get("status")["cycle"]["id"]
        strike.daemon.wait(lambda: strike.daemon.get("status")["cycle"]["id"] > cycle, 60, "cycles go on")
    finally:
        strike.lab.kill_libvirtd(struck.source, signal.SIGCONT)

    record = strike.verdict(struck)

    assert record.state in (MigrationState.SUCCEEDED, MigrationState.FAILED), record
    strike.whole(struck)
