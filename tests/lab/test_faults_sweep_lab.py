"""SIGKILL and SIGSTOP of the daemon and of both hosts' libvirtd, each at several points of a migration."""

import signal
import time

import pytest

from rebalancerd.cluster.migration import MigrationState
from tests.lab.strike import Strike

pytestmark = pytest.mark.lab_full
POINTS = (0.0, 0.2, 0.5, 0.8, 0.97)  # of the memory looked at
OTHER_POINTS = (0.0, 0.5, 0.8, 0.97)  # where test_faults_flight_lab.py strikes at 0.2 and asks for more
EITHER = frozenset({MigrationState.SUCCEEDED, MigrationState.FAILED})


@pytest.mark.parametrize("share", OTHER_POINTS)
def test_fault_11_libvirtd_of_the_source_killed_at(strike: Strike, share: float) -> None:
    struck = strike.under_way(share)
    strike.restart_libvirtd(struck.source)
    strike.lab.shape(struck.source)

    assert strike.verdict(struck).state in EITHER
    strike.whole(struck)


@pytest.mark.parametrize("share", OTHER_POINTS)
def test_fault_12_libvirtd_of_the_destination_killed_at(strike: Strike, share: float) -> None:
    struck = strike.under_way(share)
    strike.restart_libvirtd(struck.destination)
    strike.lab.shape(struck.source)

    assert strike.verdict(struck).state in EITHER
    strike.whole(struck)


@pytest.mark.parametrize("share", POINTS)
def test_fault_36_libvirtd_of_either_host_stopped_at(strike: Strike, share: float) -> None:
    """Stopped for longer than a call's deadline, first at the source, then at the destination."""
    struck = strike.under_way(share)
    for host in (struck.source, struck.destination):
        strike.lab.kill_libvirtd(host, signal.SIGSTOP)
        time.sleep(7)
        strike.lab.kill_libvirtd(host, signal.SIGCONT)
    strike.lab.shape(struck.source)

    assert strike.verdict(struck).state in EITHER
    strike.whole(struck)


@pytest.mark.parametrize("share", OTHER_POINTS)
def test_fault_08_daemon_killed_at(strike: Strike, share: float) -> None:
    struck = strike.under_way(share)
    strike.daemon.kill()
    strike.daemon.start()

    assert strike.verdict(struck).state is MigrationState.SUCCEEDED
    assert strike.whole(struck)["traveller"] == struck.destination


@pytest.mark.parametrize("share", POINTS)
def test_fault_33_daemon_frozen_at(strike: Strike, share: float) -> None:
    """SIGSTOP while libvirt goes on: awake again it starts nothing that is under way or done."""
    struck = strike.under_way(share)
    strike.freeze_daemon()
    time.sleep(6)
    strike.wake_daemon()

    assert strike.verdict(struck).state is MigrationState.SUCCEEDED
    assert strike.whole(struck)["traveller"] == struck.destination
    assert strike.since(set())[-1].id == struck.record.id
