"""Laws of modes, snapshots and scenarios."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.policy import Mode, stricter
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts

modes = st.lists(st.one_of(st.none(), st.sampled_from(Mode)), max_size=5)
names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True)


@given(modes, modes)
def test_one_more_opinion_never_permits_more(some, more):
    assert stricter(*some, *more).rank <= stricter(*some).rank
    assert stricter(*some, *more) is stricter(*more, *some)


@given(names, st.lists(st.text(max_size=8), max_size=8, unique=True), st.randoms())
def test_a_snapshot_has_one_order_whatever_the_names(hosts, uuids, random):
    vms = [
        Vm(
            facts=VmFacts(uuid=u, name=u, vcpus=1, memory_bytes=1),
            host=random.choice(hosts),
            state=DomainState.RUNNING,
        )
        for u in uuids
    ]
    rows = [Host(name=n, facts=None) for n in hosts]
    first = Snapshot(taken_at=0.0, hosts=tuple(rows), vms=tuple(vms))
    random.shuffle(rows)
    random.shuffle(vms)
    second = Snapshot(taken_at=0.0, hosts=tuple(rows), vms=tuple(vms))
    assert first.digest == second.digest
    assert sum(len(found) for found in first.vms_on.values()) == len(uuids)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.data())
def test_a_what_if_is_one_addition_and_one_subtraction(paths, steps, count, data):
    values = data.draw(npst.arrays(np.float32, (count, paths * steps), elements=st.integers(0, 100).map(float)))
    uuids = tuple(f"v{i}" for i in range(count))
    s = Scenarios(
        vm_uuids=uuids,
        paths=paths,
        steps=steps,
        step_seconds=60.0,
        cpu_cores=values,
        memory_bytes=values.copy(),
        known=np.ones(count, dtype=np.bool_),
        basis="test",
    )
    whole, rest = s.cpu_cores.sum(axis=0), s.cpu_cores[1:].sum(axis=0)
    np.testing.assert_array_equal(s.peaks(whole - s.cpu_cores[0]), s.peaks(rest))
    assert (s.peaks(whole) <= s.peaks(s.cpu_cores).sum(axis=0)).all()
    assert s.peaks(whole).shape == (paths,)
