"""The verdict table, every pair of states, and the state machine's other pure parts."""

import ast
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

import rebalancerd.act
from rebalancerd.act.cause import cause
from rebalancerd.act.deadline import deadline_seconds
from rebalancerd.act.ladder import allowed_downtime_seconds
from rebalancerd.act.machine import Act, Look, Running, settle, under_way
from rebalancerd.act.settings import ActSettings
from rebalancerd.act.stall import StallAction, StallTrack, observe_stall
from rebalancerd.act.verdict import SIDES, TABLE, Patience, Side, finding, side
from rebalancerd.cluster.migration import CRASHED_NOTE, MigrationState, Progress
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DomainState
from rebalancerd.ports import HostRefusedError, HostUnreachableError
from tests.unit.act.act_world import cost

S = MigrationState
SETTINGS = ActSettings()
ANSWERS = [None, *DomainState]
PAIRS = list(itertools.product(ANSWERS, ANSWERS))


def test_every_pair_of_answers_has_its_place() -> None:
    assert set(SIDES) == set(DomainState)
    assert set(TABLE) == set(itertools.product(Side, Side))
    for source, destination in PAIRS:
        assert finding(source, destination) is TABLE[side(source), side(destination)]


def test_success_needs_the_vm_running_on_the_destination_and_not_on_the_source() -> None:
    for source, destination in PAIRS:
        if finding(source, destination).state is S.SUCCEEDED:
            assert destination is DomainState.RUNNING
            assert source is not DomainState.RUNNING


def test_a_success_that_leaves_anything_on_the_source_says_so_and_is_looked_at_twice() -> None:
    """A definition there, too: with autostart the host starts a second copy when it boots."""
    for source, destination in PAIRS:
        found = finding(source, destination)
        if found.state is S.SUCCEEDED and source is not DomainState.ABSENT:
            assert found.patience is not Patience.NONE
            assert "source" in found.note
    assert "undefine" in finding(DomainState.SHUTOFF, DomainState.RUNNING).note


def test_failure_needs_the_vm_on_the_source() -> None:
    for source, destination in PAIRS:
        if finding(source, destination).state is S.FAILED:
            assert side(source) in (Side.RUNS, Side.PAUSED)
            assert destination is None or not destination.is_running


def test_running_on_both_is_always_duplicated_or_broken() -> None:
    running = [state for state in DomainState if state.is_running]
    for destination in running:
        assert finding(DomainState.RUNNING, destination).state in (S.DUPLICATED, S.POSTCOPY_BROKEN)


def test_running_nowhere_is_never_a_plain_outcome() -> None:
    inactive = (DomainState.SHUTOFF, DomainState.CRASHED, DomainState.ABSENT)
    for source, destination in itertools.product(inactive, inactive):
        both_absent = source is destination is DomainState.ABSENT
        assert finding(source, destination).state is (S.MISSING if both_absent else S.VM_STOPPED)


def test_only_what_both_hosts_say_plainly_is_believed_at_once() -> None:
    """Where a host is silent, where copies are paused, and where it is critical, the picture must hold for a while."""
    plain = [pair for pair in PAIRS if finding(*pair).state is not None and finding(*pair).patience is Patience.NONE]
    for source, destination in plain:
        assert Side.SILENT not in (side(source), side(destination))
        assert finding(source, destination).state in (S.SUCCEEDED, S.FAILED, S.VM_STOPPED)
        active = [s for s in (source, destination) if s is not None and s.is_active]
        assert active in ([], [DomainState.RUNNING])


def test_failed_post_copy_is_broken_unless_the_vm_runs_on_the_destination() -> None:
    for source, destination in PAIRS:
        if Side.BROKEN in (side(source), side(destination)) and destination is not DomainState.RUNNING:
            assert finding(source, destination).state is S.POSTCOPY_BROKEN


def test_nothing_critical_is_called_at_the_first_look() -> None:
    for (source, destination), call_open in itertools.product(PAIRS, (False, True)):
        look = Look(state=S.RUNNING, source=source, destination=destination, held_seconds=0.0, call_open=call_open)
        standing = settle(look, SETTINGS)
        assert standing.state.is_open or standing.state in (S.SUCCEEDED, S.FAILED, S.VM_STOPPED)
        assert (standing.state is S.UNOBSERVED) == (Side.SILENT in (side(source), side(destination)))
        assert standing.state.is_open or not call_open


