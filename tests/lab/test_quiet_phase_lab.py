"""A guest that dirties memory faster than any link carries is left where it is, and moves when it has become quiet."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rebalancerd.cluster.migration import MigrationState
from rebalancerd.lab import GuestSpec, Lab, Phase
from tests.lab.daemon_on_lab import DaemonOnLab

# 240 MiB/s over 300 MiB: a 1 Gbit/s link carries 119 MiB/s, and no allowed downtime takes the rest
FURIOUS = (Phase(seconds=3600, working_set_mib=300, dirty_mib_per_second=240, order="random"),)
QUIET = (Phase(seconds=3600, working_set_mib=300, dirty_mib_per_second=0.5),)
POOL = 'probe_pool = "25 s"'  # so that the furious readings are forgotten within the test


@pytest.fixture
def daemon(lab: Lab, tmp_path: Path) -> Iterator[DaemonOnLab]:
    # one guest per host is probed every 3 s; drain is refused nothing but what cannot be done
    made = DaemonOnLab(lab, tmp_path, observe=POOL)
    try:
        yield made
    finally:
        made.close()


def why(daemon: DaemonOnLab, name: str) -> str:
    return daemon.cli("explain", "vm", name).stdout


@pytest.mark.lab_full
def test_what_will_not_converge_stays_until_it_is_quiet(
    lab: Lab, make_guest: Callable[..., GuestSpec], daemon: DaemonOnLab
) -> None:
    """h1 is to be emptied. Physics and the learned model both say that the guest's copy would never end, so it stays."""
    make_guest(name="furious", host="h1", memory_mib=512, phases=FURIOUS, flush_ms=3)
    daemon.start()
    assert daemon.cli("drain", "h1").returncode == 0
    daemon.wait(lambda: "will_not_converge" in why(daemon, "furious"), 90, "it is told why the guest stays")
    time.sleep(10)
    assert daemon.migrations() == (), "nothing was begun"
    assert lab.find("furious") == "h1"
    told = why(daemon, "furious")
    assert "MiB/s" in told, "the reason names what it dirties"

    lab.set_load("furious", QUIET)
    daemon.wait(
        lambda: any(m.state is MigrationState.SUCCEEDED for m in daemon.migrations()), 120, "the quiet guest has moved"
    )
    assert lab.find("furious") != "h1"
    (record,) = daemon.migrations()
    assert record.predicted is not None and record.predicted.non_convergence.upper <= 0.3
    assert record.known is not None and record.known.dirty is not None
    assert daemon.stop() == 0
