"""The daemon dies after its first effect, after its second, …: each time it must come back and end well."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from rebalancerd.cluster.migration import MigrationState
from rebalancerd.sim.journal import KilledError
from rebalancerd.sim.scenario import WorldSpec, load
from rebalancerd.sim.world import build_world

BASE = Path(__file__).parent / "autostart-survives"


def base() -> WorldSpec:
    return replace(load(BASE), run_seconds=2400.0)


@cache
def effects_around_the_first_move() -> tuple[int, int]:
    """Numbers of the first effect after the intent's cycle began and of the one after its verdict."""
    with build_world(base()) as world:
        seen: list[int] = []
        told = world.ledger.on_migration
        world.ledger.on_migration = lambda r: (seen.append(world.lifeline.effects), told(r))[1]
        world.run()
        return max(1, seen[0] - 2), seen[-1] + 4


@pytest.mark.parametrize("index", range(12))
def test_killed_after_an_effect_it_comes_back_and_ends_well(index: int) -> None:
    """Invariants hold after every step, nothing stays open, the host is relieved, autostart is as before."""
    first, last = effects_around_the_first_move()
    effect = first + index
    assert effect <= last, f"the move has {last - first + 1} effects only"
    with build_world(base()) as world:
        world.lifeline.kill_after = effect
        world.run(1.0)
        while world.loop is not None and world.clock.monotonic() < 2400:
            world.run(world.clock.monotonic() + 1.0)
        assert world.loop is None, "the daemon was not killed"
        world.run(world.clock.monotonic() + 20.0)
        world.start_daemon()
        world.run(3600.0)

        assert world.ledger.open_migrations() == ()
        states = [r.state for r in world.ledger.records.values()]
        assert set(states) <= {MigrationState.SUCCEEDED, MigrationState.ABANDONED, MigrationState.FAILED}
        assert states.count(MigrationState.SUCCEEDED) == 1
        for vm in world.spec.cluster.vms:
            host = world.cluster.running_on(vm.key)
            assert host is not None
            assert world.cluster.hosts[host].domains[vm.key].autostart == vm.autostart


def test_a_killed_daemon_is_not_saved_by_its_own_error_handling() -> None:
    """KilledError is no Exception: nothing of the product may swallow it."""
    assert not issubclass(KilledError, Exception)
