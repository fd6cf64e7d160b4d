"""Random walks, few of them; many with FAULT_WALK_STEPS."""

from hypothesis.stateful import run_state_machine_as_test

from tests.faults.walk import STEPS, Walk


def test_walks_break_no_promise() -> None:
    run_state_machine_as_test(Walk, settings=Walk.TestCase.settings)

    assert Walk.steps >= STEPS // 4
    assert Walk.faults
