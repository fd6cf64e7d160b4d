"""ScenarioDemand: forecasts where they can be had, the cautious floor elsewhere, and never a failure."""

from dataclasses import replace

import numpy as np
import pytest

from rebalancerd.cluster.host import Host, HostFacts, HostLoad
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.persistence import PersistenceDemand
from rebalancerd.predict.demand.scenario_model import ScenarioDemand
from rebalancerd.predict.settings import PredictSettings

SETTINGS = PredictSettings(paths=32, horizon_seconds=1800, step_seconds=300)
END = 300_000.0
ROWS = 100


def vm(uuid, *, cpu=1.0, steal=0.0, vcpus=4, host="a", state=DomainState.RUNNING):
    facts = VmFacts(uuid=uuid, name=uuid, vcpus=vcpus, memory_bytes=4 * GIB)
    return Vm(facts=facts, host=host, state=state, load=VmLoad(cpu_cores=cpu, steal_cores=steal, memory_bytes=GIB))


def snapshot(*vms, unusable=None, busy=None, at=END):
    facts = HostFacts(uuid=None, cpus=8, memory_bytes=64 * GIB)
    load = HostLoad(cpu_cores=busy)
    hosts = (
        Host(name="a", facts=facts, cores=8, memory_bytes=64 * GIB, unusable=unusable, load=load),
        Host(name="fast", facts=facts, cores=8, memory_bytes=64 * GIB, speed_factor=1.5),
    )
    return Snapshot(taken_at=at, hosts=hosts, vms=vms)


def series(*, end=END, step=300.0, **columns):
    values = np.array(list(columns.values()), dtype=np.float32).T.reshape(-1, len(columns))
    return Series(resource="vm_cpu_cores", ids=tuple(columns), values=values, step_seconds=step, end=end)


def noisy(mean=1.0, spread=0.2, seed=1, rows=ROWS):
    return np.clip(np.random.default_rng(seed).normal(mean, spread, rows), 0, 4).tolist()


EMPTY = Series.empty("x", 300.0, END)


class Broken:
    basis = "broken"

    def forecast(self, panel, steps):
        raise ZeroDivisionError("no")


class Spy:
    basis = "spy"

    def __init__(self):
        self.panel, self.steps = None, None

    def forecast(self, panel, steps):
        self.panel, self.steps = panel, tuple(steps)
        return replace(NAIVE["mean_2h"].forecast(panel, steps), basis=self.basis)


def made(snap, cpu, forecaster=None, settings=SETTINGS, **more):
    return ScenarioDemand(forecaster or NAIVE["mean_2h"], settings, **more).scenarios(snap, cpu, EMPTY)


def spread(scenarios, uuid):
    row = scenarios.cpu_cores[scenarios.row[uuid]]
    return float(np.quantile(row, 0.95) - np.quantile(row, 0.05))


def test_known_vms_are_forecast_and_the_basis_says_by_whom():
    got = made(snapshot(vm("u"), vm("v")), series(u=noisy(), v=noisy(2.0)))
    assert got.basis == "mean_2h"
    assert got.cpu_cores.shape == (2, 32 * 6)
    assert got.cpu_cores[0].mean() == pytest.approx(1.0, abs=0.15)
    assert got.cpu_cores[1].mean() == pytest.approx(2.0, abs=0.15)
    assert got.known.all()


def test_memory_is_the_floors():
    snap, cpu = snapshot(vm("u")), series(u=noisy())
    floor = PersistenceDemand(SETTINGS).scenarios(snap, cpu, EMPTY)
    assert (made(snap, cpu).memory_bytes == floor.memory_bytes).all()


@pytest.mark.parametrize(
    "odd",
    [
        vm("o", cpu=None),
        vm("o", cpu=float("nan")),
        vm("o", cpu=-1.0),
        vm("o", state=DomainState.SHUTOFF),
    ],
)
def test_a_vm_that_cannot_be_forecast_keeps_the_cautious_stand_in(odd):
    snap, cpu = snapshot(vm("u"), odd), series(u=noisy(), o=noisy())
    floor = PersistenceDemand(SETTINGS).scenarios(snap, cpu, EMPTY)
    got = made(snap, cpu)
    row = got.row["o"]
    assert (got.cpu_cores[row] == floor.cpu_cores[row]).all()
    assert got.known[row] == floor.known[row]
    assert got.basis == "mean_2h"


def test_of_an_unusable_host_nothing_is_forecast():
    got = made(snapshot(vm("u"), unusable="no answer"), series(u=noisy()))
    assert got.basis == "persistence"
    assert not got.known.any()


def test_a_new_vm_is_wider_than_the_same_with_a_history():
    steady = noisy(1.0, 0.05)
    old = made(snapshot(vm("u"), vm("v")), series(u=steady, v=steady))
    short = [float("nan")] * (ROWS - 3) + steady[-3:]
    new = made(snapshot(vm("u"), vm("v")), series(u=short, v=steady))
    assert spread(new, "u") > 1.5 * spread(old, "u")
    assert new.cpu_cores[new.row["u"]].min() > 0
    none = made(snapshot(vm("u"), vm("v")), series(v=steady))
    assert (none.cpu_cores[none.row["u"]] == new.cpu_cores[new.row["u"]]).all()


