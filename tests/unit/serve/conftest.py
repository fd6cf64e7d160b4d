"""Worlds to ask."""

from collections.abc import Callable

import pytest

from rebalancerd.cluster.policy import Mode
from tests.unit.serve.serve_world import World


@pytest.fixture
def world() -> World:
    """A guarded daemon that wants to move web1 from h1 to h2."""
    return World()


@pytest.fixture
def make_world() -> Callable[[Mode], World]:
    """A daemon in another mode."""
    return World
