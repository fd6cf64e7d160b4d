"""What a plan's steps claim: figures of the planner's own objective, each step on top of those before it."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.host import HostLoad
from rebalancerd.plan.advise import advice_of, window_seconds
from rebalancerd.plan.balance import balance
from tests.unit.plan.plan_cluster import host, inputs_of, vm


@pytest.fixture
def inputs():
    """One host at 22 of 16 cores, two with room: more than one move is needed."""
    guests = [vm(f"busy{n}", "a", cores=5.5) for n in range(4)]
    return inputs_of([host("a"), host("b"), host("c")], [*guests, vm("calm", "b", cores=1.0)])


def everything(inputs, plan):
    return advice_of(inputs, plan, {s.number for s in plan.steps})


def test_the_steps_add_up_to_the_plan(inputs):
    plan = balance(inputs)
    told = everything(inputs, plan)

    assert len(told) == len(plan.steps) >= 2
    assert sum(a.relief for a in told) == pytest.approx(plan.before.unmet - plan.after.unmet)
    assert sum(a.cost for a in told) == pytest.approx(plan.after.cost)
    assert all(a.relief > a.cost > 0 for a in told)


def test_a_step_names_those_it_presumes(inputs):
    plan = balance(inputs)
    first, second = everything(inputs, plan)[:2]

    assert first.before == ()
    assert second.before == (first.move,)
    assert {t.name for t in second.hosts} >= {second.move.source, second.move.destination, first.move.destination}
    (alone,) = advice_of(inputs, plan, {2})
    assert alone == second


def test_what_it_rests_on(inputs):
    plan = balance(inputs)
    told = everything(inputs, plan)[0]

    assert (told.proposed_at, told.due_at) == (1000.0, 1000.0 + 3 * 600.0)
    assert (told.resource, told.probability, told.source_peak) == ("cpu", 1.0, pytest.approx(22 / 16))
    assert told.destination_peak == pytest.approx(max(5.5 / 16, 6.5 / 16), abs=0.07)
    assert (told.vcpus, told.basis, told.plan_id, told.id) == (6, "persistence", "p1", 0)
    assert told.terms("a").capacity_cores == 16.0


def test_a_window_has_two_steps_at_least(inputs):
    short = replace(inputs.scenarios, steps=1, cpu_cores=inputs.scenarios.cpu_cores[:, ::3],
                    memory_bytes=inputs.scenarios.memory_bytes[:, ::3])  # fmt: skip

    assert window_seconds(inputs) == 1800.0
    assert window_seconds(replace(inputs, scenarios=short)) == 1200.0


def test_a_step_that_was_done_since_or_whose_vm_is_gone_claims_nothing(inputs):
    plan = balance(inputs)
    first, second = (s.move for s in plan.steps[:2])
    shot = inputs.snapshot
    done = tuple(replace(v, host=first.destination) if v.uuid == first.vm_uuid else v for v in shot.vms)
    gone = tuple(v for v in shot.vms if v.uuid != second.vm_uuid)

    left = everything(replace(inputs, snapshot=replace(shot, vms=done)), plan)
    assert first.vm_uuid not in {a.move.vm_uuid for a in left}
    assert left[0].before == ()
    assert second.vm_uuid not in {
        a.move.vm_uuid for a in everything(replace(inputs, snapshot=replace(shot, vms=gone)), plan)
    }


def test_hosts_without_a_known_size_make_no_advice(inputs):
    plan = balance(inputs)
    blind = tuple(replace(h, cores=None, load=HostLoad()) if h.name == "a" else h for h in inputs.snapshot.hosts)

    assert everything(replace(inputs, snapshot=replace(inputs.snapshot, hosts=blind)), plan) == ()
