"""Replays: the same loop on recorded load, what it is measured by, and that balancing beats doing nothing."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.predict.demand.persistence import PersistenceDemand
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.sim.replay import NOTHING, ReplayResult, ReplaySettings, replay, write_past
from rebalancerd.sim.replay_case import ReplayCase, filled
from rebalancerd.sim.replay_picture import colour, picture
from tests.unit.sim.replay_cases import case, crowded

DEFAULTS = ReplaySettings(name="defaults")


def same(a: ReplayResult, b: ReplayResult) -> bool:
    left, right = replace(a.readings, heat=np.empty(0)), replace(b.readings, heat=np.empty(0))
    alike = replace(a, readings=left) == replace(b, readings=left) and np.array_equal(a.readings.heat, b.readings.heat)
    return alike and left.hot_minutes == right.hot_minutes and left.energy_kwh == right.energy_kwh


def test_balancing_clearly_beats_doing_nothing() -> None:
    """Ten cores on a host of eight for half an hour; a VM or two go to the idle hosts as soon as holds allow it."""
    nothing, ours = replay(crowded(), None), replay(crowded(), DEFAULTS)

    assert nothing.readings.hot_host_minutes == pytest.approx(30.0)
    assert ours.readings.hot_host_minutes < 8.0
    assert ours.migrations >= 1
    assert ours.failed == 0
    assert ours.bytes_moved > ours.migrations * GIB
    assert ours.readings.unmet_core_hours < 0.3 * nothing.readings.unmet_core_hours
    assert ours.cycles == 31
    assert ours.refusals, "what did not happen has its reasons"
    assert (nothing.migrations, nothing.cycles, nothing.refusals) == (0, 0, ())


def test_what_is_metered_is_what_was_asked_for() -> None:
    """Two guests ask a host of four CPUs for eight cores; an idle host beside it draws two fifths of its peak."""
    loads = {"a": {"x": (4.0,), "y": (4.0,)}, "b": {"z": (0.0,)}}
    found = replay(case(loads, cpus=4, minutes=60, overhead=0.0), None).readings

    assert found.asked_core_hours == pytest.approx(8.0)
    assert found.unmet_core_hours == pytest.approx(4.0)
    assert dict(found.hot_minutes) == pytest.approx({"a": 60.0, "b": 0.0})
    assert found.energy_kwh == pytest.approx(0.12 * (1.0 + 0.4))
    assert found.heat.shape == (2, 60)
    assert np.allclose(found.heat[0], 2.0)
    assert np.allclose(found.heat[1], 0.0)


def test_a_host_is_hot_above_the_share_that_is_named() -> None:
    loads = {"a": {"x": (3.4,)}, "b": {}}
    for hot, minutes in ((0.8, 20.0), (0.9, 0.0)):
        found = replay(case(loads, cpus=4, minutes=20, overhead=0.0), None, hot=hot)
        assert found.readings.hot_host_minutes == pytest.approx(minutes)


def test_the_load_changes_where_the_recording_does() -> None:
    """The first value holds for the first five minutes, whatever the daemon's warm-up before them takes."""
    loads = {"a": {"x": (1.0, 3.0, 2.0)}, "b": {}}
    for settings in (None, DEFAULTS):
        heat = replay(case(loads, cpus=4, minutes=15, overhead=0.0), settings).readings.heat
        assert np.allclose(heat[0] * 4, np.repeat([1.0, 3.0, 2.0], 5))


def test_the_same_input_gives_the_same_output() -> None:
    assert same(replay(crowded(), DEFAULTS), replay(crowded(), DEFAULTS))


def test_a_past_written_once_serves_several_replays(tmp_path: Path) -> None:
    past = tmp_path / "past"
    write_past(crowded(), past)
    before = {f.name: f.read_bytes() for f in past.iterdir()}
    assert same(replay(crowded(), DEFAULTS, past=past), replay(crowded(), DEFAULTS))
    assert {f.name: f.read_bytes() for f in past.iterdir()} == before


