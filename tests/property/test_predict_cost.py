"""Laws of the cost model: any input gives an estimate, and its bounds enclose its values."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancerd.cluster.cost import Candidate, MigrationOptions
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.settings import PredictSettings

anything = st.one_of(st.floats(), st.integers(-5, 10**12).map(float))
points = st.lists(st.tuples(anything, anything, st.integers(0, 50)), min_size=1, max_size=4)


@st.composite
def curves(draw):
    rows = draw(points)
    return DirtyCurve(
        points=tuple(
            DirtyPoint(period_seconds=i + 1.0, unique_bytes=u, standard_error_bytes=e, readings=n)
            for i, (u, e, n) in enumerate(rows)
        ),
        age_seconds=draw(anything),
    )


options = st.builds(
    MigrationOptions,
    max_downtime_seconds=st.floats(0, 5),
    bandwidth_bytes_per_second=st.one_of(st.none(), st.floats(0, 1e10)),
    auto_converge=st.booleans(),
)


@given(
    st.one_of(st.none(), curves()),
    st.one_of(st.none(), anything),
    st.integers(0, 2**42),
    anything,
    st.floats(0, 2),
    options,
)
@settings(deadline=None)
def test_every_candidate_gets_an_estimate(dirty, held, memory, link, share, wanted):
    facts = VmFacts(uuid="u", name="n", vcpus=1, memory_bytes=memory)
    vm = Vm(facts=facts, host="a", state=DomainState.RUNNING, load=VmLoad(memory_bytes=held), dirty=dirty)
    hosts = tuple(Host(name=n, facts=None, link_bytes_per_second=link) for n in "ab")
    snap = Snapshot(taken_at=0.0, hosts=hosts, vms=(vm,))
    asked = Candidate(vm_uuid="u", source="a", destination="b", link_share=share, options=wanted)
    (got,) = PhysicsCost(PredictSettings()).costs(snap, [asked])
    for estimate in (got.seconds, got.downtime_seconds, got.bytes, got.slowdown, got.non_convergence):
        assert 0 <= estimate.value <= estimate.upper
        assert math.isfinite(estimate.value)
    assert got.non_convergence.upper <= 1
    assert got.slowdown.upper <= 1
    assert got.non_convergence.value > 0
