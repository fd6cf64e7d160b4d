"""Step order and draining: valid states in between, and a full account of what stays."""

from dataclasses import replace

import numpy as np

from rebalancerd.cluster.policy import HostMode, VmPolicy
from rebalancerd.cluster.refusal import Code, about_vm
from rebalancerd.plan.drain import drain
from rebalancerd.plan.order import Placed, order
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.state import PlacementState
from tests.bench.planner_checker_plan import violations
from tests.unit.plan.plan_cluster import carried_out, host, inputs_of, vm


def state_of(hosts, guests, **settings):
    return PlacementState(inputs_of(hosts, guests, settings=PlanSettings(**settings)))


def test_moves_between_different_hosts_share_a_wave_up_to_the_caps():
    hosts = [host(f"h{i}") for i in range(6)]
    state = state_of(hosts, [vm(f"v{i}", f"h{i}") for i in range(3)], per_cluster=2)
    found = order(state, [Placed(0, 3, 0), Placed(1, 4, 1), Placed(2, 5, 2)])

    assert found.waves == ((0, 1), (2,))
    assert found.dropped == {}


def test_one_out_and_one_in_per_host_at_a_time():
    hosts = [host(f"h{i}") for i in range(4)]
    state = state_of(hosts, [vm("v0", "h0"), vm("v1", "h0"), vm("v2", "h1")], per_cluster=9)

    assert order(state, [Placed(0, 2, 0), Placed(1, 3, 1), Placed(2, 2, 2)]).waves == ((0,), (1, 2))


def test_a_step_waits_until_its_room_is_free():
    """v0 (40 GiB) goes to h1 only after v1 (40 GiB) has left it: while v1 is copied it still holds its memory there."""
    hosts = [host(f"h{i}") for i in range(3)]
    state = state_of(hosts, [vm("v0", "h0", 1, 40), vm("v1", "h1", 1, 40)], per_cluster=9)

    assert order(state, [Placed(0, 1, 0), Placed(1, 2, 1)]).waves == ((1,), (0,))


def test_two_that_wait_for_each_other_are_refused_and_the_rest_goes_on():
    hosts = [host(f"h{i}") for i in range(4)]
    state = state_of(hosts, [vm("v0", "h0", 1, 40), vm("v1", "h1", 1, 40), vm("v2", "h2")])
    found = order(state, [Placed(0, 1, 0), Placed(1, 0, 1), Placed(2, 3, 2)])

    assert found.waves == ((2,),)
    assert {i: r.code for i, r in found.dropped.items()} == {0: Code.MEMORY_CAPACITY, 1: Code.MEMORY_CAPACITY}


def test_what_depends_on_a_dropped_step_is_dropped_with_it():
    """v0 can never leave (h2 is too small), so v1 never gets its room."""
    hosts = [host("h0"), host("h1"), host("h2", memory_gib=32)]
    state = state_of(hosts, [vm("v0", "h0", 1, 40), vm("v1", "h1", 1, 40)])

    assert set(order(state, [Placed(0, 2, 0), Placed(1, 0, 1)]).dropped) == {0, 1}


def test_a_group_is_moved_whole_or_not_at_all():
    hosts = [host("h0", memory_gib=128), host("h1")]
    state = state_of(hosts, [vm("v0", "h0", 1, 40), vm("v1", "h0", 1, 40)])
    found = order(state, [Placed(0, 1, 0), Placed(1, 1, 0)])

    assert found.waves == ()
    assert [found.dropped[i].code for i in (0, 1)] == [Code.AFFINITY, Code.MEMORY_CAPACITY]


def test_anti_affinity_holds_while_copies_are_under_way():
    apart = VmPolicy(anti_affinity=frozenset({"g"}))
    hosts = [host(f"h{i}") for i in range(3)]
    state = state_of(hosts, [vm("v0", "h0", policy=apart), vm("v1", "h1", policy=apart)], per_cluster=9)

    assert order(state, [Placed(0, 1, 0), Placed(1, 2, 1)]).waves == ((1,), (0,))


def test_higher_priority_is_moved_later():
    hosts = [host(f"h{i}") for i in range(2)]
    state = state_of(hosts, [vm("v0", "h0", policy=VmPolicy(priority=5)), vm("v1", "h0")])

    assert order(state, [Placed(0, 1, 0), Placed(1, 1, 1)]).waves == ((1,), (0,))


