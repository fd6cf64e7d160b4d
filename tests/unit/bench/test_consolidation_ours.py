"""The production loop in CloudSim's world, and what the benchmark says of it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from rebalancerd.cluster.decision import OperatorState
from tests.bench import consolidation
from tests.bench.__main__ import main
from tests.bench.consolidation_day import Day, run_day
from tests.bench.consolidation_ours import CONFIGURATION, LEVELS, Ours, Port
from tests.bench.consolidation_picture import Point, frontier
from tests.bench.consolidation_policies import first_placement
from tests.bench.consolidation_reference import accepted, demanded
from tests.bench.consolidation_world import COMPAT, CORRECTED, FIRST_STEP, STEP_SECONDS, World

DAY = Day(energy_kwh=192.62, migrations=26711, slav=3.18e-5, shortage=0.0007, seconds_per_step=0.1, killed=1)


def _percent(vms: int = 24, steps: int = 8) -> np.ndarray:
    return np.random.default_rng(3).integers(5, 20, (vms, steps))


@pytest.mark.parametrize("variant", [COMPAT, CORRECTED], ids=lambda v: v.name)
def test_ours_folds_a_small_cluster_and_serves_it(variant):
    still = run_day(_percent(), variant, "dvfs", hosts=24)
    ours = run_day(_percent(), variant, "ours", hosts=24)
    assert ours.energy_kwh < 0.7 * still.energy_kwh
    assert 0 < ours.migrations < 40
    assert ours.shortage < 0.01
    again = run_day(_percent(), variant, "ours", hosts=24)
    assert replace(again, seconds_per_step=0) == replace(ours, seconds_per_step=0)


def test_the_port_tells_what_is_measured_and_nothing_of_what_comes():
    percent = np.full((2, 3), 80)
    percent[:, 2] = 5
    world = World(percent, COMPAT, 12)
    first_placement(world, first_fit=False)
    world.update(FIRST_STEP)
    port = Port(world, reserves=2, at_once=1)
    port.observe()
    snapshot = port.snapshot(operator=OperatorState(), ours=())
    vm = snapshot.vms[0]
    speed = snapshot.host(vm.host).speed_factor
    assert vm.load.cpu_cores == pytest.approx(float(world.served[0]) / 1000 / speed)
    assert len(snapshot.hosts) == len({v.host for v in snapshot.vms}) + 2 * 2
    series = port.series("vm_cpu_cores")
    assert series.values.shape == (1, 2)
    assert series.end == snapshot.taken_at


def test_what_is_started_lands_before_the_next_decision_and_rests():
    world = World(_percent(), COMPAT, 24)
    first_placement(world, first_fit=False)
    ours = Ours(world)
    world.update(FIRST_STEP)
    moves = ours.decide()
    world.start(moves)
    assert moves
    world.land(FIRST_STEP + STEP_SECONDS)
    world.update(FIRST_STEP + STEP_SECONDS)
    later = ours.decide()
    ours.close()
    assert {vm for vm, _ in moves}.isdisjoint(vm for vm, _ in later)
    assert all(not r.state.is_open for r in list(ours.port.ledger.records.values())[: len(moves)])


def test_levels_grow_bolder_and_the_third_is_the_committed_one():
    assert CONFIGURATION.at_level(3) == CONFIGURATION
    assert sorted(LEVELS.values()) == [LEVELS[level] for level in sorted(LEVELS)]


def test_acceptance_holds_at_the_originals_figures_and_fails_beside_them():
    assert all(held for _, held in accepted("20110303", "thr", DAY))
    energy, migrations, slav = accepted(
        "20110303", "thr", replace(DAY, energy_kwh=194.0, migrations=27100, slav=3.4e-5)
    )
    assert [held for _, held in (energy, migrations, slav)] == [False, False, False]
    assert "+0.716%" in energy[0]
    assert accepted("20110303", "lr", DAY) == []
    assert accepted("19990101", "thr", DAY) == []


def test_demands_on_ours_are_by_variant():
    ours = replace(DAY, energy_kwh=130.0, migrations=1900, slav=1e-6, shortage=0.0002)
    lr = replace(DAY, energy_kwh=163.48, migrations=27859)
    runs = {"ours": ours, "thr": DAY, "lr": lr}
    assert [held for _, held in demanded("20110303", "compat", runs)] == [True] * 4
    dear = replace(ours, energy_kwh=164.0, migrations=2786, slav=4e-5, shortage=0.0011)
    assert [held for _, held in demanded("20110303", "compat", runs | {"ours": dear})] == [False] * 4
    few = replace(ours, migrations=900)
    assert [held for _, held in demanded("20110303", "corrected", runs | {"ours": few, "thr": DAY})] == [True] * 3
    short = replace(ours, shortage=0.0006, migrations=5343, energy_kwh=193.0)
    assert [held for _, held in demanded("20110303", "corrected", runs | {"ours": short})] == [False] * 3
    assert demanded("20110303", "compat", {"thr": DAY}) == []


def test_the_picture_shows_every_point_and_tells_what_it_leaves_out():
    points = [
        Point("dvfs", 800.0, 0.0, 0, ours=False),
        Point("thr", 192.6, 0.0007, 26711, ours=False),
        Point("level 3", 130.0, 0.0002, 1900, ours=True),
    ]
    svg = frontier(points, "20110303 <compat>")
    assert svg.count("<circle") == 2
    assert "800 kWh and no shortage" in svg
    assert "thr, 26711 moves" in svg
    assert "&lt;compat&gt;" in svg
    with pytest.raises(ValueError, match="no point"):
        frontier(points[:1], "")


def test_the_command_writes_figures_goes_on_where_it_was_and_fails_loudly(tmp_path, monkeypatch, capsys):
    percent = _percent(16, 4).astype(np.uint8)
    traces = tmp_path / "traces"
    traces.mkdir()
    columns = np.repeat(percent, 72, axis=1)  # 288 columns, the form's own
    np.savez(traces / "planetlab_x.npz", cpu_20110303=columns, name_20110303=np.array([f"v{i}" for i in range(16)]))
    file, partial = tmp_path / "out.json", tmp_path / "partial.json"
    monkeypatch.setattr(consolidation, "run_day", lambda *_args, **_kwargs: replace(DAY, energy_kwh=200.0))
    args = ["consolidation", "--json", str(file), "--traces", str(traces), "--partial", str(partial)]
    args += ["--policies", "thr", "--variants", "compat"]
    assert main(args) == 1
    found = json.loads(file.read_text())
    assert found["figures"]["20110303.compat.thr.energy_kwh"] == 200.0
    assert found["figures"]["sum.compat.thr.migrations"] == 26711
    assert "20110303.compat.bound_kwh" in found["figures"]
    assert ["kWh" in what for what in found["failures"]] == [True]
    assert "FAIL acceptance: 20110303 THR-MMT-0.8 kWh: 200" in capsys.readouterr().out
    monkeypatch.setattr(consolidation, "run_day", lambda *_args, **_kwargs: pytest.fail("ran anew"))
    assert main(args) == 1
    with pytest.raises(SystemExit, match="no PlanetLab day 20110304"):
        main([*args, "--days", "20110304"])
