"""Rows 1 to 15: what goes wrong while a migration runs."""

from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.vm import DomainState
from tests.faults.play import Played, kept, scripted

S = MigrationState
MID = "00:03:10"  # hot-1 is a sixth on its way from a to b


def gone(played: Played) -> bool:
    """That no migration of ours is left without a verdict."""
    return not [r for r in played.records if r.state.is_open]


def test_fault_01_source_dies() -> None:
    played = kept("source-dies")
    record = played.record("hot-1")

    assert record.state is S.LOST_SOURCE
    assert [c.vm_uuid for c in played.begun()] == [played.uuid("hot-1")]
    assert played.untouched() and gone(played), "nothing is restarted, no slot is kept"
    assert [c.subject for c in played.told("SOURCE_LOST")] == [record.id]
    assert "a" in [c.subject for c in played.told("HOST_QUARANTINED")]


def test_fault_02_destination_dies() -> None:
    played = scripted(f"{MID} host-dies b", "20m")
    record = played.record("hot-1")

    assert (record.state, played.runs_on("hot-1")) == (S.FAILED, "a")
    assert [c.subject for c in played.told("HOST_QUARANTINED")] == ["b"]
    later = played.begun(after=200.0)
    assert later and {c.detail for c in later} == {"c"}, "planned anew without it"
    assert played.records[-1].state is S.SUCCEEDED


def test_fault_03_link_cut_quarantines_the_link() -> None:
    played = scripted(f"{MID} link-cut a b", "20m")
    record = played.record("hot-1")

    assert record.state is S.FAILED
    assert record.reason.startswith("transport")
    assert played.present_on("hot-1") == ("a",), "no copy is left on the destination"
    assert {c.subject for c in played.told("LINK_QUARANTINED")} == {"a-b"}
    assert played.told("HOST_QUARANTINED") == [], "neither host is blamed"
    assert {c.detail for c in played.begun(after=200.0)} == {"c"}
    assert played.records[-1].state is S.SUCCEEDED


def test_fault_03_destination_that_restarts_is_blamed_itself() -> None:
    """What breaks at once, without a silence before, is no dead link."""
    played = scripted(f"{MID} libvirtd-restarts b", "8m")

    assert not played.record("hot-1").reason.startswith("transport")
    assert played.told("LINK_QUARANTINED") == []
    assert [c.subject for c in played.told("HOST_QUARANTINED")] == ["b"]


def test_fault_04_source_out_of_sight() -> None:
    played = kept("source-unreachable-mid-migration")
    record = played.record("hot-1")

    assert S.UNOBSERVED in played.states[record.id]
    assert [c.subject for c in played.told("UNOBSERVED_MIGRATION")] == [record.id]
    assert len(played.begun()) == 1, "nothing new on either host meanwhile"
    assert record.state is S.SUCCEEDED, "settled by location once both answered"


def test_fault_05_postcopy_broken() -> None:
    played = scripted(f"{MID} postcopy hot-1\n00:03:12 postcopy-breaks hot-1", "20m")
    record = played.record("hot-1")

    assert record.state is S.POSTCOPY_BROKEN
    assert record.postcopy
    assert "abort" not in [c.kind for c in played.calls]
    (alert,) = played.told("VM_IN_DANGER")
    flags = "--live --p2p --postcopy --postcopy-resume --persistent --undefinesource"
    assert f"`virsh migrate {flags} {record.vm_uuid} qemu+tcp://b/system tcp://b`" in alert.hint
    assert played.told("BREAKER_OPEN")
    assert len(played.begun()) == 1
    assert played.state_on("hot-1", "b") is DomainState.RUNNING_POSTCOPY_FAILED, "left as it was"


def test_fault_06_postcopy_goes_on_unattended() -> None:
    played = scripted(f"{MID} postcopy hot-1\n00:03:12 postcopy-unattended hot-1", "20m")
    record = played.record("hot-1")

    assert record.state is S.SUCCEEDED
    assert played.present_on("hot-1") == ("b",)
    assert played.untouched() and "abort" not in [c.kind for c in played.calls]
    assert played.told("VM_IN_DANGER") == []


