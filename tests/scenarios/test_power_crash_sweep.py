"""The daemon dies after every single effect of a night: a host is put to sleep, and woken again for the morning load."""

from functools import cache

import pytest

from rebalancerd.cluster.power import PowerPhase
from rebalancerd.sim.world import World
from tests.unit.act.power.power_cluster import demand, order, pass_test, record, seconds_until, spec

NIGHT_ENDS_AFTER, MORNING_WITHIN = 1200.0, 1500.0
DEAD_SECONDS = (20.0, 400.0)  # back at once, and only after deadlines have passed


def evening(world: World) -> None:
    """The host has passed its test, and is told to sleep."""
    pass_test(world)
    order(world, "power_sleep")


def morning(world: World) -> None:
    demand(world, 3.0)


@cache
def effects_of_a_night() -> tuple[int, int, int]:
    """Numbers of the effects before the evening, at the morning's load, and when the host was back."""
    with World(spec()) as world:
        evening(world)
        first = world.lifeline.effects
        seconds_until(world, "c", PowerPhase.ASLEEP)
        world.run(world.clock.monotonic() + NIGHT_ENDS_AFTER / 5)
        middle = world.lifeline.effects
        morning(world)
        seconds_until(world, "c", PowerPhase.AWAKE)
        return first, middle, world.lifeline.effects


def test_the_sweep_covers_both_sequences() -> None:
    first, middle, last = effects_of_a_night()
    assert middle - first >= 10
    assert last - middle >= 5


@pytest.mark.parametrize("dead_seconds", DEAD_SECONDS)
@pytest.mark.parametrize("part", range(4))
def test_killed_after_every_effect_nothing_is_lost_and_the_host_is_there_in_the_morning(
    part: int, dead_seconds: float
) -> None:
    """Invariants (no order with a domain on it, none without a record) hold after every step of every run."""
    first, _, last = effects_of_a_night()
    for effect in range(first + 1 + part, last + 1, 4):
        one_night(effect, dead_seconds)


def one_night(effect: int, dead_seconds: float) -> None:
    with World(spec()) as world:
        evening(world)
        world.lifeline.kill_after = effect
        ends = world.clock.monotonic() + NIGHT_ENDS_AFTER
        killed = live_through(world, ends, dead_seconds)
        asleep_at_last = record(world).phase
        morning(world)
        ends = world.clock.monotonic() + MORNING_WITHIN
        killed = live_through(world, ends, dead_seconds, killed=killed, ends_awake=True)
        assert killed == 1, f"effect {effect}: the daemon was killed {killed} times"

        assert record(world).phase is PowerPhase.AWAKE, f"killed after effect {effect}: {record(world)}"
        assert world.cluster.hosts["c"].alive
        assert asleep_at_last in (PowerPhase.ASLEEP, PowerPhase.AWAKE, PowerPhase.STUCK), effect
        for vm in world.spec.cluster.vms:
            assert world.cluster.running_on(vm.key) is not None
        assert not [e for e in world.cluster.happened if "died" in e.kind or "powered off" in e.kind]


def live_through(world: World, until: float, dead_seconds: float, *, killed: int = 0, ends_awake: bool = False) -> int:
    """Run; where the daemon is killed it is started anew a while later, as its service manager would. How often it was.

    ``ends_awake``: no longer than until the host is in use again.
    """
    while world.clock.monotonic() < until:
        world.run(min(until, world.clock.monotonic() + 5.0))
        if world.loop is None:
            world.run(world.clock.monotonic() + dead_seconds)
            world.start_daemon()
            killed += 1
        elif ends_awake and killed and record(world).phase is PowerPhase.AWAKE:
            break
    return killed
