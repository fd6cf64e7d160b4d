"""Demand over a whole window: the same hours of past days, all VMs of a path from the same day."""

from dataclasses import replace

import numpy as np
import pytest

from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict.demand.persistence import PersistenceDemand
from rebalancerd.predict.demand.window import over_window
from rebalancerd.predict.settings import PredictSettings

SETTINGS = PredictSettings(paths=8, horizon_seconds=1800, step_seconds=300)
HOUR = 3600.0
MIDNIGHT = 20_000 * 86_400.0
EVENING = MIDNIGHT + 20 * HOUR
NIGHT = 10 * HOUR


def vm(uuid, *, cpu=0.5, state=DomainState.RUNNING, host="a"):
    facts = VmFacts(uuid=uuid, name=uuid, vcpus=4, memory_bytes=4 * GIB)
    return Vm(facts=facts, host=host, state=state, load=VmLoad(cpu_cores=cpu, memory_bytes=GIB))


def snapshot(*vms, at=EVENING, unusable=None):
    facts = HostFacts(uuid=None, cpus=8, memory_bytes=64 * GIB)
    hosts = (
        Host(name="a", facts=facts, cores=8, memory_bytes=64 * GIB, unusable=unusable),
        Host(name="fast", facts=facts, cores=8, memory_bytes=64 * GIB, speed_factor=2.0),
    )
    return Snapshot(taken_at=at, hosts=hosts, vms=vms)


