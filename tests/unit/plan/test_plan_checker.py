"""The checker must find planted faults, or its silence about plans means nothing."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.policy import HostMode, VmPolicy
from rebalancerd.cluster.snapshot import InFlight
from rebalancerd.plan.balance import balance
from rebalancerd.plan.settings import PlanSettings
from tests.bench.planner_checker_plan import violations
from tests.unit.plan.plan_cluster import cost_of, host, inputs_of, vm


def case(target=None, **guest):
    """A hot h1 whose guest a0 is planned to h2, judged against a world in which h2 or a0 is as given."""
    hosts = [host("h1"), host("h2"), host("h3", 1, 1)]
    plain = inputs_of(hosts, [vm(f"a{i}", "h1", 5.0) for i in range(3)])
    plan = balance(plain)
    world = inputs_of(
        [hosts[0], target or hosts[1], hosts[2]],
        [vm("a0", "h1", 5.0, **guest), *(vm(f"a{i}", "h1", 5.0) for i in (1, 2))],
    )
    return world, plan


def test_the_plan_it_was_made_for_is_fine():
    assert violations(*case()) == []


@pytest.mark.parametrize(
    ("world", "word"),
    [
        ({"target": host("h2", mode=HostMode.NO_INBOUND)}, "host mode"),
        ({"target": host("h2", cpu_group="g2")}, "CPU group"),
        ({"target": host("h2", cores=4.0)}, "CPU of h2: "),
        ({"target": host("h2", memory_gib=1.0)}, "memory of h2: "),
        ({"target": host("h2", cores=6.0)}, "hot in the end"),
        ({"busy": "backup"}, "running"),
        ({"facts": {"immovable": ("hostdev",)}}, "immovable"),
        ({"policy": VmPolicy(pin=frozenset({"h1"}))}, "pin"),
    ],
)
def test_a_broken_rule_is_found(world, word):
    assert any(word in fault for fault in violations(*case(**world)))


def test_a_plan_that_was_tampered_with_is_found():
    world, plan = case()
    step = plan.steps[0]
    elsewhere = replace(plan, steps=(replace(step, move=replace(step.move, destination="h3")),))
    slow = replace(plan, steps=(replace(step, move=replace(step.move, cost=cost_of(9999.0))),))
    boasting = replace(plan, steps=(replace(step, move=replace(step.move, gain=step.move.gain * 2)),))

    assert any("of h3: " in fault for fault in violations(world, elsewhere))
    assert "step 1: takes too long" in violations(world, slow)
    assert any("gains" in fault for fault in violations(world, boasting))


def test_intermediate_states_are_walked_through():
    """Two 40 GiB guests swapped in one wave: the end is fine, the way is not."""
    inputs = inputs_of([host("h1"), host("h2")], [vm("a", "h1", 13.0, 40.0), vm("b", "h2", 1.0, 40.0)])
    step = balance(inputs_of([host("h1"), host("h2")], [vm("a", "h1", 8.0), vm("c", "h1", 6.0)])).steps[0]
    there = replace(step, move=replace(step.move, vm_uuid="u-a", source="h1", destination="h2"))
    back = replace(step, number=2, move=replace(step.move, vm_uuid="u-b", source="h2", destination="h1"))
    plan = replace(balance(replace(inputs, settings=PlanSettings(max_moves=0))), steps=(there, back))

    assert any("wave 1: memory of h1: " in fault for fault in violations(inputs, plan))


def test_affinity_counts_a_vm_in_flight_where_it_will_end_up():
    """b flies from h1 to h2: a may follow it there, not to h3, and nowhere while nobody knows where b goes."""
    pair = VmPolicy(affinity=frozenset({"web"}))
    guests = [vm("a", "h1", 8.0, policy=pair), vm("b", "h1", 1.0, policy=pair), vm("c", "h1", 6.0)]
    plan = balance(inputs_of([host("h1"), host("h2")], [vm("a", "h1", 8.0), vm("c", "h1", 6.0)]))
    step = next(s for s in plan.steps if s.move.vm_name in "ac")
    faults = {}
    for name in ("h2", "h3"):
        for end in ("h2", None):
            flight = InFlight(vm_uuid="u-b", source="h1", destination=end, ours=True)
            world = inputs_of([host(f"h{n}") for n in (1, 2, 3)], guests, snapshot={"in_flight": (flight,)})
            move = replace(step.move, vm_uuid="u-a", source="h1", destination=name)
            faults[name, end] = violations(world, replace(plan, steps=(replace(step, move=move),)))
    torn = {case for case, found in faults.items() if "end: affinity group web is apart" in found}

    assert torn == {("h3", "h2"), ("h2", None), ("h3", None)}