def test_two_configurations_come_to_different_ends() -> None:
    """One may start nothing in any hour: it refuses, says why, and is no better than doing nothing."""
    barred = replace(DEFAULTS, name="barred", guard=GuardSettings(per_hour=0))
    one, two = replay(crowded(), DEFAULTS), replay(crowded(), barred)

    assert two.migrations == 0
    assert dict(two.refusals)["hourly_cap"] > 10
    assert two.readings.hot_host_minutes == pytest.approx(30.0)
    assert one.readings.hot_host_minutes < two.readings.hot_host_minutes


def test_the_forecast_is_not_blind_and_the_model_is_the_one_named() -> None:
    """From the first cycle on the demand model sees the past of every VM."""
    seen: list[tuple[int, int]] = []

    class Watching(PersistenceDemand):
        basis = "watching"

        def scenarios(self, snapshot: Snapshot, cpu: Series, memory: Series) -> Scenarios:
            seen.append((int(np.isfinite(cpu.values).all(axis=0).sum()), len(cpu.values)))
            return super().scenarios(snapshot, cpu, memory)

    settings = replace(DEFAULTS, demand=lambda: Watching(PredictSettings()))
    result = replay(crowded(minutes=3), settings)

    assert result.demand_basis == "watching"
    assert seen[0][0] == 7
    assert seen[0][1] >= 23


def test_memory_follows_the_recording() -> None:
    """A VM that grows to fill its host makes it hot by memory, and something is moved."""
    loads = {"a": {f"v-{i}": (0.2,) for i in range(4)}, "b": {}}
    grown = np.full((6, 4), 1 * GIB, dtype=np.float32)
    grown[2:] = 15 * GIB
    vms = tuple(replace(vm, memory_bytes=16 * GIB) for vm in case(loads).cluster.vms)
    base = case(loads)
    base = replace(base, cluster=replace(base.cluster, vms=vms))

    assert replay(base, DEFAULTS).migrations == 0
    assert replay(replace(base, memory=grown), DEFAULTS).migrations >= 1


def test_progress_goes_from_nothing_to_all() -> None:
    told: list[float] = []
    replay(crowded(minutes=5), None, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    assert len(told) == 5


def test_a_gap_is_never_read_as_no_load() -> None:
    values = np.array([[np.nan, 1.0, np.nan], [2.0, np.nan, np.nan], [np.nan, 3.0, np.nan]], dtype=np.float32)
    out = filled(values)
    assert out[:, :2].tolist() == [[2.0, 1.0], [2.0, 1.0], [2.0, 3.0]]
    assert np.isnan(out[:, 2]).all()
    assert np.isnan(values[0, 0]), "the recording itself is left as it is"


@pytest.mark.parametrize("label", ["past_cpu", "past_memory", "memory"])
def test_shapes_that_disagree_are_refused(label: str) -> None:
    wrong = np.zeros((24, 3), dtype=np.float32)
    with pytest.raises(ValueError, match="replay"):
        replace(crowded(), **{label: wrong})


def test_the_picture_is_a_map_for_each_run_and_names_are_only_text() -> None:
    hostile = "<script>alert(1)</script>\x1b[31m"
    made: ReplayCase = case({hostile: {"x": (4.0,)}, "b": {}}, cpus=4, minutes=10, overhead=0.0)
    results = [replay(made, None), replace(replay(made, None), name="a & b")]
    drawn = picture(results, [h.name for h in made.cluster.hosts], seconds=made.seconds, hot=0.9)

    root = ET.fromstring(drawn)
    texts = ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]
    fills = [r.get("fill") for r in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    assert "\x1b" not in drawn
    assert any(t.startswith(NOTHING) for t in texts)
    assert any(t.startswith("a & b") for t in texts)
    assert colour(1.0, 0.9) in fills, "the hot host is drawn hot"
    assert "href" not in drawn


def test_a_hot_share_is_never_drawn_in_a_calm_colour() -> None:
    calm = {colour(share, 0.9) for share in np.arange(0.0, 0.9, 0.01)}
    hot = {colour(share, 0.9) for share in np.arange(0.901, 3.0, 0.01)}
    assert not calm & hot
    assert len(calm) > 10
