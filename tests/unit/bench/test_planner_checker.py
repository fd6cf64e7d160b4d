"""The benches' checker must find planted faults, and find none in what the planner makes."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.policy import HostMode, VmPolicy
from rebalancerd.plan.balance import balance
from tests.bench.planner_checker import violations
from tests.unit.plan.plan_cluster import host, inputs_of, vm


def case(target=None, **guest):
    hosts = [host("h1"), host("h2"), host("h3", 1, 1)]
    plan = balance(inputs_of(hosts, [vm(f"a{i}", "h1", 5.0) for i in range(3)]))
    guests = [vm("a0", "h1", 5.0, **guest), *(vm(f"a{i}", "h1", 5.0) for i in (1, 2))]
    return inputs_of([hosts[0], target or hosts[1], hosts[2]], guests), plan


def found(world, plan, **more):
    return violations(world.snapshot, world.scenarios, world.settings, plan, **more)


def test_the_plan_it_was_made_for_is_fine():
    assert found(*case()) == []


@pytest.mark.parametrize(
    ("world", "word"),
    [
        ({"target": host("h2", mode=HostMode.NO_INBOUND)}, "host mode"),
        ({"target": host("h2", cpu_group="g2")}, "CPU group"),
        ({"target": host("h2", cores=4.0)}, "CPU of h2"),
        ({"target": host("h2", memory_gib=1.0)}, "memory of h2"),
        ({"policy": VmPolicy(pin=frozenset({"h1"}))}, "pin"),
        ({"policy": VmPolicy(avoid=frozenset({"h2"}))}, "avoid"),
    ],
)
def test_a_broken_rule_is_found(world, word):
    assert any(word in text for text in found(*case(**world)))


def test_a_wrong_source_a_double_move_and_a_cap_are_found():
    world, plan = case()
    step = plan.steps[0]
    astray = replace(plan, steps=(replace(step, move=replace(step.move, source="h3")),))
    twice = found(world, replace(plan, steps=(step, step)))

    assert any(text.endswith(": source") for text in found(world, astray))
    assert any("moves twice" in text for text in twice) and any("cap 1" in text for text in twice)
