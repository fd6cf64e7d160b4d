"""Hotspots and pressures from scenarios with known figures."""

import numpy as np
import pytest

from rebalancerd.cluster.host import Host, HostFacts, HostLoad
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.snapshot import InFlight, Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict.hotspot import hotspots, pressures


def host(name, *, cores=10.0, busy=0.0, used=0, **kw):
    load = kw.pop("load", HostLoad(cpu_cores=busy, memory_used_bytes=used))
    facts = HostFacts(uuid=name, cpus=10, memory_bytes=100 * GIB)
    return Host(name=name, facts=facts, cores=cores, memory_bytes=100 * GIB, load=load, **kw)


def vm(uuid, on, cpu=1.0, memory=GIB, steal=None):
    facts = VmFacts(uuid=uuid, name=uuid, vcpus=16, memory_bytes=64 * GIB)
    load = VmLoad(cpu_cores=cpu, memory_bytes=memory, steal_cores=steal)
    return Vm(facts=facts, host=on, state=DomainState.RUNNING, load=load)


def scenarios(rows, *, paths=4, steps=2, memory=None):
    """``rows``: VM to its CPU, a number or a list of paths of steps."""
    uuids = tuple(sorted(rows))
    cpu = np.array([np.broadcast_to(np.array(rows[u], dtype=np.float32), (paths, steps)).ravel() for u in uuids])
    held = np.full((len(uuids), paths * steps), float(GIB), dtype=np.float32)
    for i, u in enumerate(uuids):
        held[i] = (memory or {}).get(u, GIB)
    return Scenarios(
        vm_uuids=uuids,
        paths=paths,
        steps=steps,
        step_seconds=300.0,
        cpu_cores=np.ascontiguousarray(cpu).reshape(len(uuids), paths * steps),
        memory_bytes=held,
        known=np.ones(len(uuids), dtype=np.bool_),
        basis="test",
    )


def snap(hosts, vms, in_flight=()):
    return Snapshot(taken_at=0.0, hosts=tuple(hosts), vms=tuple(vms), in_flight=tuple(in_flight))


def find(s, sc, **kw):
    return hotspots(s, sc, **({"cpu_headroom": 0.8, "memory_headroom": 0.8, "probability": 0.5} | kw))


def test_a_cool_cluster_has_no_hotspot():
    s = snap([host("a", busy=2.0), host("b")], [vm("u", "a"), vm("v", "a")])
    assert find(s, scenarios({"u": 1.0, "v": 1.0})) == ()


def test_hot_now():
    s = snap([host("a", busy=9.0), host("b")], [vm("u", "a", 6.0), vm("v", "a", 3.0)])
    (spot,) = find(s, scenarios({"u": 6.0, "v": 3.0}))
    assert (spot.host, spot.resource, spot.lead_seconds, spot.probability) == ("a", "cpu", 0.0, 1.0)
    assert spot.now == pytest.approx(0.9)
    assert spot.causes == ("u", "v")
    assert spot.contention is None


def test_a_calm_forecast_cannot_hide_today():
    s = snap([host("a", busy=9.0)], [vm("u", "a", 9.0)])
    assert len(find(s, scenarios({"u": 1.0}))) == 1


def test_hot_later_with_lead_time():
    """Cool at the first step, above 8 of 10 cores at the second in three paths of four."""
    s = snap([host("a", busy=2.0)], [vm("u", "a", 2.0)])
    (spot,) = find(s, scenarios({"u": [[2, 9], [2, 9], [2, 9], [2, 2]]}))
    assert spot.lead_seconds == 600.0
    assert spot.probability == 0.75
    assert spot.now == pytest.approx(0.2)


def test_unlikely_heat_is_no_hotspot():
    s = snap([host("a", busy=2.0)], [vm("u", "a", 2.0)])
    paths = scenarios({"u": [[2, 9], [2, 2], [2, 2], [2, 2]]})
    assert find(s, paths) == ()
    (spot,) = find(s, paths, probability=0.25)
    assert spot.lead_seconds is None


def test_peaks_that_never_meet_do_not_add_up():
    s = snap([host("a", busy=6.0)], [vm("u", "a", 5.0), vm("v", "a", 1.0)])
    assert find(s, scenarios({"u": [[6, 1]] * 4, "v": [[1, 6]] * 4})) == ()
    assert len(find(s, scenarios({"u": [[6, 1]] * 4, "v": [[6, 1]] * 4}))) == 1


def test_the_hosts_own_use_counts_beyond_its_reservation():
    s = snap([host("a", busy=8.5)], [vm("u", "a", 1.0)])
    assert len(find(s, scenarios({"u": 1.0}))) == 1
    reserved = snap([host("a", busy=2.9, reserved_cores=2.0)], [vm("u", "a", 1.0)])
    assert pressures(reserved, scenarios({"u": 1.0}))[0].cpu_now == pytest.approx(1.0 / 8)


def test_memory_hotspot():
    s = snap([host("a", used=90 * GIB)], [vm("u", "a", memory=50 * GIB)])
    (spot,) = find(s, scenarios({"u": 1.0}, memory={"u": 50 * GIB}))
    assert (spot.resource, spot.now) == ("memory", pytest.approx(0.9))