def test_apply_and_undo_restore_every_bit():
    state = state_of([host("h0"), host("h1")], [vm("v0", "h0", 1.1, 3), vm("v1", "h1", 0.7, 2)])
    arrays = (
        state.held_cpu,
        state.held_memory,
        state.settled_cpu,
        state.settled_memory,
        state.hard_memory,
        state.place,
    )
    before = [a.copy() for a in arrays]
    undo = state.apply(0, 1)

    assert state.presence[0] == (1,)
    assert any((a != b).any() for a, b in zip(arrays, before, strict=True))
    state.undo(undo)
    assert all((a == b).all() for a, b in zip(arrays, before, strict=True))
    assert state.presence[0] == (0,)


def test_in_flight_counts_on_both_ends_until_it_is_finished():
    state = state_of([host("h0"), host("h1")], [vm("v0", "h0", 2.0, 4.0)])
    state.begin(0, 1)

    assert np.allclose(state.held_cpu[:, -1], [2.0, 2.0])
    assert np.allclose(state.settled_cpu[:, -1], [0.0, 2.0])
    state.finish(0)
    assert np.allclose(state.held_cpu[:, -1], [0.0, 2.0])


def test_drain_empties_a_host_and_keeps_to_the_rules():
    guests = [vm(f"v{i}", "h1", 1.0, 4.0 + i) for i in range(5)]
    inputs = inputs_of([host("h1"), host("h2"), host("h3")], guests)
    plan = drain(inputs, ["h1"])

    assert {s.move.vm_uuid for s in plan.steps} == {v.uuid for v in guests}
    assert plan.policy == "drain"
    assert plan.steps[0].move.vm_name == "v4"
    assert "Draining h1" in plan.why
    assert violations(replace(inputs, drained=frozenset({"h1"})), plan) == []
    assert drain(carried_out(inputs, plan), ["h1"]).refusals[0].code is Code.BALANCED


def test_drain_ignores_cooldowns_and_never_hard_rules():
    guests = [vm("a", "h1"), vm("b", "h1", policy=VmPolicy(pin=frozenset({"h1"})))]
    rest = {"u-a": about_vm(Code.COOLDOWN, "u-a", "moved 3 min ago")}
    plan = drain(inputs_of([host("h1"), host("h2")], guests, resting_vms=rest), ["h1"])
    summary = next(r for r in plan.refusals if r.code is Code.NO_DESTINATION)

    assert [s.move.vm_name for s in plan.steps] == ["a"]
    assert "1 VMs stay on h1: b (1 pinned)" in summary.detail
    assert [r.code for r in plan.refusals if r.subject == "u-b"] == [Code.PINNED]


def test_drain_moves_a_vm_of_unknown_load_by_a_cautious_stand_in():
    guests = [vm("a", "h1", None, facts={"vcpus": 8})]

    assert len(drain(inputs_of([host("h1"), host("h2")], guests), ["h1"]).steps) == 1
    assert drain(inputs_of([host("h1"), host("h2", 9)], guests), ["h1"]).is_empty


def test_drain_of_several_hosts_does_not_fill_one_with_the_other():
    guests = [vm("a", "h1"), vm("b", "h2")]
    plan = drain(inputs_of([host("h1"), host("h2"), host("h3", mode=HostMode.ACTIVE)], guests), ["h1", "h2"])

    assert {s.move.destination for s in plan.steps} == {"h3"}


def test_drain_names_a_host_it_does_not_know():
    plan = drain(inputs_of([host("h1")], []), ["h9"])

    assert plan.is_empty
    assert [r.code for r in plan.refusals] == [Code.HOST_UNREACHABLE]
    assert "h9" in plan.why


def test_a_group_split_over_two_drained_hosts_meets_on_a_third():
    pair = VmPolicy(affinity=frozenset({"g"}))
    guests = [vm("a", "h1", policy=pair), vm("b", "h2", policy=pair)]
    inputs = inputs_of([host("h1"), host("h2"), host("h3")], guests)
    plan = drain(inputs, ["h1", "h2"])

    assert {s.move.destination for s in plan.steps} == {"h3"}
    assert violations(replace(inputs, drained=frozenset({"h1", "h2"})), plan) == []


def test_a_single_host_cannot_be_emptied():
    plan = drain(inputs_of([host("h1")], [vm("a", "h1")]), ["h1"])

    assert plan.is_empty
    assert "no other host" in next(r for r in plan.refusals if r.subject == "u-a").detail
