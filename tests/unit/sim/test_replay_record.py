"""What a daemon recorded, replayed: sizes, placement and load as they were, and what cannot be replayed refused by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.observe.traces.error import TraceError
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.replay import ReplaySettings, replay
from rebalancerd.sim.replay_case import ReplayError
from rebalancerd.sim.replay_record import case_of_record
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec
from rebalancerd.sim.world import World

HOURS = 2.5
LOADS = {"one": 1.7, "two": 1.6, "three": 1.5, "four": 1.6, "calm": 0.4}


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> Path:
    """The history that a daemon left behind which only watched four busy guests on one of two hosts."""
    hosts = tuple(HostSpec(name=h, cpus=8, memory_bytes=64 * GIB) for h in ("a", "b"))
    vms = tuple(
        VmSpec(
            name=name,
            host="b" if name == "calm" else "a",
            vcpus=2,
            rss_bytes=GIB,
            demand=Demand(base=load),
            dirty_bytes_per_second=MIB,
        )
        for name, load in LOADS.items()
    )
    kept = tmp_path_factory.mktemp("state")
    spec = WorldSpec(cluster=ClusterSpec(hosts=hosts, vms=vms), mode=Mode.OBSERVE)
    with World(spec) as world:
        world.run(world.clock.monotonic() + HOURS * 3600)
        world.observer.flush()
        shutil.copytree(world.observer._history.directory, kept / "history")
    return kept


def test_hosts_guests_sizes_and_places_are_those_recorded(state):
    case = case_of_record(state, hours=1)
    assert [h.name for h in case.cluster.hosts] == ["a", "b"]
    assert {v.name: v.host for v in case.cluster.vms} == {n: "b" if n == "calm" else "a" for n in LOADS}
    assert {v.vcpus for v in case.cluster.vms} == {2}
    for vm in case.cluster.vms:
        assert np.mean(vm.demand.trace) == pytest.approx(LOADS[vm.name], rel=0.05)
    assert case.seconds == 3600
    assert len(case.past_cpu) >= 12


def test_balancing_the_recorded_cluster_beats_doing_nothing(state):
    case = case_of_record(state, hours=1)
    nothing, ours = replay(case, None, hot=0.75), replay(case, ReplaySettings(name="defaults"), hot=0.75)
    assert nothing.readings.hot_host_minutes > 50
    assert ours.migrations >= 1
    assert ours.readings.hot_host_minutes < 0.3 * nothing.readings.hot_host_minutes


def test_the_recording_is_left_as_it_is(state):
    before = {p: p.stat().st_mtime_ns for p in sorted(state.rglob("*"))}
    case_of_record(state, hours=1)
    assert {p: p.stat().st_mtime_ns for p in sorted(state.rglob("*"))} == before


def test_more_hours_than_recorded_are_refused(state):
    with pytest.raises(ReplayError, match="h are recorded"):
        case_of_record(state, hours=24)


def test_a_directory_without_history_and_one_without_sizes_are_refused(state, tmp_path):
    with pytest.raises(TraceError, match="no recorded history"):
        case_of_record(tmp_path, hours=1)
    shutil.copytree(state, tmp_path / "old")
    (tmp_path / "old" / "history" / "cluster.json").unlink()
    with pytest.raises(TraceError, match="sizes and placement were not recorded"):
        case_of_record(tmp_path / "old", hours=1)
    (tmp_path / "old" / "history" / "cluster.json").write_text("{}")
    with pytest.raises(TraceError, match=r"cluster\.json"):
        case_of_record(tmp_path / "old", hours=1)


def test_a_cut_ring_is_refused(state, tmp_path):
    shutil.copytree(state, tmp_path / "cut")
    ring = next((tmp_path / "cut" / "history").glob("vm_cpu_cores.300s.ring"))
    ring.write_bytes(ring.read_bytes()[:500])
    with pytest.raises(TraceError, match=r"vm_cpu_cores\.300s\.ring"):
        case_of_record(tmp_path / "cut", hours=1)