def test_the_return_code_never_decides_where_the_vm_is() -> None:
    """An error only refines the cause of staying; success and the rest are untouched by it."""
    for source, destination in PAIRS:
        look = Look(state=S.RUNNING, source=source, destination=destination, held_seconds=1e9, overdue=True)
        plain = settle(look, SETTINGS).state
        for code in range(120):
            told = settle(replace(look, error=HostRefusedError("a", "text", code)), SETTINGS).state
            assert told is plain or {told, plain} <= {S.FAILED, S.ABORTED, S.ABANDONED}


def test_a_job_lock_not_had_is_abandoned_only_if_the_vm_stayed() -> None:
    error = HostRefusedError("a", "lock", 68)
    arrived = Look(
        state=S.RUNNING,
        source=DomainState.ABSENT,
        destination=DomainState.RUNNING,
        held_seconds=0,
        error=error,
    )
    assert settle(arrived, SETTINGS).state is S.SUCCEEDED
    stayed = replace(arrived, source=DomainState.RUNNING, destination=DomainState.ABSENT)
    assert settle(stayed, SETTINGS).state is S.ABANDONED
    assert settle(replace(stayed, flowed=True), SETTINGS).state is S.FAILED


def test_an_intent_is_not_given_up_while_the_destination_is_silent() -> None:
    """Nothing runs on the source's side; but only both hosts' word ends it, or a silence that is long enough."""
    never = Look(
        state=S.INTENT,
        source=DomainState.RUNNING,
        destination=None,
        held_seconds=SETTINGS.settle_seconds + 1,
        begun=False,
        never_after_all=True,
    )
    waiting = settle(never, SETTINGS)
    assert waiting.state is S.INTENT
    assert "destination does not answer" in waiting.reason
    assert settle(replace(never, destination=DomainState.ABSENT), SETTINGS).state is S.ABANDONED
    given_up = settle(replace(never, held_seconds=SETTINGS.lost_source_seconds), SETTINGS)
    assert given_up.state is S.ABANDONED
    assert "destination does not answer" in given_up.reason


def test_a_source_that_was_slow_to_tell_of_the_guests_end_was_not_lost() -> None:
    """libvirt keeps the domain to itself while it ends. A host that died meanwhile would not have let our call end so."""
    ended = Look(
        state=S.RUNNING,
        source=DomainState.SHUTOFF,
        destination=DomainState.ABSENT,
        held_seconds=0.0,
        source_silent_seconds=SETTINGS.settle_seconds + 1,
        error=HostRefusedError("a", "operation failed: domain is not running", 9),
    )
    assert settle(ended, SETTINGS).state is S.VM_STOPPED
    crashed = settle(replace(ended, source=DomainState.CRASHED), SETTINGS)
    assert crashed.state is S.VM_STOPPED
    assert crashed.reason.startswith(CRASHED_NOTE)
    assert settle(replace(ended, error=HostRefusedError("a", "keepalive timeout", 1)), SETTINGS).state is S.LOST_SOURCE
    assert settle(replace(ended, error=None), SETTINGS).state is S.LOST_SOURCE


def test_a_transient_guest_that_ended_is_not_missing() -> None:
    look = Look(
        state=S.RUNNING,
        source=DomainState.ABSENT,
        destination=DomainState.ABSENT,
        held_seconds=1e9,
        persistent=False,
        error=HostRefusedError("a", "domain is not running", 55),
    )
    assert settle(look, SETTINGS).state is S.VM_STOPPED
    assert settle(replace(look, persistent=True), SETTINGS).state is S.MISSING
    assert settle(replace(look, error=None), SETTINGS).state is S.MISSING


def test_a_call_that_hangs_without_a_job_is_stuck_after_its_deadline() -> None:
    look = Look(
        state=S.RUNNING,
        source=DomainState.RUNNING,
        destination=DomainState.ABSENT,
        held_seconds=1e9,
        call_open=True,
        begun=False,
    )
    assert settle(look, SETTINGS).state is S.RUNNING
    assert settle(replace(look, overdue=True), SETTINGS).state is S.STUCK
    assert settle(replace(look, overdue=True, held_seconds=0.1), SETTINGS).state is S.RUNNING