def hourly(shape, days=10, end=EVENING, resource="vm_cpu_cores"):
    """Hourly means by hour of the day: ``shape(day back, hour) -> {uuid: value}``, ended at ``end``."""
    ends = end - HOUR * np.arange(days * 24)[::-1]
    rows = [shape(int((end - t) // 86_400), int((t - 1) % 86_400 // HOUR)) for t in ends]
    ids = tuple(rows[0])
    values = np.array([[row[i] for i in ids] for row in rows], dtype=np.float32)
    return Series(resource=resource, ids=ids, values=values, step_seconds=HOUR, end=end)


NONE = Series.empty("x", HOUR, EVENING)


def near_of(snap):
    return PersistenceDemand(SETTINGS).scenarios(
        snap, Series.empty("c", 300.0, snap.taken_at), Series.empty("m", 300.0, snap.taken_at)
    )


def told(snap, cpu=NONE, memory=NONE, seconds=NIGHT):
    near = near_of(snap)
    return near, over_window(near, snap, cpu, memory, seconds)


def by_hour(scenarios, uuid):
    """(K, H) cores."""
    return scenarios.cpu_cores[scenarios.row[uuid]].reshape(scenarios.paths, scenarios.steps)


def backup_at_three(_day, hour):
    return {"backup": 3.0 if hour == 3 else 0.5}


def test_a_load_that_comes_every_night_is_seen_hours_ahead():
    near, window = told(snapshot(vm("backup")), hourly(backup_at_three))
    assert near.cpu_cores.max() < 1.5
    assert window.horizon_seconds == pytest.approx(NIGHT)
    mean = by_hour(window, "backup").mean(axis=0)
    ends = (np.arange(window.steps) + 1) * window.step_seconds
    at_three = (ends > 7 * HOUR) & (ends <= 8 * HOUR)
    assert mean[at_three].min() > 2.7
    assert mean[~at_three].max() < 1.2


def test_what_falls_at_night_is_not_held_at_its_evening_level():
    _, window = told(snapshot(vm("day", cpu=3.0)), hourly(lambda _d, h: {"day": 3.0 if 8 <= h < 20 else 0.2}))
    assert by_hour(window, "day")[:, -4:].mean() < 0.6


def test_an_unusual_present_fades_and_does_not_vanish():
    _, window = told(snapshot(vm("busy", cpu=3.5)), hourly(lambda _d, _h: {"busy": 0.5}))
    mean = by_hour(window, "busy").mean(axis=0)
    ends = (np.arange(window.steps) + 1) * window.step_seconds
    assert mean[ends <= 2 * HOUR].min() > 1.8
    assert mean[-1] < 0.8


def test_vms_of_one_path_come_from_the_same_day():
    shape = lambda day, _h: {"x": 2.0 + (day % 2), "y": 3.0 - (day % 2)}  # noqa: E731
    near = near_of(snapshot(vm("x", cpu=2.0), vm("y", cpu=2.0)))
    flat = np.full_like(near.cpu_cores, 2.0)
    window = over_window(
        replace(near, cpu_cores=flat), snapshot(vm("x", cpu=2.0), vm("y", cpu=2.0)), hourly(shape), NONE, NIGHT
    )
    both = by_hour(window, "x") + by_hour(window, "y")
    assert by_hour(window, "x")[:, -1].std() > 0.3
    assert both[:, -1] == pytest.approx(np.full(window.paths, 5.0), abs=0.05)


def test_without_records_the_near_forecast_goes_on():
    near, window = told(snapshot(vm("new")))
    assert by_hour(window, "new").max() == pytest.approx(near.cpu_cores.max())
    assert by_hour(window, "new").mean() >= near.cpu_cores.mean()


def test_the_near_forecast_stands_where_it_reaches():
    near, window = told(snapshot(vm("n", cpu=2.0)), hourly(lambda _d, _h: {"n": 0.0}))
    assert by_hour(window, "n")[:, :2].max() >= near.cpu_cores.reshape(8, -1).max() - 1e-6


def test_a_short_window_is_the_near_forecast():
    near, window = told(snapshot(vm("n")), hourly(backup_at_three), seconds=900)
    assert window is near


def test_unknown_stays_cautious_and_off_stays_nothing():
    snap = snapshot(vm("lost", cpu=None), vm("off", state=DomainState.SHUTOFF))
    _, window = told(snap, hourly(lambda _d, _h: {"lost": 0.1, "off": 2.0}))
    assert not window.known[window.row["lost"]]
    assert by_hour(window, "lost").min() == pytest.approx(4.0)
    assert by_hour(window, "off").max() == 0.0


def test_cores_are_those_of_the_reference():
    _, window = told(snapshot(vm("f", cpu=1.0, host="fast")), hourly(lambda _d, _h: {"f": 2.0}))
    assert by_hour(window, "f")[:, -1].mean() == pytest.approx(2.0, abs=0.2)


def test_memory_that_grows_every_night_is_seen():
    grows = hourly(lambda _d, h: {"m": 3.0 * GIB if h == 3 else 1.0 * GIB}, resource="vm_memory_bytes")
    _, window = told(snapshot(vm("m")), NONE, grows)
    held = window.memory_bytes[window.row["m"]].reshape(window.paths, window.steps)
    assert held.max(axis=1).min() >= 3.0 * GIB
    assert held[:, 0].max() < 1.5 * GIB


@pytest.mark.parametrize("late", [0.0, 1700.0, 3 * 86_400.0])
def test_a_history_that_ends_earlier_is_laid_by_the_clock(late):
    end = EVENING - late // HOUR * HOUR - (HOUR if late % HOUR else 0.0)
    snap = snapshot(vm("backup"), at=EVENING)
    near = near_of(snap)

    def shape(_day, hour):
        return {"backup": 3.0 if hour == 3 else 0.5}

    ends = end - HOUR * np.arange(240)[::-1]
    values = np.array([[shape(0, int((t - 1) % 86_400 // HOUR))["backup"]] for t in ends], dtype=np.float32)
    past = Series(resource="c", ids=("backup",), values=values, step_seconds=HOUR, end=end)
    window = over_window(near, snap, past, NONE, NIGHT)
    mean = by_hour(window, "backup").mean(axis=0)
    assert (np.argmax(mean) + 1) * window.step_seconds == pytest.approx(7.5 * HOUR, abs=0.6 * HOUR)


def test_no_vms_is_no_matter():
    near = near_of(snapshot())
    assert over_window(near, snapshot(), NONE, NONE, NIGHT) is near
