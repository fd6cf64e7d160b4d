"""Laws of the demand scenarios: whatever the telemetry says, they are finite, bounded, deterministic and never nothing."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rebalancerd.cluster.demand import cpu_demand_cores
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict.demand.persistence import PersistenceDemand, memory_demand_bytes
from rebalancerd.predict.settings import PredictSettings

figure = st.one_of(st.none(), st.floats(width=32), st.floats(0, 16, width=32))
vms = st.lists(
    st.builds(
        lambda vcpus, cpu, steal, memory: (vcpus, VmLoad(cpu_cores=cpu, steal_cores=steal, memory_bytes=memory)),
        st.integers(1, 16),
        figure,
        figure,
        st.one_of(st.none(), st.integers(0, 2**40)),
    ),
    min_size=1,
    max_size=6,
)
model = PersistenceDemand(PredictSettings(paths=8, horizon_seconds=900, residual_window_steps=12))


@st.composite
def worlds(draw):
    loads = draw(vms)
    facts = HostFacts(uuid="h", cpus=8, memory_bytes=2**40)
    speed = draw(st.sampled_from([0.5, 1.0, 2.0]))
    host = Host(name="h", facts=facts, speed_factor=speed)
    guests = tuple(
        Vm(
            facts=VmFacts(uuid=f"v{i}", name="n", vcpus=vcpus, memory_bytes=2**30),
            host="h",
            state=DomainState.RUNNING,
            load=load,
        )
        for i, (vcpus, load) in enumerate(loads)
    )
    ids = tuple(draw(st.permutations([f"v{i}" for i in range(len(loads) + 1)])))[: draw(st.integers(0, len(loads) + 1))]
    rows = draw(st.integers(0, 24))
    values = draw(npst.arrays(np.float32, (rows, len(ids)), elements=st.floats(width=32)))
    series = Series(resource="x", ids=ids, values=values, step_seconds=300.0, end=3e6)
    return Snapshot(taken_at=3e6, hosts=(host,), vms=guests), series, speed


def absurd(cores):
    """One VM that is said to use more cores than a float of 32 bits can be added to."""
    facts = HostFacts(uuid="h", cpus=8, memory_bytes=2**40)
    load = VmLoad(cpu_cores=cores)
    guest = VmFacts(uuid="v0", name="n", vcpus=1, memory_bytes=2**30)
    vm = Vm(facts=guest, host="h", state=DomainState.RUNNING, load=load)
    empty = Series(resource="x", ids=(), values=np.zeros((0, 0), dtype=np.float32), step_seconds=300.0, end=3e6)
    return Snapshot(taken_at=3e6, hosts=(Host(name="h", facts=facts, speed_factor=0.5),), vms=(vm,)), empty, 0.5


@given(worlds())
@example(absurd(2.6038879939480713e38))
@example(absurd(3.4e38))
@settings(max_examples=60)
def test_always_finite_bounded_and_never_nothing_where_unknown(world):
    snapshot, series, speed = world
    got = model.scenarios(snapshot, series, series)
    assert np.isfinite(got.cpu_cores).all()
    assert np.isfinite(got.memory_bytes).all()
    limit = np.array([vm.facts.vcpus * speed for vm in snapshot.vms])[:, None]
    assert (got.cpu_cores >= 0).all()
    assert (got.cpu_cores <= limit * (1 + 1e-6)).all()
    assert (got.memory_bytes >= 0).all()
    no_cpu = np.array([cpu_demand_cores(vm, snapshot.host(vm.host)) is None for vm in snapshot.vms])
    no_memory = np.array([memory_demand_bytes(vm) is None for vm in snapshot.vms])
    assert (got.cpu_cores[no_cpu] > 0).all()
    assert (got.memory_bytes[no_memory] > 0).all()
    np.testing.assert_array_equal(got.known, ~(no_cpu | no_memory))


@given(worlds(), st.randoms())
@settings(max_examples=40)
def test_order_of_vms_and_columns_does_not_matter(world, random):
    snapshot, series, _ = world
    columns = list(range(len(series.ids)))
    random.shuffle(columns)
    guests = list(snapshot.vms)
    random.shuffle(guests)
    shuffled = Series(
        resource="x",
        ids=tuple(series.ids[i] for i in columns),
        values=series.values[:, columns].copy(),
        step_seconds=300.0,
        end=3e6,
    )
    again = Snapshot(taken_at=3e6, hosts=snapshot.hosts, vms=tuple(guests))
    first, second = model.scenarios(snapshot, series, series), model.scenarios(again, shuffled, shuffled)
    assert first.vm_uuids == second.vm_uuids
    np.testing.assert_array_equal(first.cpu_cores, second.cpu_cores)
    np.testing.assert_array_equal(first.memory_bytes, second.memory_bytes)
    np.testing.assert_array_equal(first.known, second.known)
