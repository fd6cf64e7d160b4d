"""Swaps, chains and parking hosts: what no single move can do, judged as a whole."""

from dataclasses import replace

from rebalancerd.cluster.policy import VmPolicy
from rebalancerd.cluster.refusal import Code
from rebalancerd.plan.balance import balance
from rebalancerd.plan.settings import PlanSettings
from tests.bench.planner_checker_plan import violations
from tests.unit.plan.plan_cluster import FixedCosts, carried_out, cost_of, host, inputs_of, vm


def moves(plan):
    return [(s.move.vm_name, s.move.source, s.move.destination) for s in plan.steps]


def swap_needed(*more_hosts, memory_gib=2.0, **changes):
    """h1 at 14 of 16 cores (8 + 6), h2 at 10 (4 + 4 + 2): neither VM of h1 fits on h2, one of h2 has to make room."""
    guests = [vm("a", "h1", 8.0, memory_gib), vm("b", "h1", 6.0, memory_gib)]
    guests += [vm("c", "h2", 4.0, memory_gib), vm("d", "h2", 4.0, memory_gib), vm("e", "h2", 2.0, 1.0)]
    return inputs_of([host("h1"), host("h2"), *more_hosts], guests, **changes)


def test_a_swap_relieves_what_no_single_move_can():
    inputs = swap_needed()
    plan = balance(inputs)

    assert sorted(moves(plan)) == [("b", "h1", "h2"), ("c", "h2", "h1")]
    assert violations(inputs, plan) == []
    assert plan.after.unmet == 0
    assert all("together, moving c to h1, b to h2" in s.move.why for s in plan.steps)
    assert balance(carried_out(inputs, plan)).is_empty


def test_a_chain_makes_room_on_the_receiver_first():
    """h3 takes c and not b; h1 may not take anything, for it has no memory left for a copy."""
    inputs = swap_needed(host("h3", 6))
    stays = VmPolicy(avoid=frozenset({"h1"}))
    guests = tuple(replace(v, policy=stays) if v.name in "cd" else v for v in inputs.snapshot.vms)
    inputs = replace(inputs, snapshot=replace(inputs.snapshot, vms=guests))
    plan = balance(inputs)

    assert moves(plan) == [("c", "h2", "h3"), ("b", "h1", "h2")]
    assert violations(inputs, plan) == []
    assert balance(carried_out(inputs, plan)).is_empty


def test_a_blocking_member_of_an_anti_affinity_group_makes_way():
    apart = VmPolicy(anti_affinity=frozenset({"db"}))
    guests = [vm("a", "h1", 8.0, policy=VmPolicy(pin=frozenset({"h1"}))), vm("b", "h1", 6.0, policy=apart)]
    guests += [vm("c", "h2", 1.0, policy=apart), vm("full", "h3", 9.0)]
    inputs = inputs_of([host("h1"), host("h2"), host("h3")], guests)
    plan = balance(inputs)

    assert moves(plan) == [("c", "h2", "h3"), ("b", "h1", "h2")]
    assert violations(inputs, plan) == []


def test_a_cycle_is_broken_by_a_parking_host():
    """Neither h1 nor h2 has memory for the other's copy; h3 can hold one for the while, though not below headroom."""
    inputs = swap_needed(host("h3", memory_gib=28.0), memory_gib=26.0)
    plan = balance(inputs)

    assert len(plan.steps) == 3
    assert {s.move.destination for s in plan.steps if s.wave == 1} == {"h3"}
    assert violations(inputs, plan) == []
    assert plan.after.unmet == 0
    assert sum(s.move.gain for s in plan.steps) > 0
    assert balance(carried_out(inputs, plan)).is_empty


def test_the_way_to_and_from_the_parking_host_is_paid_for():
    """A detour that costs more than it gains is not made, and the cycle is named."""
    dear = FixedCosts(default=cost_of(185.0, slowdown=1.0))
    inputs = swap_needed(host("h3", memory_gib=28.0), memory_gib=26.0, costs=dear)
    refused = [r for r in balance(inputs).refusals if "a cycle" in r.detail]

    assert len(balance(swap_needed(costs=dear)).steps) == 2
    assert balance(inputs).is_empty
    assert {r.code for r in refused} == {Code.MEMORY_CAPACITY}


def test_a_cycle_without_a_parking_host_is_refused_by_name():
    plan = balance(swap_needed(memory_gib=26.0))

    assert plan.is_empty
    detail = next(r.detail for r in plan.refusals if r.subject == "u-b" and "a cycle" in r.detail)
    assert "c (h2 to h1) and b (h1 to h2) wait for each other" in detail
    assert "h2 would need" in detail or "h1 would need" in detail


def test_what_does_not_pay_as_a_whole_is_not_done():
    dear = FixedCosts(default=cost_of(550.0, slowdown=1.0))

    assert balance(swap_needed(costs=dear)).is_empty


def test_a_bundle_must_fit_into_the_plan():
    assert balance(swap_needed(settings=PlanSettings(max_moves=1))).is_empty
    assert balance(swap_needed(settings=PlanSettings(improve_budget=0))).is_empty


def test_bundles_leave_calm_clusters_alone():
    """Nothing is swapped for a better balance alone."""
    guests = [vm("a", "h1", 8.0), vm("b", "h1", 4.0), vm("c", "h2", 0.5)]

    assert balance(inputs_of([host("h1"), host("h2")], guests)).is_empty


def test_the_next_plan_goes_on_with_a_swap_that_has_begun():
    inputs = swap_needed(settings=PlanSettings(per_cluster=1))
    plan = balance(inputs)
    first = replace(plan, steps=plan.steps[:1])
    rest = balance(carried_out(inputs, first))

    assert len(plan.steps) == 2
    assert moves(rest) == moves(plan)[1:]


SOLVED = PlanSettings(solver_nodes=20)


def two_must_make_way(**changes):
    """b fits on h2 once two of its VMs have left, each to a host that takes one of them only."""
    guests = [vm("a", "h1", 8.0, policy=VmPolicy(pin=frozenset({"h1"}))), vm("b", "h1", 6.0)]
    guests += [vm(f"c{i}", "h2", 3.0, policy=VmPolicy(avoid=frozenset({"h1"}))) for i in range(4)]
    guests += [vm(f"d{n}", n, 3.0, policy=VmPolicy(pin=frozenset({n}))) for n in ("h3", "h4")]
    return inputs_of([host("h1"), host("h2"), host("h3", 8), host("h4", 8)], guests, **changes)


def test_the_solver_finds_what_takes_three_moves():
    inputs = two_must_make_way(settings=SOLVED)
    plan = balance(inputs)

    assert sorted(m[1:] for m in moves(plan)) == [("h1", "h2"), ("h2", "h3"), ("h2", "h4")]
    assert violations(inputs, plan) == []
    assert plan.after.unmet == 0
    assert balance(carried_out(inputs, plan)).is_empty
    assert balance(two_must_make_way(settings=SOLVED)).digest == plan.digest


def test_the_solver_keeps_to_the_plans_bounds():
    assert balance(two_must_make_way()).is_empty
    assert balance(two_must_make_way(settings=replace(SOLVED, max_moves=2))).is_empty
