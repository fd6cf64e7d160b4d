"""What holds for all tests: the collector of reference cycles is set as in the daemon."""

import pytest

from rebalancerd.collector import look_seldom


def pytest_collection_finish(session: pytest.Session) -> None:
    """Once every module is there."""
    look_seldom()
