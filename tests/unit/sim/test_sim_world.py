"""The simulated world: the daemon's own code on simulated ports."""

from dataclasses import replace
from pathlib import Path

import pytest

from rebalancerd.cluster.policy import Mode
from rebalancerd.sim.demo import demo_spec
from rebalancerd.sim.runner import record, run_scenario, simulate
from rebalancerd.sim.scenario import ScenarioError, parse_script, parse_world
from rebalancerd.sim.synthetic import synthetic_cluster
from rebalancerd.sim.world import build_bench_world, build_world


def test_the_demonstration_relieves_its_hot_host_and_tells_the_story() -> None:
    """At least one move, autostart kept, the pinned and the foreign VM stay; lines come as they happen."""
    told: list[str] = []
    report = simulate(demo_spec(), listener=told.append)
    moved = {r.vm_name for r in report.migrations if r.state.value == "succeeded"}

    assert moved
    assert moved.isdisjoint({"build", "nova-1"})
    assert report.log.splitlines() == told
    assert report.seconds == 1200.0


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.RECOMMEND])
def test_without_the_write_port_no_call_is_made(mode: Mode) -> None:
    """There is no executor, and the journal of write calls stays empty."""
    with build_world(demo_spec(mode=mode)) as world:
        world.run()

        assert world.executor is None
        assert world.write.calls == []


def test_the_same_specification_gives_the_same_log() -> None:
    """Deterministic, noise included."""
    assert simulate(demo_spec(8)).log == simulate(demo_spec(8)).log


def test_a_synthetic_cluster_runs_through_the_loop() -> None:
    """An hour of ten hosts; every step is checked by the invariants."""
    spec = replace(demo_spec(60), cluster=synthetic_cluster(10, 60, seed=5, fill=0.7), decide_seconds=120.0)
    with build_world(spec) as world:
        world.run()

        assert world.invariants.cycles_run == 30
        assert world.invariants.checks > 300


def test_a_wrong_script_is_an_error_with_its_words() -> None:
    """Unknown verbs and unknown VMs."""
    table = {"run": "1m", "host": [{"name": "a"}], "vm": [{"name": "v", "host": "a"}]}
    for line, names in (("10s jump v", "unknown verb 'jump'"), ("10s demand w cpu 1", "demand w cpu 1")):
        with pytest.raises(ScenarioError, match=names):
            simulate(replace(parse_world(table), script=parse_script(line)))


def test_a_scenario_needs_its_intent_and_is_recorded_once(tmp_path: Path) -> None:
    """README first; a log that is there is not overwritten."""
    (tmp_path / "cluster.toml").write_text('run = "3m"\n[[host]]\nname = "a"\n')
    with pytest.raises(ScenarioError, match="README"):
        run_scenario(tmp_path)
    (tmp_path / "README.md").write_text("# Empty\n\nNothing to do.\n")
    assert record(tmp_path)
    (tmp_path / "expect.log").write_text("reviewed\n")
    assert not record(tmp_path)
    assert (tmp_path / "expect.log").read_text() == "reviewed\n"


def test_the_bench_world_times_whole_cycles(tmp_path: Path) -> None:
    """A sample and each part of the loop, in real seconds; nothing is moved."""
    bench = build_bench_world(hosts=4, vms=20, seed=1, state_dir=tmp_path)
    bench.warm_up()
    seconds, parts, _steps = bench.timed_cycle()
    bench.close()

    assert {"sample", "observe", "predict", "plan"} <= {name for name, _ in parts}
    assert 0 < sum(part for _, part in parts) <= seconds
    assert (tmp_path / "ledger.sqlite").exists()
