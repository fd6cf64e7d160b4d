"""Readings become models host by host: which meter counts, what is dropped and told, what outlives the process."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from rebalancerd.cluster.host import HostLoad
from rebalancerd.cluster.power import PowerFault
from rebalancerd.cluster.power_curve import PowerDefaults, host_watts
from rebalancerd.cluster.power_fit import READINGS_MIN
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.observe.package_meter import PackageMeter
from rebalancerd.ports import PowerError
from rebalancerd.power_models import EVERY_SECONDS, UNTOLD_SECONDS, PowerModels
from tests.unit.plan.plan_cluster import host

DEFAULTS = PowerDefaults(idle_watts=100.0, watts_per_core=10.0)


class Hand:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1.7e9 + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Meter:
    """Says what it is told to, of a host that draws 60 W and 120 W more with all of its 16 cores busy."""

    name: str = "its controller"
    asks: bool = True
    of: frozenset[str] = frozenset({"h1", "h2"})
    says: Callable[[float], float | None] = lambda use: 60.0 + 120.0 * use
    use: float = 0.0
    asked: list[str] = field(default_factory=list)

    def hosts(self) -> frozenset[str]:
        return self.of

    def watts(self, name: str) -> float | None:
        self.asked.append(name)
        return self.says(self.use)


class Rig:
    """Two hosts whose use goes up and down, and the meters that look at them."""

    def __init__(self, *meters: Meter, path: Path | None = None) -> None:
        self.clock, self.meters, self.use = Hand(), meters, 0.1
        self.models = PowerModels(meters, self.clock, self.snapshot, lambda: DEFAULTS, path)

    def snapshot(self) -> Snapshot:
        load = HostLoad(cpu_cores=16 * self.use, memory_used_bytes=0)
        hosts = tuple(host(name, load=load, idle_watts=90.0, max_watts=150.0) for name in ("h1", "h2"))
        return Snapshot(taken_at=self.clock.wall(), hosts=hosts, vms=())

    def run(self, ticks: int) -> None:
        for number in range(ticks):
            self.use = 0.1 + 0.6 * ((number * 7) % 11) / 10
            for meter in self.meters:
                meter.use = self.use
            self.models.tick()
            self.clock.sleep(EVERY_SECONDS)

    def told(self, name: str = "h1") -> str:
        return self.models.told(self.snapshot().host(name))


def test_readings_make_a_model_that_takes_the_place_of_what_is_declared() -> None:
    rig = Rig(Meter())
    assert rig.told() == "declared: 90 W idle, 150 W busy"
    rig.run(2 * READINGS_MIN - 2)
    assert rig.told().endswith(f"none by its controller: {READINGS_MIN - 1} of {READINGS_MIN} readings")
    rig.run(2)
    assert rig.told() == f"measured by its controller ({READINGS_MIN} readings): 60 W idle, 180 W busy"
    used = rig.models.applied(replace(rig.snapshot().host("h1"), power_watts=tuple(float(i) for i in range(11))))
    assert (used.idle_watts, used.max_watts, used.power_watts) == (60.0, 180.0, None)
    assert host_watts(used, 8.0, DEFAULTS) == pytest.approx(120.0)
    other = host("h9", idle_watts=70.0)
    assert rig.models.applied(other) is other


def test_calls_to_controllers_are_made_one_at_a_time_and_in_turn() -> None:
    meter = Meter()
    rig = Rig(meter)
    rig.run(6)
    assert meter.asked == ["h1", "h2"] * 3
    rig.models.tick()
    rig.models.tick()
    rig.models.tick()
    assert len(meter.asked) == 8, "nobody is asked again before it is due"


def test_the_controller_counts_before_the_packages_and_these_where_it_is_silent() -> None:
    def refuses(_use: float) -> float | None:
        raise PowerError("h1", PowerFault.REFUSED, "it gives no reading of what the host draws")

    packages = Meter("RAPL", asks=False, says=lambda use: 20.0 + 90.0 * use)
    both = Rig(Meter(), packages)
    both.run(3 * READINGS_MIN)
    assert both.told().startswith("measured by its controller")
    silent = Meter(says=refuses)
    rig = Rig(silent, packages)
    rig.run(READINGS_MIN)
    assert rig.told().startswith(f"measured by RAPL ({READINGS_MIN} readings): 20 W idle, 110 W busy")
    assert "none by its controller: refused" in rig.told()
    assert len(silent.asked) == 2, "one that refused is not asked every time"
    rig.clock.sleep(UNTOLD_SECONDS)
    rig.run(1)
    assert len(silent.asked) == 3


def test_bad_readings_are_dropped_and_counted_by_reason() -> None:
    bad = iter([float("nan"), -5.0, 1e6, 0.0] * 2)
    rig = Rig(Meter(of=frozenset({"h1"}), says=lambda use: next(bad, 60.0 + 120.0 * use)))
    rig.run(8 + READINGS_MIN)
    assert rig.told().startswith("measured by its controller")
    assert rig.told().endswith("8 readings dropped: 2 above 20000 W, 2 no number, 4 not above 0 W")


def test_noise_moves_no_model_and_a_change_does() -> None:
    rng = np.random.default_rng(3)
    rig = Rig(Meter(of=frozenset({"h1"}), says=lambda use: 60 + 120 * use + rng.normal(0, 0.3)))
    rig.run(READINGS_MIN)
    first = rig.models.models()["h1"]
    rig.run(50)
    now = rig.models.models()["h1"]
    assert (now.idle_watts, now.busy_watts) == (first.idle_watts, first.busy_watts)
    assert now.readings > first.readings
    rig.meters[0].says = lambda use: 30 + 120 * use  # half its memory was taken out
    rig.run(300)
    assert rig.models.models()["h1"].idle_watts == pytest.approx(30, abs=3)


def test_readings_outlive_the_process_and_a_spoilt_file_only_costs_them(tmp_path: Path) -> None:
    path = tmp_path / "power_readings.json"
    rig = Rig(Meter(), path=path)
    rig.run(2 * READINGS_MIN)
    rig.models.save()
    assert path.stat().st_mode & 0o777 == 0o600
    again = Rig(Meter(), path=path)
    assert again.models.models() == rig.models.models() != {}
    for text in ('{"format": 1, "rows": [{"host": "h1"}]}', '{"format": 9}', "[]", "nonsense", path.read_text()[:-9]):
        path.write_text(text)
        assert Rig(Meter(), path=path).models.models() == {}
    path.write_text('{"format": 1, "rows": [{"host": "h1", "meter": "x", "readings": [[0, NaN, 0.5], [0, 1e9, 2]]}]}')
    assert Rig(Meter(), path=path).models.models() == {}


def test_packages_are_read_from_the_last_sample() -> None:
    loads = (HostLoad(package_watts=55.0), HostLoad(package_fault="root only"), HostLoad())
    hosts = tuple(host(f"h{i}", load=load) for i, load in enumerate(loads))
    meter = PackageMeter(lambda: Snapshot(taken_at=0.0, hosts=hosts, vms=()))
    assert meter.hosts() == {"h0", "h1"}
    assert meter.watts("h0") == 55.0
    with pytest.raises(PowerError, match="root only"):
        meter.watts("h1")
    assert meter.watts("gone") is None
    assert PackageMeter(lambda: None).hosts() == frozenset()
