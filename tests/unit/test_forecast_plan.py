"""From forecast to plan through the whole loop: what rises is relieved early, what falls is waited for, and no trust, no forecast."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.loop import Loop, LoopSettings
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.demand.kind import DemandParts
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.demand.scenario_model import ScenarioDemand
from rebalancerd.predict.demand.synthetic import synthetic_series
from rebalancerd.predict.demand.training import train_demand
from rebalancerd.predict.demand.trial import Factors
from rebalancerd.predict.demand.trusted import TrustedForecaster
from rebalancerd.predict.drift import Trust
from rebalancerd.predict.seating import Seat
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec
from rebalancerd.sim.world import World

SETTINGS = PredictSettings(horizon_seconds=1800.0, step_seconds=300.0)
NOW = 1_700_006_400.0
ROWS = 576
PLANNED = PlanSettings()
GUESTS, VCPUS, PRESENT = 4, 4, 0.36  # 5.8 of 8 cores, the headroom ends at 6.4
DAY_STEPS = 288


@pytest.fixture(scope="module")
def learned():
    return train_demand([synthetic_series(48, 4 * DAY_STEPS, seed=5)], seed=1, windows=6000, model_id="demand-test")


def day(later: float, present: float) -> np.ndarray:
    """Share of its vCPUs that a guest used in each of the last two days' steps, if it asks for ``later`` from the next step on."""
    shares = np.full(ROWS, present)
    for before in (DAY_STEPS, 2 * DAY_STEPS):
        shares[ROWS - before : ROWS - before + 24] = later
    return shares


def cluster(present: float) -> ClusterSpec:
    """Four guests on one of two hosts, each asking for ``present`` of its vCPUs."""
    hosts = tuple(HostSpec(name=h, cpus=8, memory_bytes=64 * GIB) for h in ("a", "b"))
    guests = tuple(
        VmSpec(
            name=f"vm{i}",
            host="a",
            vcpus=VCPUS,
            rss_bytes=2 * GIB,
            demand=Demand(base=VCPUS * present),
            dirty_bytes_per_second=2.0 * MIB,
            working_set_bytes=64.0 * MIB,
        )
        for i in range(GUESTS)
    )
    return ClusterSpec(hosts=hosts, vms=guests)


class Recorded:
    """A simulated cluster as it is, over one history or another."""

    def __init__(self, world: World, later: float, present: float) -> None:
        self.world = world
        noise = np.random.default_rng(3).normal(0.0, 0.004, (ROWS, GUESTS))
        noise[-1] = 0.0
        self.cpu = (np.clip(day(later, present)[:, None] + noise, 0, 1) * VCPUS).astype(np.float32)

    def snapshot(self, **told):
        return self.world.observer.snapshot(**told)

    def series(self, resource, tier=0):
        now = self.world.clock.wall()
        if tier or resource not in ("vm_cpu_cores", "vm_memory_bytes"):
            return Series.empty(resource, 300.0, now)
        values = self.cpu if resource == "vm_cpu_cores" else np.full_like(self.cpu, 2 * GIB)
        ids = tuple(sorted(vm.key for vm in self.world.spec.cluster.vms))
        return Series(resource=resource, ids=ids, values=values, step_seconds=300.0, end=now)


def plan(later, forecaster, present=PRESENT):
    with World(WorldSpec(cluster=cluster(present), mode=Mode.RECOMMEND, decide_seconds=1e9)) as world:
        world.run(world.clock.monotonic() + 20.0)
        loop = Loop(
            observer=Recorded(world, later, present),
            demand=ScenarioDemand(forecaster, SETTINGS),
            costs=PhysicsCost(SETTINGS),
            ledger=world.ledger,
            clock=world.clock,
            settings=LoopSettings(mode=Mode.RECOMMEND, plan=PLANNED, guard=GuardSettings(hold_rounds=0)),
        )
        return loop.propose()


def moves(found):
    return [(s.move.vm_name, s.move.source, s.move.destination) for s in found.steps]


def seated(learned, *, trusted: bool, best: str = "persistence") -> TrustedForecaster:
    forecaster = TrustedForecaster(lambda: NOW)
    artefact = SimpleNamespace(model=DemandParts(learned), id="demand-test")
    forecaster.swap(Seat(artefact, Trust(trusted=trusted, reason="a test")), Factors(), best)
    return forecaster


def test_a_forecast_that_rises_moves_a_guest_before_its_host_is_hot(learned):
    found = plan(0.6, learned)
    assert found.basis == "demand-test"
    assert found.hot_hosts == ("a",)
    assert found.steps
    assert {source for _, source, _ in moves(found)} == {"a"}
    assert PLANNED.cpu_headroom * 8 > PRESENT * VCPUS * GUESTS  # not hot yet


def test_a_forecast_that_falls_makes_it_wait(learned):
    found = plan(0.05, learned)
    assert found.basis == "demand-test"
    assert not found.steps
    assert not found.hot_hosts


def test_a_forecast_never_hides_the_load_there_is(learned):
    found = plan(0.05, learned, present=0.42)  # 6.7 of 8 cores
    assert found.hot_hosts == ("a",)


def test_while_it_is_trusted_the_model_answers(learned):
    assert moves(plan(0.6, seated(learned, trusted=True))) == moves(plan(0.6, learned))


@pytest.mark.parametrize("best", ["persistence", "mean_2h", "ewma"])
def test_with_the_forecast_demoted_the_plan_is_the_naive_one(learned, best):
    naive = plan(0.6, NAIVE[best])
    demoted = plan(0.6, seated(learned, trusted=False, best=best))
    assert demoted.basis == best
    assert moves(demoted) == moves(naive)
    assert demoted.digest == replace(naive, id=demoted.id).digest
    assert moves(demoted) != moves(plan(0.6, learned))
