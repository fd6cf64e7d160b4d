"""The daemon as a process on real hosts: it relieves, drains, survives SIGKILL, and leaves alone what is not its own."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from rebalancerd.cluster.migration import MigrationState
from rebalancerd.lab import GuestSpec, Lab, Phase
from tests.lab.daemon_on_lab import DaemonOnLab

NOVA = '<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"><nova:name>theirs</nova:name></nova:instance>'
# three of these are more than a lab host has (0.6 cores), and one fits anywhere else
BUSY = (Phase(seconds=600, cpu_percent=18, working_set_mib=16, dirty_mib_per_second=1),)


@pytest.fixture
def make_daemon(lab: Lab, tmp_path: Path) -> Iterator[Callable[..., DaemonOnLab]]:
    made: list[DaemonOnLab] = []

    def make(**fields: str) -> DaemonOnLab:
        daemon = DaemonOnLab(lab, tmp_path, **fields)
        made.append(daemon)
        return daemon

    try:
        yield make
    finally:
        for daemon in made:
            daemon.close()
        for host in lab.hosts:
            lab.shape(host.name)


def autostart(lab: Lab, host: str, name: str) -> bool:
    connection = libvirt.open(lab.host(host).uri)
    try:
        return bool(connection.lookupByName(name).autostart())
    finally:
        connection.close()


def test_hot_host_is_relieved_and_said_so(
    lab: Lab, make_guest: Callable[..., GuestSpec], make_daemon: Callable[..., DaemonOnLab]
) -> None:
    """Three busy guests are more than h1 has: one goes, a guest of Nova's stays although it is busy too; each is explained."""
    theirs = make_guest(name="theirs", host="h1", phases=BUSY, metadata_xml=NOVA)
    mine = make_guest(name="mine", host="h1", phases=BUSY, autostart=True)
    other = make_guest(name="other", host="h1", phases=BUSY, autostart=True)
    quiet = make_guest(name="quiet", host="h2")
    before = {g.name: lab.counter(g.name) for g in (theirs, mine, other, quiet)}
    daemon = make_daemon(extra="[guard]\nhold_rounds = 2").start()

    daemon.wait(
        lambda: any(m.state is MigrationState.SUCCEEDED for m in daemon.migrations()), 60, "a migration has succeeded"
    )

    moved = min(daemon.migrations(), key=lambda m: m.intent_at)
    assert moved.vm_name in ("mine", "other")
    assert lab.find(moved.vm_name) == moved.destination != "h1"
    assert lab.find("theirs") == "h1"
    assert autostart(lab, moved.destination, moved.vm_name) is True
    assert moved.predicted is not None and moved.completion is not None
    why = daemon.cli("explain", "vm", moved.vm_name).stdout
    assert "h1" in why and moved.destination in why
    why_not = daemon.cli("explain", "vm", "theirs").stdout
    assert "foreign_owner" in why_not and "nova" in why_not.lower()
    time.sleep(2)
    for name, beat in before.items():
        now = lab.counter(name)
        assert now.boot_id == beat.boot_id and now.count > beat.count
    assert daemon.stop() == 0


def test_sigkill_in_mid_migration_is_adopted(
    lab: Lab, make_guest: Callable[..., GuestSpec], make_daemon: Callable[..., DaemonOnLab]
) -> None:
    """Killed while a migration runs and started again: one record, adopted, no second migration."""
    make_guest(name="traveller", host="h1", autostart=True)
    lab.shape("h1", rate_mbit=80)
    daemon = make_daemon().start()
    daemon.wait(lambda: daemon.ask("status")["cycle"] is not None, 30, "a first cycle")

    assert daemon.cli("drain", "h1").returncode == 0
    daemon.wait(lambda: any(m.state is MigrationState.RUNNING for m in daemon.migrations()), 40, "a migration runs")
    time.sleep(1)
    daemon.kill()
    assert lab.find("traveller") == "h1", "killed in mid-migration, not after it"
    daemon.start()

    daemon.wait(lambda: not any(m.state.is_open for m in daemon.migrations()), 60, "the verdict")
    time.sleep(8)  # two more cycles: nothing is started again
    (record,) = daemon.migrations()
    assert record.state is MigrationState.SUCCEEDED
    assert record.adopted
    assert lab.find("traveller") == record.destination
    assert autostart(lab, record.destination, "traveller") is True
    assert daemon.stop() == 0


@pytest.mark.lab_full
def test_recommend_mode_proposes_and_moves_nothing(
    lab: Lab, make_guest: Callable[..., GuestSpec], make_daemon: Callable[..., DaemonOnLab]
) -> None:
    """The default mode shows the plan and has no way to carry it out, whatever is asked."""
    for name in ("busy1", "busy2", "busy3"):
        make_guest(name=name, host="h1", phases=BUSY)
    daemon = make_daemon(mode="recommend", extra="[guard]\nhold_rounds = 1").start()

    daemon.wait(lambda: daemon.cli("plan", "--detailed-exitcode").returncode == 10, 60, "there is something to do")
    plan = daemon.directory / "plan.json"
    assert daemon.cli("plan", "-o", str(plan)).returncode == 0
    refused = daemon.cli("apply", str(plan))
    assert refused.returncode == 1 and "recommend" in refused.stderr
    time.sleep(7)

    assert daemon.migrations() == ()
    assert {lab.find(name) for name in ("busy1", "busy2", "busy3")} == {"h1"}
    assert daemon.stop() == 0


def test_guarded_mode_waits_for_the_operators_word(
    lab: Lab, make_guest: Callable[..., GuestSpec], make_daemon: Callable[..., DaemonOnLab]
) -> None:
    """A plan waits; approving it starts it, and the ledger says who approved."""
    for name in ("busy1", "busy2", "busy3"):
        make_guest(name=name, host="h1", phases=BUSY)
    daemon = make_daemon(mode="guarded", extra="[guard]\nhold_rounds = 1").start()
    daemon.wait(lambda: (daemon.ask("status")["plan"] or {}).get("awaits_approval", False), 60, "a plan waits")
    time.sleep(4)
    assert daemon.migrations() == ()

    plan = daemon.ask("status")["plan"]["id"]
    assert daemon.cli("approve", plan).returncode == 0
    daemon.wait(lambda: any(m.state is MigrationState.SUCCEEDED for m in daemon.migrations()), 60, "the approved move")

    assert {m.plan_id for m in daemon.migrations()} == {plan}
    assert daemon.stop() == 0
