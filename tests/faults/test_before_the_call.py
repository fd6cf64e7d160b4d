"""Rows 16 to 31: what has changed or is refused when a migration is to begin, and how it may end."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from rebalancerd.act.cause import OPERATION_ABORTED
from rebalancerd.act.machine import Look, settle
from rebalancerd.act.settings import ActSettings
from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.migration import CRITICAL_STATES, MOVED_NOTE, MigrationRecord, MigrationState
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.cluster.vm import DomainState
from rebalancerd.guard.memory import recall
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.ports import HostRefusedError
from rebalancerd.record.file_lease import FileLease
from rebalancerd.sim.disasters import migrate_foreign
from rebalancerd.sim.world import World
from tests.faults.play import kept, play, scripted, spec_of, start_after
from tests.unit.test_daemon import text

S = MigrationState
MID = "00:03:10"


def refused_after(*lines: str) -> Refusal:
    result = start_after(*lines)
    assert isinstance(result, Refusal), result
    return result


def test_fault_16_undefined_after_planning() -> None:
    assert refused_after("vm-undefined hot-1").code is Code.VM_GONE


def test_fault_16_renamed_is_the_same_vm() -> None:
    """The UUID is the key; the name is one of the facts that the plan relied on."""
    refusal = refused_after("vm-renamed hot-1 other")

    assert refusal.code is Code.PLAN_STALE
    assert "name" in refusal.detail


def test_fault_16_the_same_name_elsewhere() -> None:
    assert refused_after("namesake hot-1 b").code is Code.NAME_CLASH
    assert kept("name-clash").untouched()


def test_fault_17_moved_by_hand_before_the_start() -> None:
    assert refused_after("vm-moved hot-1 c").code is Code.NOT_ON_SOURCE
    played = kept("hand-move-before-start")
    assert not [r for r in played.records if r.state in CRITICAL_STATES]


def test_fault_18_reconfigured_after_planning() -> None:
    refusal = refused_after("vm-reconfigured hot-1 hostdev")

    assert refusal.code in (Code.PLAN_STALE, Code.IMMOVABLE)
    assert kept("plan-goes-stale").untouched()


def test_fault_19_another_job_on_the_domain() -> None:
    played = kept("vm-busy")
    record = played.record("hot-1")

    assert record.state is S.ABANDONED
    assert record.reason.startswith(Code.VM_BUSY.value)
    tries = [c.at for c in played.begun() if c.vm_uuid == record.vm_uuid]
    assert all(b - a >= 600.0 for a, b in pairwise(tries)), "not asked every minute"
    assert played.told("HOST_QUARANTINED") == [] and played.told("BREAKER_OPEN") == []


def test_fault_20_dirties_faster_than_it_is_sent() -> None:
    played = kept("non-converging-aborted")
    record = played.record("hot-1")

    assert record.state is S.ABORTED
    assert record.abort is not None and record.abort.cause.is_non_convergence, "a censored label for training"
    assert played.runs_on("hot-1") == "a"
    assert played.told("HOST_QUARANTINED") == [], "a misjudged VM, not a broken host"


def test_fault_20_its_cooldown_grows() -> None:
    aborted = kept("non-converging-aborted").record("hot-1")
    ended = aborted.ended_at or 0.0
    again = replace(aborted, id="m-2", intent_at=ended + 3600, started_at=ended + 3600, ended_at=ended + 3700)

    def rests(records: list[MigrationRecord], at: float) -> bool:
        return aborted.vm_uuid in recall(records, operator=OperatorState(), now=at, settings=GuardSettings()).resting

    assert rests([aborted], ended + 1799) and not rests([aborted], ended + 1801)
    assert rests([aborted, again], ended + 3700 + 3599), "twice as long after the second"


def test_fault_21_abort_without_effect() -> None:
    played = kept("abort-has-no-effect")
    record = played.record("hot-1")

    assert record.state is S.STUCK
    assert record.state.is_open, "it keeps its slots"
    assert [c.subject for c in played.told("STUCK_MIGRATION")] == [record.id]
    assert len(played.begun()) == 1, "nothing else starts on its hosts"


@pytest.mark.parametrize(
    ("source", "destination", "verdict"),
    [
        (DomainState.RUNNING, DomainState.ABSENT, S.ABORTED),
        (DomainState.ABSENT, DomainState.RUNNING, S.SUCCEEDED),
        (DomainState.SHUTOFF, DomainState.RUNNING, S.SUCCEEDED),
    ],
)
@pytest.mark.parametrize("returned", [None, OPERATION_ABORTED, 38])
def test_fault_22_abort_races_completion(
    source: DomainState, destination: DomainState, verdict: MigrationState, returned: int | None
) -> None:
    """Whatever the call returned with: where it runs decides."""
    error = None if returned is None else HostRefusedError("a", "what libvirt says", returned)
    look = Look(
        state=S.ABORTING,
        source=source,
        destination=destination,
        held_seconds=ActSettings().settle_seconds
        if source is DomainState.SHUTOFF
        else 0.0,  # libvirt may yet undefine it
        ordered_abort=True,
        error=error,
    )

    assert settle(look, ActSettings()).state is verdict


def test_fault_23_arrives_paused() -> None:
    played = kept("arrives-paused")
    record = next(r for r in played.records if r.state is S.DEGRADED)

    assert played.untouched(), "never resumed by us"
    hints = [c.hint for c in played.told("VM_PAUSED_AFTER_MOVE") if c.subject == record.id]
    assert len(hints) == 1 and f"virsh resume {record.vm_uuid}" in hints[0]


def critical(scenario: str, verdict: MigrationState) -> None:
    played = kept(scenario)
    record = next(r for r in played.records if r.state is verdict)

    assert played.told("VM_IN_DANGER") and played.told("BREAKER_OPEN")
    after = (record.ended_at or 0.0) - (played.world.clock.wall() - played.world.clock.monotonic())
    assert played.begun(after=after) == [], "nothing starts any more"
    assert played.untouched()


def test_fault_24_active_on_both_hosts() -> None:
    critical("vm-on-both-hosts", S.DUPLICATED)


def test_fault_24_a_second_copy_without_a_move_of_ours() -> None:
    played = kept("vm-started-twice")
    told = [r for r in played.records if r.state is S.DUPLICATED]

    assert [(r.vm_name, r.source, r.destination, r.ours) for r in told] == [("cool", "b", "c", False)] * 2
    assert [c.severity for c in (*played.told("VM_IN_DANGER"), *played.told("BREAKER_OPEN"))] == ["err"] * 3
    assert played.refused(Code.DUPLICATE_VM), "a breaker that is closed while both run lets nothing start"
    assert played.untouched()
    first = played.begun()[0].at
    assert first > 930, "nothing starts until one of them is gone and a person has closed the breaker; then it goes on"


def test_fault_25_on_neither_host() -> None:
    critical("vm-on-neither-host", S.MISSING)


@pytest.mark.parametrize(
    ("scenario", "code"),
    [
        ("storage-missing", Code.STORAGE_UNREACHABLE),
        ("network-missing", Code.NETWORK_MISSING),
        ("cpu-model", Code.CPU_MODEL),
        ("immovable", Code.IMMOVABLE),
    ],
)
def test_fault_26_the_destination_lacks_something(scenario: str, code: Code) -> None:
    played = kept(scenario)

    assert all(r.detail for r in played.refused(code))
    assert played.refused(code), "told by its own code"


def test_fault_26_what_libvirt_refuses_is_learned_for_a_while() -> None:
    played = scripted("00:00:01 migration-fails hot-1 67 0.0", "10m")
    record = played.record("hot-1")
    guard = GuardSettings()

    assert record.reason.startswith(Code.LIBVIRT_REFUSED.value)
    pair = (record.vm_uuid, record.destination)
    soon = (record.ended_at or 0.0) + guard.blocked_pair_seconds
    assert pair in recall([record], operator=OperatorState(), now=soon - 1, settings=guard).blocked_pairs
    assert pair not in recall([record], operator=OperatorState(), now=soon + 1, settings=guard).blocked_pairs
    assert pair not in {(c.vm_uuid, c.detail) for c in played.begun(after=200.0)}


def test_fault_27_the_destination_fills_up() -> None:
    refusal = refused_after("demand cool memory 28")

    assert refusal.code is Code.MEMORY_CAPACITY
    assert refusal.destination == "b"


@pytest.mark.parametrize("code", [38, 40, 45, 85])
def test_fault_28_transport(code: int) -> None:
    """TLS, ssh keys, ports, authentication: the pair of hosts is left alone after one try, not VM by VM."""
    played = scripted(f"00:00:01 migration-fails * {code} 0.0", "9m")
    record = played.records[0]

    assert record.state is S.FAILED
    assert record.reason.startswith(Code.TRANSPORT.value)
    assert [c.detail for c in played.begun()].count("b") == 1, "no retry storm"
    assert [c.subject for c in played.told("LINK_QUARANTINED")] == ["a-b"], "one alert"
    assert played.told("HOST_QUARANTINED") == []


def test_fault_29_failures_open_the_breaker_until_a_person_closes_it() -> None:
    played = kept("breaker-opens")

    assert [r.state for r in played.records].count(S.FAILED) == 3
    assert len(played.begun()) == 3
    assert played.told("BREAKER_OPEN")


def test_fault_29_a_restart_does_not_close_it() -> None:
    played = scripted("00:00:01 migration-fails * 9 0.5 9\n00:25:00 daemon-kill\n00:26:00 daemon-start", "40m")

    assert len(played.begun()) == 3
    assert played.refused(Code.BREAKER_OPEN)


def test_fault_30_two_daemons_on_one_host(tmp_path: Path) -> None:
    """The second process says which lock and whose, and ends with an error."""
    path = tmp_path / "rebalancerd.toml"
    path.write_text(text(tmp_path, "recommend", f'[serve]\nsocket = "{tmp_path}/s"\nmetrics_listen = ""\n'))
    (tmp_path / "state").mkdir()
    first = FileLease(tmp_path / "state" / "lock")
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "rebalancerd", "run", "--config", str(path)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
        )
    finally:
        first.release()
    assert ended.returncode != 0
    assert "locked by another rebalancerd" in ended.stderr and str(os.getpid()) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_fault_31_without_the_lease_it_stands_by() -> None:
    played = kept("lease-lost")

    assert played.begun() == []
    assert played.refused(Code.LEASE_LOST) and played.told("LEASE_LOST")


def test_fault_31_what_others_start_is_counted() -> None:
    """Nothing more than the caps allow is under way at once, whoever began it (asserted at every call)."""
    played = kept("foreign-migration-counted")

    assert played.told("FOREIGN_MIGRATION")
    assert played.refused(Code.HOST_CAP) or played.refused(Code.CLUSTER_CAP)


def test_fault_31_the_last_guard_is_libvirts_own_lock() -> None:
    """Another controller begins the same VM's migration in the instant before ours: ours is refused, nothing is doubled."""

    def meddle(world: World) -> None:
        check = world.write.before_migrate

        def another_first(record: MigrationRecord) -> None:
            check(record)
            world.write.before_migrate = check
            migrate_foreign(world.cluster, record.vm_uuid, "c")

        world.write.before_migrate = another_first

    played = play(spec_of(script="", run="6m"), meddle=meddle)

    assert played.records[0].state is S.FAILED
    assert MOVED_NOTE in played.records[0].reason
    assert played.runs_on("hot-1") == "c"
    assert played.told("HOST_QUARANTINED") == [], "no host is to blame for it"
    assert len(played.present_on("hot-1")) == 1
