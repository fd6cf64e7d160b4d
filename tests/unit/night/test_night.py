"""A night on virtual time: three hosts fold, one or two sleep and are woken; what the report says adds up."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rebalancerd.cluster.night import Evening, Night, NightsTotal
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.power import PowerLimits, PowerPhase, PowerRecord
from rebalancerd.cluster.units import GIB
from rebalancerd.guard.settings import GuardSettings, PolicyWindow
from rebalancerd.night.plan import NightPlan
from rebalancerd.night.rehearsal import rehearse
from rebalancerd.night.terms import NightTerms, next_night
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec
from rebalancerd.sim.world import World
from tests.unit.act.power.power_cluster import QUICK

MINUTE, HOUR = 60.0, 3600.0
START = datetime(2026, 1, 5, 19, 55, tzinfo=UTC).timestamp()
BEGINS, ENDS = START + 5 * MINUTE, START + 95 * MINUTE
BEFORE_UNFOLDING, LATE = 75 * MINUTE, 470 * MINUTE  # of the run
WINDOW = PolicyWindow(start="0 20 * * *", end="30 21 * * *", unfold_seconds=900.0, name="night")
IDLE_WATTS, CORES = 100.0, 8


def spec(mode: Mode = Mode.AUTO) -> WorldSpec:
    """Hosts a, b, c with two small VMs each."""
    machines = tuple(
        HostSpec(name=n, cpus=CORES, memory_bytes=32 * GIB, power=True, idle_watts=IDLE_WATTS) for n in "abc"
    )
    vms = tuple(
        VmSpec(name=f"vm-{h}{i}", host=h, vcpus=4, memory_bytes=2 * GIB, demand=Demand(base=0.5))
        for h in "abc"
        for i in (1, 2)
    )
    return WorldSpec(
        cluster=ClusterSpec(hosts=machines, vms=vms, seed=3),
        mode=mode,
        start_wall=START,
        run_seconds=LATE,
        decide_seconds=60.0,
        plan=PlanSettings(watts_per_core=10.0, power_cycle_seconds=180.0),
        guard=GuardSettings(
            policy_windows=(WINDOW,), hold_rounds=2, cooldown_seconds=300.0, reverse_tabu_seconds=300.0
        ),
        power=QUICK,
        limits=PowerLimits(
            boot_seconds=120.0,
            min_up_seconds=300.0,
            min_down_seconds=300.0,
            hosts_on_min=1,
            spare_hosts=0,
            unfold_seconds=120.0,
            margin_seconds=60.0,
        ),
    )


def wake_all(world: World) -> None:
    """The morning's load, which one host does not carry."""
    world.cluster.guests.demand.base[:] = 2.0
    world.cluster.changed()


def the_night(world: World) -> Night:
    (night,) = world.ledger.nights()
    return night


def rehearsal(world: World) -> NightPlan:
    """What is told of the night before it begins."""
    assert world.loop is not None and world.keeper is not None
    night = next_night(world.spec.guard, world.clock.wall())
    assert night is not None and night.begins_at == BEGINS
    given = NightTerms(
        window=night.window,
        begins_at=night.begins_at,
        unfolds_at=night.unfolds_at,
        ends_at=night.ends_at,
        controlled=("a", "b", "c"),
        records=world.keeper.records(),
        limits=world.spec.limits,
        guard=world.spec.guard,
    )
    return rehearse(world.loop.look(night.ends_at - world.clock.wall()), given)


