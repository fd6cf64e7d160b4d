"""A guest is moved before its host is hot: the load of two recorded periods is expected to come a third time."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rebalancerd import config as configuration
from rebalancerd.act.executor import Executor
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.daemon import build_ports, loop_settings
from rebalancerd.lab import GuestSpec, Lab, Phase
from rebalancerd.loop import Loop
from rebalancerd.observe.history import HOST_CPU, History, Tier
from rebalancerd.observe.observer import Observer
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.demand.kind import DEMAND
from rebalancerd.predict.demand.scenario_model import ScenarioDemand
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.predict.store import ModelStore
from rebalancerd.record.file_lease import FileLease
from rebalancerd.record.sql_ledger import SqlLedger
from tests.lab.daemon_on_lab import DaemonOnLab

STEP, PERIOD = 10.0, 120.0  # a tick of ten seconds counts as a step; twelve of them come again
CALM, BUSY = 60.0, 60.0
STEADY_PERCENT, BUSY_PERCENT = 20.0, 33.0  # together more than the 0.6 cores of a host, apart well below its headroom
RECORDED_PERIODS = 2
CALM_SHARE = (
    0.85  # of the headroom: a calm step, the host's own work included, takes some 0.7 of it, a busy one more than all
)
PREDICT = PredictSettings(horizon_seconds=60.0, step_seconds=STEP, season_seconds=PERIOD, residual_window_steps=24)
# a step of ten seconds stands for five minutes, the copy takes as long as ever
COST_IN_STEPS = STEP / 300.0


class Rig:
    """The daemon's parts on the lab's hosts, with a history of ten-second steps."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        made = DaemonOnLab(lab, directory)
        self.cfg, self.clock = configuration.load(made.config), SystemClock()
        self.ports = build_ports(self.cfg, self.clock)
        history = History(directory / "history", tiers=(Tier(STEP, 600), Tier(3600.0, 48)))
        self.observer = Observer(
            hosts=self.cfg.host_settings(),
            settings=self.cfg.observe_settings(),
            read=self.ports.read,
            probe=self.ports.probe,
            agents=None,
            history=history,
            clock=self.clock,
        )
        self.ledger = SqlLedger(f"sqlite:///{directory / 'ledger.sqlite'}", self.clock)
        lease = FileLease(directory / "lock")
        assert self.ports.write is not None
        self.executor = Executor(
            read=self.ports.read,
            write=self.ports.write,
            probe=self.ports.probe,
            ledger=self.ledger,
            clock=self.clock,
            settings=self.cfg.act_settings(),
            lease=lease,
            controller="lab",
        )
        settings = loop_settings(self.cfg)
        store = ModelStore(directory / "models", kind=DEMAND)
        (found,) = [f for f in store.found() if f.source == "shipped"]
        self.loop = Loop(
            observer=self.observer,
            demand=ScenarioDemand(store.load(found.path, PREDICT).model.forecaster, PREDICT),
            costs=PhysicsCost(PREDICT),
            ledger=self.ledger,
            clock=self.clock,
            settings=replace(
                settings,
                plan=replace(settings.plan, weight_cost=COST_IN_STEPS),
                guard=replace(settings.guard, hold_rounds=1),
            ),
            executor=self.executor,
            lease=lease,
        )
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(2.0, self.observer.sample)),
            threading.Thread(target=self._repeat, args=(3.0, self.observer.probe_tick)),
            threading.Thread(target=self.executor.run_watch, args=(self._stop,)),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _repeat(self, seconds: float, work: Callable[[], object]) -> None:
        while not self._stop.wait(seconds):
            work()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        for port in (self.ports.write, self.ports.probe, self.ports.read):
            if port is not None:
                port.close()
        self.observer.close()
        self.ledger.close()

    def load_of(self, host: str) -> np.ndarray:
        """Recorded cores of a host, step by step."""
        series = self.observer.series(HOST_CPU)
        return series.values[:, series.ids.index(host)]

    def hot_already(self) -> set[str]:
        """Hosts of which the present load is above headroom: what a balancer without a forecast would see."""
        snapshot = self.observer.snapshot(operator=OperatorState(), ours=())
        headroom = self.loop.settings.plan.cpu_headroom
        return {
            host.name
            for host in snapshot.hosts
            if (busy := host.load.cpu_cores) is not None
            and (capacity := host.capacity_cores) is not None
            and busy > headroom * capacity
        }


@pytest.fixture
def rig(lab: Lab, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(lab, tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.lab_full
def test_a_guest_is_moved_before_its_host_is_hot(
    lab: Lab, make_guest: Callable[..., GuestSpec], rig: Rig, record_property: Callable[[str, object], None]
) -> None:
    make_guest(name="steady", host="h1", phases=(Phase(seconds=3600, cpu_percent=STEADY_PERCENT),))
    make_guest(name="busy", host="h1")
    rig.start()
    schedule = (Phase(seconds=CALM, cpu_percent=2.0), Phase(seconds=BUSY, cpu_percent=BUSY_PERCENT))
    begun = time.time()
    lab.set_load("busy", schedule, repeat=True)

    # well into the third calm: no recorded step of the last busy spell is the present any more
    time.sleep(max(0.0, begun + RECORDED_PERIODS * PERIOD + 22.0 - time.time()))
    headroom = rig.loop.settings.plan.cpu_headroom * lab.spec.cpu_quota_cores
    recorded = rig.load_of("h1")[-int(RECORDED_PERIODS * PERIOD / STEP) :]
    busy = recorded > headroom
    assert 4 <= busy.sum() <= 16, f"its host was hot in the busy half of the recorded periods: {recorded}"
    # a guest on a busy machine may be late: the last step has to be a calm one all through
    until = begun + RECORDED_PERIODS * PERIOD + CALM - 2 * STEP
    while (last := rig.load_of("h1")[-1]) > CALM_SHARE * headroom and time.time() < until:
        time.sleep(0.5)
    assert last <= CALM_SHARE * headroom, f"and is not now: {last:.2f} cores"
    assert rig.ledger.migrations() == ()

    seen_hot: list[set[str]] = []
    hot_again = begun + RECORDED_PERIODS * PERIOD + CALM
    while time.time() < hot_again + BUSY and not rig.ledger.migrations():
        seen_hot.append(rig.hot_already())
        rig.loop.iterate()
        time.sleep(2.0)
    (record,) = rig.ledger.migrations()
    while rig.executor.active():
        time.sleep(0.5)
    (record,) = rig.ledger.migrations()
    assert record.state is MigrationState.SUCCEEDED
    assert lab.find(record.vm_name) != "h1"
    assert record.ended_at is not None
    lead = hot_again - record.ended_at
    told = f"begun {hot_again - record.intent_at:.1f} s and ended {lead:.1f} s before its host would have been hot"
    print(f"\nlead time: {record.vm_name} to {record.destination}, {told}")
    record_property("lead_seconds", lead)
    assert lead > 0, told
    assert not any("h1" in hot for hot in seen_hot), "a threshold on the present load saw nothing coming"

    time.sleep(max(0.0, hot_again + BUSY - 5.0 - time.time()))
    spared = rig.load_of("h1")[-3:]
    assert np.nanmax(spared) < headroom, f"and it was not hot when the load came: {spared}"
