"""Daemons on fake ports, as the daemon's own tests build them."""

from tests.unit.test_daemon import make_daemon, manager, world

__all__ = ["make_daemon", "manager", "world"]