def pairwise_changes(orders: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(host, phase) as each host comes to a phase, repeated records of it left out."""
    last: dict[str, str] = {}
    found = []
    for host, phase in orders:
        if last.get(host) != phase:
            found.append((host, phase))
        last[host] = phase
    return found


def evening() -> tuple[tuple[str, str], ...]:
    """Where the VMs are declared."""
    return tuple(sorted((vm.key, vm.host) for vm in spec().cluster.vms))


def watts(busy: float) -> float:
    return IDLE_WATTS + busy * 10.0


def test_a_night_folds_sleeps_wakes_and_its_account_adds_up() -> None:
    with World(spec()) as world:
        world.run(4 * MINUTE)
        rehearsed = rehearsal(world)
        orders: list[tuple[str, str]] = []
        told = world.ledger.on_power

        def note(record: PowerRecord) -> None:
            told(record)
            orders.append((record.host, record.phase.value))

        world.ledger.on_power = note
        world.run(BEFORE_UNFOLDING)
        moves = sorted(world.ledger.records.values(), key=lambda m: m.intent_at)
        folds = [m for m in rehearsed.moves if not m.unfolding]
        assert [(m.vm_uuid, m.destination) for m in folds] == [(m.vm_uuid, m.destination) for m in moves]
        went = [host for host, was in pairwise_changes(orders) if was == "shutting_down"]
        assert [s.host for s in rehearsed.sleeps] == went
        slept = sum(seconds for _, seconds in the_night(world).asleep_seconds)
        later = sum(w.at - (START + BEFORE_UNFOLDING) for w in rehearsed.wakes if not w.test)
        ahead = sum(seconds for _, seconds in rehearsed.predicted.asleep_seconds) - later
        assert ahead == pytest.approx(slept, rel=0.1)
        assert [r for r in world.ledger.power.values() if r.phase is PowerPhase.ASLEEP]
        wake_all(world)
        world.run(LATE)

        night = the_night(world)
        assert (night.window, night.mode) == ("night (0 20 * * * to 30 21 * * *)", "auto")
        assert 0 <= night.began_at - BEGINS <= 60
        assert night.ended_at is not None and night.ended_at >= ENDS
        assert not [r for r in world.ledger.power.values() if r.phase.is_away]
        ended = [m for m in world.ledger.records.values() if night.began_at <= (m.ended_at or 0.0) <= night.ended_at]
        assert night.moves == len(ended) > 0
        assert night.moves_joules == pytest.approx(sum(m.seconds or 0.0 for m in ended) * 0.5 * 10.0)
        # all hosts draw in a straight line, so what is saved is the idle power of the sleeping and nothing else
        slept_seconds = sum(seconds for _, seconds in night.asleep_seconds)
        assert slept_seconds > HOUR
        saved = slept_seconds * IDLE_WATTS - night.moves_joules
        assert night.saved_kwh == pytest.approx(saved / 3.6e6, rel=0.02)
        assert night.missed_seconds <= 300.0  # cycles in which a host that came back flapped
        assert night.accounted_seconds + night.missed_seconds == pytest.approx(night.ended_at - night.began_at, abs=1.0)
        assert world.nights is not None
        assert (world.nights.told.now, world.nights.told.last) == (None, replace(night, evening=Evening(vms=evening())))
        assert world.nights.told.total == NightsTotal(nights=1, saved_kwh=night.saved_kwh)


def test_a_daemon_that_is_killed_in_mid_night_goes_on_with_it_and_claims_nothing_for_its_absence() -> None:
    with World(spec()) as world:
        world.run(50 * MINUTE)
        before = the_night(world)
        assert before.asleep_seconds
        world.kill_daemon()
        world.run(65 * MINUTE)
        world.start_daemon()
        world.begin_ticks()
        world.run(BEFORE_UNFOLDING)
        after = the_night(world)

        assert (after.id, after.began_at, after.ended_at) == (before.id, before.began_at, None)
        assert 15 * MINUTE <= after.missed_seconds - before.missed_seconds <= 22 * MINUTE
        went_on = after.accounted_seconds - before.accounted_seconds
        assert 3 * MINUTE <= went_on <= 11 * MINUTE
        assert after.unfolded_joules - before.unfolded_joules == pytest.approx(3 * watts(1.0) * went_on, rel=0.05)
        asleep_before = dict(before.asleep_seconds)
        assert all(s - asleep_before.get(h, 0.0) <= went_on + 1.0 for h, s in after.asleep_seconds)


def test_where_nothing_may_move_nothing_is_saved() -> None:
    with World(spec(Mode.RECOMMEND)) as world:
        world.run(LATE)
        night = the_night(world)
        assert (night.mode, night.moves, night.asleep_seconds) == ("recommend", 0, ())
        assert night.saved_kwh == 0.0
        assert night.unfolded_joules == pytest.approx(3 * watts(1.0) * night.accounted_seconds, rel=0.05)
        assert night.ended_at == pytest.approx(ENDS, abs=120.0)
