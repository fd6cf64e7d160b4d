"""A host that came back takes VMs by and by, and is filled without being hot only where that is asked for."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.refusal import Code, about_vm
from rebalancerd.plan.decide import decide
from rebalancerd.plan.drain import drain
from rebalancerd.plan.rules_ramp import inflow_limit
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.state import PlacementState
from tests.unit.plan.plan_checker import violations
from tests.unit.plan.plan_cluster import FixedCosts, carried_out, cost_of, host, inputs_of, vm

WIDE = {"ramp_seconds": 3600.0, "per_cluster": 4, "in_per_host": 4, "out_per_host": 4}


def hot(**changes):
    """h1 wants to give away several VMs, h2 is empty."""
    settings = PlanSettings(**{**WIDE, **changes.pop("settings", {})})
    guests = [vm(f"v{i}", "h1", 1.0) for i in range(16)]
    return inputs_of([host("h1"), host("h2")], guests, settings=settings, **changes)


def calm(**changes):
    """Nothing is hot; h3 is empty."""
    settings = PlanSettings(**{**WIDE, **changes.pop("settings", {})})
    guests = [vm(f"a{i}", "h1", 1.0, 4.0) for i in range(9)] + [vm(f"b{i}", "h2", 1.0, 4.0) for i in range(6)]
    return inputs_of([host("h1"), host("h2"), host("h3")], guests, settings=settings, **changes)


def arriving(plan, name):
    return sum(s.move.destination == name for s in plan.steps)


def test_no_cap_and_nobody_back_bounds_nothing():
    assert arriving(decide(hot()), "h2") > 2


@pytest.mark.parametrize(("arrived", "expected"), [({}, 2), ({"h2": 1}, 1), ({"h2": 2}, 0)])
def test_a_cap_counts_what_arrived_within_the_hour(arrived, expected):
    inputs = hot(settings={"inflow_max_per_host": 2}, arrived=arrived)
    plan = decide(inputs)

    assert arriving(plan, "h2") == expected
    assert violations(inputs, plan) == []
    assert any(r.code is Code.RAMP for r in plan.refusals)


@pytest.mark.parametrize(("age", "limit"), [(0.0, 1), (900.0, 2), (1800.0, 4), (2700.0, 6), (3600.0, None)])
def test_a_host_that_came_back_takes_a_growing_number(age, limit):
    state = PlacementState(hot(returned={"h2": age}))

    assert inflow_limit(state, 1) == limit
    assert inflow_limit(state, 0) is None


def test_the_ramp_grows_to_the_cap():
    state = PlacementState(hot(returned={"h2": 1800.0}, settings={"inflow_max_per_host": 2}))

    assert inflow_limit(state, 1) == 1


def test_the_refusal_says_since_when():
    plan = decide(hot(returned={"h2": 60.0}, arrived={"h2": 1}))
    (told,) = {r.detail for r in plan.refusals if r.code is Code.RAMP and "v0:" in r.detail}

    assert plan.is_empty
    assert "h2 takes at most 1 VMs within the hour, 1 arrived or are to, it came back 60 s ago" in told


def test_neither_drain_nor_consolidation_is_bounded():
    inputs = hot(settings={"inflow_max_per_host": 1}, window_seconds=7200.0)

    assert len(drain(inputs, ["h1"]).steps) > 1
    few = inputs_of(
        [host("h1"), host("h2")],
        [*(vm(f"a{i}", "h1") for i in range(3)), *(vm(f"b{i}", "h2", 2) for i in range(3))],
        settings=PlanSettings(inflow_max_per_host=1),
        window_seconds=7200.0,
        policy="consolidate",
    )
    assert len(decide(few).steps) == 3


def test_imbalance_alone_moves_nothing_unless_asked_for():
    assert decide(calm(returned={"h3": 1800.0})).is_empty
    assert decide(calm(settings={"rebalance_min_gain": 0.02})).is_empty


def test_a_host_that_came_back_is_filled_step_by_step_until_it_is_even():
    inputs = calm(settings={"rebalance_min_gain": 0.02}, returned={"h3": 1800.0})
    plan = decide(inputs)

    assert plan.policy == "rebalance"
    assert arriving(plan, "h3") == len(plan.steps) == 4
    assert plan.after.imbalance < plan.before.imbalance
    assert violations(inputs, plan) == []
    assert all(s.move.payback_seconds for s in plan.steps)
    again = decide(carried_out(inputs, plan))
    assert len(again.steps) <= 2
    assert decide(carried_out(carried_out(inputs, plan), again)).is_empty


def test_moves_that_are_not_worth_it_are_left():
    inputs = calm(returned={"h3": 1800.0}, costs=FixedCosts(default=cost_of(seconds=590.0)))

    assert decide(replace(inputs, settings=replace(inputs.settings, rebalance_min_gain=0.02))).is_empty


def test_resting_vms_are_left():
    inputs = calm(settings={"rebalance_min_gain": 0.02}, returned={"h3": 1800.0})
    rest = {v.uuid: about_vm(Code.COOLDOWN, v.uuid, "moved") for v in inputs.snapshot.vms if v.host == "h1"}
    plan = decide(replace(inputs, resting_vms=rest))

    assert all(s.move.source == "h2" for s in plan.steps)