def test_a_vm_on_its_way_counts_on_both_ends():
    """CPU of both; memory as the larger of what the host measures already and what is to come."""
    s = snap(
        [host("a", busy=9.0), host("b", busy=3.0, used=30 * GIB)],
        [vm("u", "a", 9.0, memory=20 * GIB), vm("v", "b", 3.0, memory=20 * GIB)],
        [InFlight(vm_uuid="u", source="a", destination="b", ours=True)],
    )
    sc = scenarios({"u": 9.0, "v": 3.0}, memory={"u": 20 * GIB, "v": 20 * GIB})
    assert {spot.host for spot in find(s, sc)} == {"a", "b"}
    b = pressures(s, sc)[1]
    assert b.cpu_now == pytest.approx(0.3)
    assert b.cpu_p95 == pytest.approx(1.2)
    assert b.memory_p95 == pytest.approx(0.4)


class TestContention:
    """Contention makes a host hot below its headroom."""

    def spot(self, h, steal=None):
        (found,) = find(snap([h], [vm("u", "a", 1.0, steal=steal)]), scenarios({"u": 1.0}))
        assert found.contention
        assert found.lead_seconds == 0.0
        return found

    def test_steal(self):
        assert self.spot(host("a", busy=6.5), steal=0.5).resource == "cpu"

    def test_steal_on_a_host_with_cpu_to_spare_is_not_its_doing(self):
        """A guest with a CPU quota of its own waits wherever it runs: moving it helps nobody."""
        assert find(snap([host("a", busy=1.0)], [vm("u", "a", 1.0, steal=0.5)]), scenarios({"u": 1.0})) == ()

    def test_cpu_pressure(self):
        assert self.spot(host("a", load=HostLoad(cpu_cores=1.0, memory_used_bytes=0, psi_cpu=0.6))).resource == "cpu"

    def test_memory_pressure(self):
        h = host("a", load=HostLoad(cpu_cores=1.0, memory_used_bytes=0, psi_memory=0.3))
        assert self.spot(h).resource == "memory"

    def test_swap(self):
        h = host("a", load=HostLoad(cpu_cores=1.0, memory_used_bytes=0, swap_used_bytes=10 * GIB))
        assert self.spot(h).resource == "memory"

    def test_parked_swap_without_pressure_is_harmless(self):
        h = host("a", load=HostLoad(cpu_cores=1.0, memory_used_bytes=0, swap_used_bytes=10 * GIB, psi_memory=0.0))
        assert find(snap([h], [vm("u", "a")]), scenarios({"u": 1.0})) == ()

    def test_a_whiff_of_steal_is_harmless(self):
        s = snap([host("a", busy=1.0)], [vm("u", "a", 0.1, steal=0.05)])
        assert find(s, scenarios({"u": 0.15})) == ()


class TestUnknown:
    """A host of which something is unknown never looks cool."""

    def test_unusable_host_has_no_figures(self):
        s = snap([host("a", unusable="stale"), host("b")], [vm("u", "a", 9.0)])
        sc = scenarios({"u": 9.0})
        assert find(s, sc) == ()
        a = pressures(s, sc)[0]
        assert (a.cpu_now, a.cpu_p95, a.memory_now, a.memory_p95) == (None,) * 4
        assert a.unusable == "stale"
        assert a.vms == 1

    @pytest.mark.parametrize("busy", [None, float("nan")])
    def test_unknown_host_load_gives_no_figure_but_guests_alone_can_make_it_hot(self, busy):
        load = HostLoad(cpu_cores=busy, memory_used_bytes=0)
        hot, cool = snap([host("a", load=load)], [vm("u", "a", 9.0)]), snap([host("a", load=load)], [vm("u", "a", 1.0)])
        assert len(find(hot, scenarios({"u": 9.0}))) == 1
        assert find(cool, scenarios({"u": 1.0})) == ()
        assert pressures(cool, scenarios({"u": 1.0}))[0].cpu_now is None

    def test_unknown_capacity(self):
        s = snap([host("a", cores=None)], [vm("u", "a", 9.0)])
        assert find(s, scenarios({"u": 9.0})) == ()
        assert pressures(s, scenarios({"u": 9.0}))[0].cpu_now is None

    def test_unknown_guest_counts_with_its_stand_in(self):
        s = snap([host("a")], [vm("u", "a", None)])
        assert pressures(s, scenarios({"u": 7.0}))[0].cpu_now == pytest.approx(0.7)

    def test_a_vm_without_a_row_is_an_error(self):
        with pytest.raises(ValueError, match="lack VMs"):
            find(snap([host("a")], [vm("u", "a")]), scenarios({"v": 1.0}))


def test_hottest_first():
    s = snap([host("a", busy=9.0), host("b", busy=9.9)], [vm("u", "a", 9.0), vm("v", "b", 9.9)])
    assert [spot.host for spot in find(s, scenarios({"u": 9.0, "v": 9.9}))] == ["b", "a"]


def test_the_same_scenarios_with_another_snapshot_are_looked_at_anew():
    sc = scenarios({"u": 4.0, "v": 3.0})
    hosts = [host("a", busy=7.0), host("b")]
    together = pressures(snap(hosts, [vm("u", "a", 4.0), vm("v", "a", 3.0)]), sc)
    apart = pressures(snap(hosts, [vm("u", "a", 4.0), vm("v", "b", 3.0)]), sc)
    assert [row.cpu_p95 for row in together] == pytest.approx([0.7, 0.0])
    assert [row.cpu_p95 for row in apart] == pytest.approx([0.7, 0.3])  # the host's busy cores are told as before