@pytest.mark.parametrize("late", [-400.0, 1000.0, 1e9])
def test_a_stale_history_or_one_of_the_future_is_not_believed(late):
    got = made(snapshot(vm("u"), at=END + late), series(u=noisy()))
    assert got.basis == "persistence"


def test_a_gap_is_not_read_as_idle():
    gap = noisy()
    gap[-20:-2] = [float("nan")] * 18
    got = made(snapshot(vm("u")), series(u=gap))
    assert got.cpu_cores.mean() == pytest.approx(1.0, abs=0.2)


def test_absurd_history_is_left_out():
    bad = noisy()
    bad[10], bad[20], bad[30] = -5.0, float("inf"), float("nan")
    spy = Spy()
    made(snapshot(vm("u")), series(u=bad), spy)
    assert np.isnan(spy.panel.values[0, [10, 20, 30]]).all()
    assert np.isfinite(spy.panel.values[0]).sum() == ROWS - 3


def test_a_forecaster_that_fails_costs_one_cycle_its_forecast():
    model = ScenarioDemand(Broken(), SETTINGS)
    got = model.scenarios(snapshot(vm("u")), series(u=noisy()), EMPTY)
    assert (got.basis, model.failures) == ("persistence", 1)


def test_a_moved_vm_takes_its_past_along_and_counts_in_reference_cores():
    cpu = series(u=noisy())
    here, there = made(snapshot(vm("u")), cpu), made(snapshot(vm("u", host="fast")), cpu)
    np.testing.assert_allclose(there.cpu_cores, here.cpu_cores * 1.5, rtol=1e-5)


def test_a_resized_vm_is_measured_by_its_present_size():
    spy = Spy()
    got = made(snapshot(vm("u", vcpus=2, cpu=1.9)), series(u=noisy(3.0)), spy)
    assert spy.panel.values[0].mean() == pytest.approx(1.5, abs=0.1)
    assert got.cpu_cores.max() <= 2 * spy.panel.values[0, -1] + 1e-5
    assert got.cpu_cores.min() > 0


def test_what_is_waited_for_is_asked_for():
    cpu = series(u=noisy())
    served = made(snapshot(vm("u"), busy=8.0), cpu)
    starved = made(snapshot(vm("u", steal=0.8), busy=8.0), cpu)
    np.testing.assert_allclose(starved.cpu_cores - served.cpu_cores, 0.25, atol=1e-5)  # a quarter of its use at most


def test_a_history_of_another_step_is_asked_in_its_own_steps():
    spy = Spy()
    made(snapshot(vm("u")), series(step=600.0, u=noisy()), spy)
    assert spy.steps == (1, 1, 2, 2, 3, 3)
    made(snapshot(vm("u")), series(step=60.0, u=noisy()), spy)
    assert spy.steps == (5, 10, 15, 20, 25, 30)


def test_hourly_history_siblings_and_season_reach_the_forecaster():
    spy = Spy()
    hourly = series(step=3600.0, u=[2.0] * 48)
    settings = replace(SETTINGS, season_seconds=7200.0)
    made(snapshot(vm("u"), vm("v", host="fast")), series(u=noisy(), v=noisy()), spy, settings, hourly=lambda: hourly)
    assert spy.panel.season_seconds == 7200.0
    assert spy.panel.hourly.shape == (2, 48)
    assert (spy.panel.hourly[0] == 0.5).all()
    assert np.isnan(spy.panel.hourly[1]).all()
    assert spy.panel.siblings.tolist() == [0, 1]


def test_vms_that_rise_together_make_a_wider_host_than_vms_that_take_turns():
    on = np.tile([0.5] * 12 + [3.5] * 12, 12)
    off = 4.0 - on
    rng = np.random.default_rng(2)
    on, off = (np.clip(x + rng.normal(0, 0.02, len(x)), 0, 4).tolist() for x in (on, off))
    together = made(snapshot(vm("u"), vm("v")), series(u=on, v=on))
    in_turn = made(snapshot(vm("u"), vm("v")), series(u=on, v=off))
    widths = [float(np.std(s.cpu_cores.sum(axis=0).reshape(32, 6)[:, -1])) for s in (together, in_turn)]
    assert widths[0] > 2 * widths[1]


def test_the_same_question_has_the_same_answer():
    snap, cpu = snapshot(vm("u"), vm("v")), series(u=noisy(), v=noisy(seed=3))
    assert (made(snap, cpu).cpu_cores == made(snap, cpu).cpu_cores).all()


def test_no_vms_and_no_history_are_no_failure():
    assert made(snapshot(), EMPTY).cpu_cores.shape == (0, 192)
    assert made(snapshot(vm("u")), EMPTY).basis == "persistence"


def test_two_vms_have_errors_of_their_own_as_well_as_many():
    row = np.random.default_rng(1).normal(0.25, 0.0125, (1, 200)).astype(np.float32)
    few, many = (
        NAIVE["mean_2h"].forecast(Panel(values=np.repeat(row, n, axis=0), step_seconds=300.0, end=END), (1, 6))
        for n in (2, 40)
    )
    np.testing.assert_allclose(few.quantiles[0], many.quantiles[0], rtol=1e-5)
    assert few.quantiles[0, 1, -1] - few.quantiles[0, 1, 0] < 0.06
