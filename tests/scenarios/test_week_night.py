"""One night of the week benchmark, small: hosts fold, sleep and wake, one does not wake, the daemon dies at every step."""

from functools import cache

from rebalancerd.cluster.power import PowerPhase
from rebalancerd.sim.world import World
from tests.bench.week_world import Driver, Lived, Meter, cluster, watched, week

BEGINS = 21 * 3600.0
HOURS = 10.0
BREAKS_AT = 5.5 * 3600.0  # half past two


@cache
def night() -> tuple[World, Lived, Meter]:
    return lived(nights=True)


def lived(*, nights: bool) -> tuple[World, Lived, Meter]:
    made = cluster(6, 24, 5, BEGINS)
    spec = week(made, HOURS / 24, nights=nights, begins=BEGINS)
    with World(spec, begin=watched) as world:
        meter = Meter(world, spec.plan.cpu_headroom)
        world.cluster.meter = meter
        driver = Driver(world, kills_per_step=1 if nights else 0, breaks_at=(BREAKS_AT,) if nights else ())
        driver.live()
        return world, driver.lived, meter


def test_no_promise_is_broken_though_the_daemon_dies_at_every_step() -> None:
    _, done, _ = night()
    assert done.violations == []
    assert done.kills >= 12
    for step in ("closing", "shutting_down", "asleep", "waking", "ordered off", "ordered on"):
        assert any(step in kind for kind in done.steps), step


def test_hosts_slept_and_all_but_the_broken_one_are_back_in_the_morning() -> None:
    world, done, meter = night()
    assert meter.off_seconds > 3600
    assert done.slept >= 2
    phases = {host: record.phase for host, record in world.ledger.power.items()}
    assert {host for host, phase in phases.items() if phase is not PowerPhase.AWAKE} <= set(done.broken), phases


def test_a_wake_failed_and_another_host_came_in_its_place() -> None:
    world, done, _ = night()
    assert len(done.broken) == 1
    assert {host for host, _ in done.failed_wakes} == set(done.broken)
    assert world.ledger.power[done.broken[0]].disabled is not None


def test_guests_are_served_no_worse_than_without_a_night_and_energy_is_saved() -> None:
    _, _, with_night = night()
    _, _, without = lived(nights=False)
    assert with_night.hot_seconds <= without.hot_seconds + 60.0
    assert with_night.kwh < without.kwh