def test_fault_07_destination_lost_in_postcopy() -> None:
    played = scripted(f"{MID} postcopy hot-1\n00:03:12 host-dies b", "20m")
    record = played.record("hot-1")

    assert record.state is S.POSTCOPY_BROKEN
    assert played.told("BREAKER_OPEN") and played.told("VM_IN_DANGER")
    assert len(played.begun()) == 1, "nothing starts in the whole cluster"
    assert played.state_on("hot-1", "a") is DomainState.PAUSED_POSTCOPY_FAILED, "the evidence is kept"
    assert played.untouched()


def test_fault_08_daemon_killed_in_mid_migration() -> None:
    played = kept("daemon-killed-mid-migration")
    first = played.records[0]

    assert first.adopted
    assert first.state is S.SUCCEEDED
    assert [c.vm_uuid for c in played.begun()].count(first.vm_uuid) == 1, "no second start"


def test_fault_09_killed_between_intent_and_call() -> None:
    played = kept("daemon-killed-before-the-call")
    first = played.records[0]

    assert first.state is S.ABANDONED
    assert first.id not in [c.record.id for c in played.begun() if c.record is not None]
    plans = [r.plan_id for r in played.records[1:]]
    assert first.plan_id not in plans, "a stale plan is never replayed"


def after_a_restart(host: str) -> Played:
    """What holds whichever end's libvirtd restarts."""
    played = scripted(f"{MID} libvirtd-restarts {host}", "8m")
    record = played.record("hot-1")
    assert record.state is S.FAILED
    assert played.present_on("hot-1") == ("a",), "nothing is left on the destination"
    assert played.state_on("hot-1", "a") is DomainState.RUNNING
    assert record.vm_uuid not in [c.vm_uuid for c in played.begun(after=200.0)], "the VM cools down"
    return played


def test_fault_11_libvirtd_of_the_source_restarts() -> None:
    played = after_a_restart("a")

    assert played.cycles[-1].started_at > (played.record("hot-1").ended_at or 0.0)
    assert "a" not in [c.subject for c in played.told("HOST_UNREACHABLE")], "it is connected again"


def test_fault_12_libvirtd_of_the_destination_restarts() -> None:
    played = after_a_restart("b")

    assert "b" in [c.subject for c in played.told("HOST_QUARANTINED")], "the destination is penalised"


def test_fault_13_qemu_killed_at_the_destination() -> None:
    played = scripted(f"{MID} qemu-dies hot-1 destination", "8m")

    assert played.record("hot-1").state is S.FAILED
    assert played.state_on("hot-1", "a") is DomainState.RUNNING
    assert played.present_on("hot-1") == ("a",)


def test_fault_13_qemu_killed_at_the_source() -> None:
    played = scripted(f"{MID} qemu-dies hot-1 source", "20m")
    record = played.record("hot-1")

    assert record.state is S.VM_STOPPED
    assert played.state_on("hot-1", "a") is DomainState.CRASHED
    assert [c.vm_uuid for c in played.begun()].count(record.vm_uuid) == 1, "not retried"
    assert played.untouched()
    assert [c.subject for c in played.told("VM_CRASHED")] == [record.id]


def test_fault_14_guest_shuts_down() -> None:
    played = kept("vm-stops-mid-migration")
    record = played.record("hot-1")

    assert record.state is S.VM_STOPPED
    assert played.told("VM_CRASHED") == []
    assert played.told("HOST_QUARANTINED") == [] and played.told("LINK_QUARANTINED") == [], "nobody is blamed"
    assert played.runs_on("hot-1") is None, "not started again"
    assert played.untouched()


def test_fault_15_paused_by_its_owner_it_stays_paused() -> None:
    played = scripted(f"{MID} vm-pauses hot-1", "20m")
    record = played.record("hot-1")

    assert record.state is S.DEGRADED
    assert played.state_on("hot-1", "b") is DomainState.PAUSED
    assert played.untouched(), "never resumed by us"
    (alert,) = played.told("VM_PAUSED_AFTER_MOVE")
    assert f"virsh resume {record.vm_uuid}" in alert.hint


def test_fault_15_paused_and_resumed_by_its_owner_it_runs() -> None:
    played = scripted(f"{MID} vm-pauses hot-1\n00:03:15 vm-resumes hot-1", "10m")

    assert played.record("hot-1").state is S.SUCCEEDED
    assert played.state_on("hot-1", "b") is DomainState.RUNNING
    assert played.told("VM_PAUSED_AFTER_MOVE") == []
