"""Random walks, in parts that can run side by side; a million steps with `make faults-nightly`."""

import pytest

from tests.faults.walk import Walk, walk

STEPS, PARTS = 20_000, 4


@pytest.mark.parametrize("part", range(PARTS))
def test_walks_break_no_promise(part: int) -> None:
    steps, faults = Walk.steps, Walk.faults
    walk(STEPS // PARTS, part)

    assert Walk.steps - steps >= STEPS // PARTS // 2, "walks that end early show little"
    assert Walk.faults > faults
    assert {"P4", "P6", "P8", "P11", "I10"} <= set(Walk.checked)
