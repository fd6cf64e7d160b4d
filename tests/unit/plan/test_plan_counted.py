"""Rules on what is counted: overcommit of memory and vCPUs, huge pages, CPUs and NUMA nodes that a VM is pinned to."""

from dataclasses import replace

import numpy as np
import pytest

from rebalancerd.cluster.host import Host, HugePages
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.cluster.snapshot import InFlight
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.constraints import check
from rebalancerd.plan.figures import GRANTED
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.state import PlacementState
from tests.unit.plan.plan_cluster import host, inputs_of, vm

TWO_MIB = 2 * MIB


def asked(inputs: PlanInputs, name: str, to: str, *, after: tuple[tuple[str, str], ...] = ()) -> Refusal | None:
    """The first refusal of that VM to that host, once others have begun to move."""
    state = PlacementState(inputs)
    for other, where in after:
        state.begin(state.vm_index[f"u-{other}"], state.host_index[where])
    return check(state, state.vm_index[f"u-{name}"], state.host_index[to])


def told(refusal: Refusal | None) -> tuple[Code, str] | None:
    return None if refusal is None else (refusal.code, refusal.detail)


def large(name: str, on: str, gib: float) -> Vm:
    """A VM that uses one GiB of what it was given."""
    return vm(name, on, 0.1, 1.0, facts={"memory_bytes": int(gib * GIB)})


def with_pool(name: str, total: int, free: int | None = None, size: int = TWO_MIB) -> Host:
    made = host(name)
    assert made.facts is not None
    pool = HugePages(size_bytes=size, total=total, free=free)
    return replace(made, facts=replace(made.facts, hugepages=(pool,)))


def huge(name: str, on: str, pages: int, size: int | None = TWO_MIB) -> Vm:
    facts = {"memory_bytes": pages * TWO_MIB, "hugepage_bytes": size}
    return vm(name, on, 0.1, 0.1, facts=facts)


# memory overcommit


def test_what_guests_are_configured_with_stays_within_the_policy() -> None:
    hosts, vms = (host("h1"), host("h2")), (large("a", "h1", 40), large("b", "h2", 40))

    def of(**settings: float) -> tuple[Code, str] | None:
        return told(asked(inputs_of(hosts, vms, settings=PlanSettings(**settings)), "a", "h2"))  # type: ignore[arg-type]

    assert of() == (
        Code.MEMORY_OVERCOMMIT,
        "a: h2 would have 80.0 GiB granted, the overcommit policy allows 64.0 GiB",
    )
    assert of(memory_overcommit=1.25) is None
    assert of(memory_overcommit=1.2) is not None


def test_a_host_can_have_its_own_policy_and_the_used_memory_stays_below_the_headroom() -> None:
    hosts = (host("h1"), host("h2", memory_overcommit=4.0))

    assert asked(inputs_of(hosts, (large("a", "h1", 40), large("b", "h2", 40))), "a", "h2") is None
    full = (vm("a", "h1", 0.1, 20), vm("b", "h2", 0.1, 40))
    assert (asked(inputs_of(hosts, full), "a", "h2") or Refusal).code is Code.WOULD_BE_HOT  # type: ignore[union-attr]


def test_a_copy_under_way_counts_on_both_ends() -> None:
    hosts = (host("h1"), host("h2"), host("h3"))
    vms = (large("a", "h1", 40), large("b", "h2", 40), large("c", "h3", 30))
    inputs = inputs_of(hosts, vms)

    assert told(asked(inputs, "c", "h1", after=(("a", "h3"),))) == (
        Code.MEMORY_OVERCOMMIT,
        "c: h1 would have 70.0 GiB granted, the overcommit policy allows 64.0 GiB",
    )
    flying = replace(inputs.snapshot, in_flight=(InFlight(vm_uuid="u-a", source="h1", destination="h3", ours=False),))
    state = PlacementState(replace(inputs, snapshot=flying))
    assert (state.figures.held[GRANTED] / GIB).tolist() == [40.0, 40.0, 70.0]


# vCPUs


def test_the_cap_on_vcpus_is_off_unless_set_and_counts_cores_not_speed() -> None:
    hosts = (host("h1", 4), host("h2", 4, speed_factor=2.0, reserved_cores=1.0))
    vms = (vm("a", "h1", 0.5, facts={"vcpus": 3}), vm("b", "h2", 0.5, facts={"vcpus": 4}))

    assert asked(inputs_of(hosts, vms), "a", "h2") is None
    assert told(asked(inputs_of(hosts, vms, settings=PlanSettings(vcpus_per_core_max=2.0)), "a", "h2")) == (
        Code.CPU_OVERCOMMIT,
        "a: h2 would have 7 vCPUs, its cap is 6 (2 per core)",
    )


# huge pages


