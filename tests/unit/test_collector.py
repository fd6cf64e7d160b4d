"""The collector of reference cycles in a process that lives for months."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from rebalancerd.collector import THRESHOLDS, look_seldom


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


class Knot:
    """A reference cycle of its own."""

    def __init__(self) -> None:
        self.itself = self


def test_it_looks_seldom_but_it_looks() -> None:
    gc.set_threshold(700, 10, 10)

    look_seldom()

    assert gc.get_threshold() == THRESHOLDS
    assert gc.isenabled()


def test_cycles_made_afterwards_are_still_found() -> None:
    look_seldom()
    lost = weakref.ref(Knot())

    kept = [[] for _ in range(THRESHOLDS[0] * 2)]

    assert lost() is None
    assert len(kept) == THRESHOLDS[0] * 2
