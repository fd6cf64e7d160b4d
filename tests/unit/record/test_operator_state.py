"""What commands add up to."""

import threading
from collections.abc import Callable

import pytest

from rebalancerd.cluster.decision import CommandKind
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import NOW, OTHER, make_migration, make_plan


def give(ledger: SqlLedger, kind: CommandKind, at: float = NOW, **more: object) -> int:
    return ledger.add_command(kind, at=at, by="me", **more).id


def test_nothing_was_said(ledger: SqlLedger) -> None:
    state = ledger.operator_state(NOW)

    assert state.paused is None
    assert state.drained == frozenset()
    assert (state.approved, state.rejected, state.applied) == ((), (), ())
    assert (state.breaker_closed_at, state.resumed_at, state.quarantine_cleared) == (None, None, ())


def test_pause_lasts_until_resumed(ledger: SqlLedger) -> None:
    give(ledger, CommandKind.PAUSE, reason="backup")
    assert ledger.operator_state(NOW + 1e6).paused.reason == "backup"

    give(ledger, CommandKind.RESUME, at=NOW + 5)
    state = ledger.operator_state(NOW + 6)
    assert state.paused is None
    assert state.resumed_at == NOW + 5


def test_pause_for_a_time_ends_by_itself(ledger: SqlLedger) -> None:
    give(ledger, CommandKind.PAUSE, until=NOW + 60)

    assert ledger.operator_state(NOW + 59).paused is not None
    assert ledger.operator_state(NOW + 60).paused is None


def test_the_order_of_commands_is_that_of_their_numbers(ledger: SqlLedger) -> None:
    """A clock that stepped back between two commands does not turn them round."""
    give(ledger, CommandKind.RESUME, at=NOW)
    give(ledger, CommandKind.PAUSE, at=NOW - 3600)

    assert ledger.operator_state(NOW).paused is not None


def test_drain_and_undrain(ledger: SqlLedger) -> None:
    give(ledger, CommandKind.DRAIN, subject="h1")
    give(ledger, CommandKind.DRAIN, subject="h2")
    give(ledger, CommandKind.UNDRAIN, subject="h1")

    assert ledger.operator_state(NOW).drained == {"h2"}


def test_breaker_and_quarantine(ledger: SqlLedger) -> None:
    give(ledger, CommandKind.CLOSE_BREAKER, at=NOW)
    give(ledger, CommandKind.CLOSE_BREAKER, at=NOW + 9)
    give(ledger, CommandKind.CLEAR_QUARANTINE, at=NOW + 1, subject="h2")
    give(ledger, CommandKind.CLEAR_QUARANTINE, at=NOW + 3, subject="h2")
    give(ledger, CommandKind.CLEAR_QUARANTINE, at=NOW + 2, subject="h1")

    state = ledger.operator_state(NOW + 10)

    assert state.breaker_closed_at == NOW + 9
    assert state.quarantine_cleared == (("h1", NOW + 2), ("h2", NOW + 3))


def test_approvals_rejections_and_applied_plans_until_the_plan_expires(ledger: SqlLedger) -> None:
    plan = make_plan()
    ledger.record_plan(plan)
    kinds = (CommandKind.APPROVE, CommandKind.REJECT, CommandKind.APPLY)
    ids = [give(ledger, kind, subject=plan.id, digest=plan.digest, step=0) for kind in kinds]

    state = ledger.operator_state(NOW + 1)
    assert [c.id for c in (*state.approved, *state.rejected, *state.applied)] == ids
    assert state.approved[0].digest == plan.digest

    late = ledger.operator_state(plan.expires_at)
    assert (late.approved, late.rejected, late.applied) == ((), (), ())


def test_two_plans_of_one_digest_count_an_approval_once(ledger: SqlLedger) -> None:
    ledger.record_plan(make_plan("p-1"))
    ledger.record_plan(make_plan("p-2"))
    give(ledger, CommandKind.APPROVE, subject="p-1", digest=make_plan().digest)

    assert len(ledger.operator_state(NOW).approved) == 1


@pytest.mark.parametrize("step", [None, 0])
def test_an_approved_plan_starts_each_step_once(ledger: SqlLedger, step: int | None) -> None:
    approval = give(ledger, CommandKind.APPROVE, subject="p-1", digest=make_plan().digest, step=step)
    ledger.open_intent(make_migration("m-1", step=1))
    ledger.open_intent(make_migration("m-2", step=2, vm_uuid=OTHER))
    ledger.open_intent(make_migration("m-3", step=2, vm_uuid="third"))

    assert ledger.use_approval(approval, "m-1")
    assert ledger.use_approval(approval, "m-2")
    assert not ledger.use_approval(approval, "m-3"), "step 2 was started by it already"
    assert not ledger.use_approval(approval, "m-1")
    assert len(ledger.operator_state(NOW).approved) == 1, "other steps may still use it"


def test_an_approval_of_one_step_is_used_up(ledger: SqlLedger, reopen: Callable[[], SqlLedger]) -> None:
    ledger.record_plan(make_plan())
    approval = give(ledger, CommandKind.APPROVE, subject="p-1", digest=make_plan().digest, step=1)

    assert ledger.use_approval(approval, "m-1")
    again = reopen()
    assert not again.use_approval(approval, "m-2")
    assert again.operator_state(NOW).approved == ()


def test_only_approvals_can_be_used(ledger: SqlLedger) -> None:
    pause = give(ledger, CommandKind.PAUSE)

    assert not ledger.use_approval(pause, "m-1")
    assert not ledger.use_approval(999, "m-1")


def test_two_threads_cannot_use_one_approval(ledger: SqlLedger) -> None:
    approval = give(ledger, CommandKind.APPROVE, subject="p-1", digest="d", step=1)
    used: list[bool] = []
    threads = [
        threading.Thread(target=lambda n=n: used.append(ledger.use_approval(approval, f"m-{n}"))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(used) == [False] * 7 + [True]