def test_free_huge_pages_of_the_same_size_are_needed() -> None:
    vms = (huge("a", "h1", 100), huge("b", "h2", 50))

    assert asked(inputs_of((with_pool("h1", 100), with_pool("h2", 150)), vms), "a", "h2") is None
    for pool in (with_pool("h2", 149), with_pool("h2", 500, free=99)):
        assert told(asked(inputs_of((with_pool("h1", 100), pool), vms), "a", "h2")) == (
            Code.HUGEPAGES,
            "a: needs 100 huge pages of 2 MiB, h2 has 99 free",
        )
    other = with_pool("h2", 10, size=GIB)
    assert (asked(inputs_of((with_pool("h1", 100), other), vms[:1]), "a", "h2") or vms[0]).code is Code.HUGEPAGES  # type: ignore[union-attr]


def test_unknown_huge_pages_are_refused() -> None:
    vms = (huge("a", "h1", 100),)

    assert told(asked(inputs_of((with_pool("h1", 100), host("h2")), vms), "a", "h2")) == (
        Code.HUGEPAGES,
        "a: needs huge pages of 2 MiB; those of h2 are unknown",
    )


def test_the_default_size_is_known_where_the_source_has_one_pool() -> None:
    vms, there = (huge("a", "h1", 100, size=0),), with_pool("h2", 500)

    assert asked(inputs_of((with_pool("h1", 100), there), vms), "a", "h2") is None
    assert told(asked(inputs_of((host("h1"), there), vms), "a", "h2")) == (
        Code.HUGEPAGES,
        "a: has huge pages of h1's default size, which is not known",
    )


def test_a_declared_pool_wins_and_pages_that_a_move_frees_can_be_used() -> None:
    declared = (HugePages(size_bytes=TWO_MIB, total=100),)
    hosts = (with_pool("h1", 100), with_pool("h2", 9, free=9), host("h3", hugepages=declared))
    hosts = (hosts[0], replace(hosts[1], hugepages=declared), hosts[2])
    state = PlacementState(inputs_of(hosts, (huge("a", "h1", 60), huge("b", "h2", 60))))

    assert (check(state, 0, 1) or Refusal).code is Code.HUGEPAGES  # type: ignore[union-attr]
    undo = state.apply(1, 2)
    assert check(state, 0, 1) is None
    state.undo(undo)
    assert (check(state, 0, 1) or Refusal).code is Code.HUGEPAGES  # type: ignore[union-attr]


def test_what_lies_in_huge_pages_is_no_further_demand_on_memory() -> None:
    state = PlacementState(inputs_of((with_pool("h1", 9000),), (huge("a", "h1", 8192),)))

    assert state.figures.held[GRANTED, 0] == pytest.approx(0.1 * GIB, rel=1e-6)


# CPUs and NUMA nodes


def pinned(name: str, on: str, *cpus: int) -> Vm:
    return vm(name, on, facts={"host_topology": ("CPU pinning (vcpupin)",), "pinned_cpus": frozenset(cpus)})


def shaped(name: str, topology: str | None) -> Host:
    made = host(name)
    assert made.facts is not None
    return replace(made, facts=replace(made.facts, topology=topology))


@pytest.mark.parametrize(
    ("here", "there", "why"),
    [
        ("t1", "t1", None),
        ("t1", "t2", "that of h2 is not that of h1"),
        ("t1", None, "the topology of h2 is unknown"),
        (None, None, "the topology of h1 and h2 is unknown"),
    ],
)
def test_what_is_pinned_goes_to_an_equal_topology_only(here: str | None, there: str | None, why: str | None) -> None:
    inputs = inputs_of((shaped("h1", here), shaped("h2", there)), (pinned("a", "h1", 0), vm("b", "h1")))
    text = f"a: needs the same CPUs and NUMA nodes (CPU pinning (vcpupin)), {why}"

    assert told(asked(inputs, "a", "h2")) == (None if why is None else (Code.TOPOLOGY, text))
    assert asked(inputs, "b", "h2") is None


def test_no_two_are_pinned_to_the_same_cpu_of_a_destination() -> None:
    hosts = tuple(shaped(f"h{i}", "t1") for i in (1, 2, 3))
    inputs = inputs_of(hosts, (pinned("a", "h1", 0, 1), pinned("b", "h2", 1, 2), pinned("c", "h3", 2, 3)))

    assert asked(inputs, "a", "h3") is None
    assert told(asked(inputs, "a", "h2")) == (Code.TOPOLOGY, "a: b on h2 is pinned to its CPUs there (1)")
    assert told(asked(inputs, "a", "h3", after=(("c", "h1"), ("b", "h3")))) == (
        Code.TOPOLOGY,
        "a: b on h3 is pinned to its CPUs there (1)",
    )


def test_figures_come_back_bit_for_bit() -> None:
    hosts = tuple(with_pool(f"h{i}", 500) for i in (1, 2, 3))
    state = PlacementState(inputs_of(hosts, (huge("a", "h1", 100), large("b", "h2", 3.3), vm("c", "h3", None, None))))
    before = state.figures.held.copy()
    undone = [state.apply(v, h) for v, h in ((0, 2), (1, 0), (2, 1))]
    assert not np.array_equal(before, state.figures.held)
    for undo in reversed(undone):
        state.undo(undo)

    assert np.array_equal(before, state.figures.held)
    assert np.array_equal(before, state.copy().figures.held)
