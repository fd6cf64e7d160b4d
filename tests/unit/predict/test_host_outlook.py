"""From the learned chance of hosts to hotspots, and back to the paths where it cannot tell."""

from functools import partial

import numpy as np
import pytest

from rebalancerd.cluster.host import Host, HostFacts, HostLoad
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict.host_outlook import cpu_chances
from rebalancerd.predict.hotspot import hotspots

END, PATHS, STEPS = 300_000.0, 8, 3


class Fixed:
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self, *chances):
        self.told, self.asked = chances, None

    def chances(self, found):
        self.asked = found
        if not self.told:
            raise ZeroDivisionError("broken")
        return np.array(self.told)


def snapshot(cpu=2.0):
    facts = HostFacts(uuid=None, cpus=8, memory_bytes=64 * GIB)
    hosts = tuple(
        Host(name=n, facts=facts, cores=8.0, memory_bytes=64 * GIB, load=HostLoad(cpu_cores=0.0)) for n in ("a", "b")
    )
    load = VmLoad(cpu_cores=cpu, memory_bytes=GIB)
    vms = tuple(
        Vm(
            facts=VmFacts(uuid=f"u{i}", name=f"u{i}", vcpus=4, memory_bytes=4 * GIB),
            host="a" if i < 2 else "b",
            state=DomainState.RUNNING,
            load=load,
        )
        for i in range(3)
    )
    return Snapshot(taken_at=END, hosts=hosts, vms=vms)


def scenarios(cores=2.0):
    shape = (3, PATHS * STEPS)
    return Scenarios(
        vm_uuids=("u0", "u1", "u2"),
        paths=PATHS,
        steps=STEPS,
        step_seconds=300.0,
        cpu_cores=np.full(shape, cores, np.float32),
        memory_bytes=np.full(shape, GIB, np.float32),
        known=np.ones(3, np.bool_),
        basis="x",
    )


def history(end=END, rows=50):
    return Series(
        resource="vm_cpu_cores",
        ids=("u0", "u1", "u2"),
        values=np.full((rows, 3), 2.0, np.float32),
        step_seconds=300.0,
        end=end,
    )


def found(model, *, series=None, cores=2.0):
    snap = snapshot()
    return hotspots(
        snap,
        scenarios(cores),
        cpu_headroom=0.8,
        memory_headroom=0.8,
        probability=0.3,
        cpu_chances=partial(cpu_chances, model, snap, series or history()),
    )


def test_the_learned_chance_takes_the_place_of_the_share_of_paths():
    spots = found(Fixed(0.9, 0.1))
    assert [(s.host, s.probability, s.lead_seconds) for s in spots] == [("a", pytest.approx(0.9), None)]
    assert spots[0].causes == ("u0", "u1")


def test_it_may_say_that_what_paths_pass_is_unlikely_but_not_hide_what_is_hot_now():
    assert [s.host for s in found(Fixed(0.1, 0.1), cores=3.5)] == []
    snap = snapshot(cpu=3.5)
    spots = hotspots(
        snap,
        scenarios(),
        cpu_headroom=0.8,
        memory_headroom=0.8,
        probability=0.3,
        cpu_chances=partial(cpu_chances, Fixed(0.0, 0.0), snap, history()),
    )
    assert [(s.host, s.probability) for s in spots] == [("a", 1.0)]


@pytest.mark.parametrize("series", [history(end=END - 5000), history(rows=0)])
def test_without_a_fresh_history_the_paths_tell(series):
    model = Fixed(0.9, 0.9)
    assert found(model, series=series) == ()
    assert model.asked is None


def test_a_model_that_fails_leaves_it_to_the_paths():
    assert [s.host for s in found(Fixed(), cores=3.5)] == ["a"]


def test_what_it_is_asked_is_ratios_to_the_headroom():
    model = Fixed(0.0, 0.0)
    found(model)
    assert model.asked[0, 0] == pytest.approx(2 * 2.0 / 6.4)  # two guests of two cores, 80 % of eight
    assert model.asked[1, 0] == pytest.approx(2.0 / 6.4)
