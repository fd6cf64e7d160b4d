"""The collector of reference cycles in a process that lives for months."""

import gc
import weakref

from rebalancerd.collector import leave_out_what_stays


class Knot:
    """A reference cycle of its own."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_already_is_left_out() -> None:
    there = [[1]]

    leave_out_what_stays()

    assert not any(found is there for found in gc.get_objects())
    assert gc.get_freeze_count() > 1000
    assert gc.isenabled()


def test_knots_made_afterwards_are_found_soon() -> None:
    """With looks as seldom as every 50,000 objects a month of the soak grew by 430 MiB."""
    leave_out_what_stays()
    lost = weakref.ref(Knot())

    kept = [[] for _ in range(2_000)]

    assert lost() is None
    assert len(kept) == 2_000