def test_an_unfinished_copy_of_a_silent_source_is_waited_for_until_the_deadline() -> None:
    look = Look(state=S.RUNNING, source=None, destination=DomainState.PAUSED_MIGRATION, held_seconds=1e9)
    assert settle(look, SETTINGS).state is S.UNOBSERVED
    assert settle(replace(look, overdue=True), SETTINGS).state is S.LOST_SOURCE


def test_the_ladder_climbs_to_its_limit_and_never_beyond() -> None:
    steps = [allowed_downtime_seconds(SETTINGS, 0.6, i) for i in (None, 0, 1, 2, 3, 4, 5, 6, 60)]
    assert steps == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6])
    assert allowed_downtime_seconds(SETTINGS, 0.05, 1) == 0.05
    assert allowed_downtime_seconds(SETTINGS, 0.0, 9) == 0.001
    assert allowed_downtime_seconds(replace(SETTINGS, downtime_steps=0), 0.4, 1) == 0.4


def test_the_deadline_is_the_least_bound_but_not_under_the_floor() -> None:
    assert deadline_seconds(SETTINGS, None, None) == 900
    assert deadline_seconds(SETTINGS, cost(upper=100), 64 * GIB) == 300
    assert deadline_seconds(SETTINGS, cost(upper=1000), 2 * GIB) == 300
    assert deadline_seconds(SETTINGS, cost(upper=1000), 64 * GIB) == 900
    assert deadline_seconds(SETTINGS, cost(seconds=0.5, upper=0.5), GIB // 8) == 60
    assert deadline_seconds(SETTINGS, cost(upper=float("inf")), None) == 900


@pytest.mark.parametrize(
    ("code", "flowed", "expected"),
    [(81, False, Code.LIBVIRT_REFUSED), (81, True, None), (29, False, Code.RIGHTS), (68, False, Code.VM_BUSY)],
)
def test_causes(code: int, flowed: bool, expected: Code | None) -> None:
    assert cause(HostRefusedError("a", "x", code), flowed=flowed) is expected
    assert cause(HostUnreachableError("a", "x"), flowed=flowed) is None


def test_error_codes_are_libvirts() -> None:
    libvirt = pytest.importorskip("libvirt")
    from rebalancerd.act import cause as module

    names = [n for n, v in vars(module).items() if n.isupper() and isinstance(v, int)]
    assert len(names) > 15
    for name in names:
        assert getattr(libvirt, f"VIR_ERR_{name}") == getattr(module, name)


class TestStall:
    @staticmethod
    def play(readings: list[tuple[float, int, int]], *, at_limit: bool = True) -> list[StallAction]:
        """Readings as (seconds, iteration, remaining MiB)."""
        track, actions = StallTrack(), []
        for at, iteration, remaining in readings:
            progress = Progress(
                elapsed_seconds=at, iteration=iteration, remaining_bytes=remaining * MIB, processed_bytes=1
            )
            track, decision = observe_stall(track, progress, at, stall_seconds=150.0, at_limit=at_limit)
            actions.append(decision.action)
            assert bool(decision.reason) == (decision.action is not StallAction.CONTINUE)
        return actions

    def test_a_shrinking_remainder_goes_on(self) -> None:
        readings = [(60.0 * i, i, 1000 - 60 * i) for i in range(1, 16)]
        assert set(self.play(readings)) == {StallAction.CONTINUE}

    def test_an_equal_remainder_ends_after_the_bound(self) -> None:
        actions = self.play([(10.0 * i, i, 500) for i in range(1, 40)])
        first = actions.index(StallAction.ABORT)
        assert 150 <= 10.0 * (first + 1) - 30 <= 170  # the first boundary that can be compared is at 30 s

    def test_a_remainder_smaller_by_less_than_the_margin_is_no_progress(self) -> None:
        assert StallAction.ABORT in self.play([(10.0 * i, i, 500 - i // 8) for i in range(1, 40)])

    def test_below_the_limit_the_downtime_is_raised_first(self) -> None:
        actions = self.play([(10.0 * i, i, 500) for i in range(1, 40)], at_limit=False)
        assert StallAction.RAISE_DOWNTIME in actions
        assert StallAction.ABORT not in actions

    def test_within_an_iteration_the_falling_remainder_says_nothing(self) -> None:
        """Each round falls to almost nothing and begins as high as the one before."""
        readings = [(5.0 * n, 2 + n // 4, 500 - 120 * (n % 4)) for n in range(120)]
        assert StallAction.ABORT in self.play(readings)

    def test_the_first_copy_may_take_long_as_long_as_bytes_flow(self) -> None:
        readings = [(10.0 * n, 1, 100_000 - 10 * n) for n in range(100)]
        assert set(self.play(readings)) == {StallAction.CONTINUE}

    def test_a_transfer_that_stands_still_ends(self) -> None:
        readings = [(10.0 * n, 1, 1000) for n in range(30)]
        assert self.play(readings).index(StallAction.ABORT) == 15

    def test_setup_and_post_copy_decide_nothing(self) -> None:
        track = StallTrack()
        for progress in (
            Progress(elapsed_seconds=1),
            Progress(elapsed_seconds=1, iteration=0, remaining_bytes=0),
            Progress(elapsed_seconds=1, iteration=3, remaining_bytes=5, postcopy=True),
            Progress(elapsed_seconds=1, iteration=1, remaining_bytes=0, processed_bytes=0),
        ):
            after, decision = observe_stall(track, progress, 1e6, stall_seconds=1.0, at_limit=True)
            assert after == track
            assert decision.action is StallAction.CONTINUE


@pytest.mark.parametrize("state", [S.RUNNING, S.ABORTING, S.STUCK, S.UNOBSERVED])
def test_post_copy_is_left_alone_in_every_state(state: MigrationState) -> None:
    course = under_way(
        Running(
            state=state,
            now=1e6,
            progress=Progress(elapsed_seconds=1e6, postcopy=True, iteration=9, remaining_bytes=1),
            deadline_at=0.0,
            limit_downtime_seconds=0.3,
            abort_at=1.0,
        ),
        SETTINGS,
    )
    assert course.act is Act.NOTHING


FLAGS = {"LIVE", "PEER2PEER", "ABORT_ON_ERROR", "PERSIST_DEST", "UNDEFINE_SOURCE", "AUTO_CONVERGE", "POSTCOPY"}


FLAGS |= {"OFFLINE"}  # of definitions of VMs that are off alone: see test_the_flag_of_offline_migration_is_used_once
FLAGS |= {"PARALLEL", "TLS", "PARAM_URI", "PARAM_BANDWIDTH", "PARAM_PARALLEL_CONNECTIONS"}
CALLS = {
    "destroy",
    "undefine",
    "create",
    "reset",
    "suspend",
    "resume",
    "shutdown",
    "reboot",
    "managedSave",
    "pMSuspend",
}


def test_the_room_has_no_name_for_what_it_must_never_do() -> None:
    """No other migration flag than these, and no call that could start, stop or forget a VM, occurs in the code."""
    seen = set()
    for path in sorted(Path(rebalancerd.act.__path__[0]).glob("*.py")):
        tree = ast.parse(path.read_text())
        names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        seen |= {name.removeprefix("VIR_MIGRATE_") for name in names if name.startswith("VIR_MIGRATE_")}
        for call in CALLS:
            assert not names & {call, f"{call}Flags", f"{call}XML", f"{call}XMLFlags"}, path.name
        texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        assert not {t for t in texts if "VIR_MIGRATE" in t}, f"{path.name}: flags by name cannot be checked"
        assert not {n for n in names if n in ("migrate3", "migrateToURI", "migrateToURI2")}, path.name
    assert seen == FLAGS


def test_the_flag_of_offline_migration_is_used_once() -> None:
    """It moves no running VM and forgets the definition on the source: only where the policy for shut-off VMs asks for it."""
    users = [
        (path.name, function.name)
        for path in sorted(Path(rebalancerd.act.__path__[0]).rglob("*.py"))
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        and any(isinstance(n, ast.Attribute) and n.attr == "VIR_MIGRATE_OFFLINE" for n in ast.walk(function))
    ]
    assert {name for name, _ in users} == {"libvirt_write.py"}
    assert "move_definition" in {function for _, function in users}
    assert not {function for _, function in users} & {"migrate", "migrate_flags"}


def test_a_host_that_answers_is_not_called_silent() -> None:
    """At its end a migrated domain is "being shut down" on the source for a moment: undecided, but no outage."""
    look = Look(
        state=S.RUNNING, source=DomainState.UNKNOWN, destination=DomainState.RUNNING, held_seconds=0.0, begun=True
    )

    assert settle(look, SETTINGS).reason == "source tells no definite state yet"
    assert settle(replace(look, source=None), SETTINGS).reason == "source does not answer"
