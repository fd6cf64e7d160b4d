"""Properties of plans over random clusters, judged by a checker that shares no code with the planner."""

from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rebalancerd.cluster.cost import Candidate
from rebalancerd.cluster.refusal import Code, about_vm
from rebalancerd.plan.admission import Admission
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.balance import balance
from rebalancerd.plan.consolidate import consolidate
from rebalancerd.plan.constraints import first
from rebalancerd.plan.decide import decide
from rebalancerd.plan.drain import drain
from rebalancerd.plan.options import options
from rebalancerd.plan.price import cost_core_seconds
from rebalancerd.plan.rules_fit import RULES as FIT_RULES
from rebalancerd.plan.rules_host import RULES as HOST_RULES
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.vetoes import admissible
from rebalancerd.plan.why_not import why_not
from tests.bench.planner_checker_plan import violations
from tests.bench.planner_random import Tally, random_cluster
from tests.unit.plan.plan_cluster import carried_out, hotspots_of
from tests.unit.plan.plan_random import random_inputs

NEARLY = 0.005  # of the score: single moves of the rest may go elsewhere
seeds = st.integers(0, 2**32 - 1)
shares = st.sampled_from([0.0, 0.2, 0.5, 0.9])


@given(seeds, shares)
@example(464620073, 0.9)  # follows a VM of its affinity group that is in flight to another host
@example(3259522730, 0.9)  # guests that wait for a CPU, on hosts with and without any to spare
@example(2752078130, 0.5)
@example(2668589609, 0.5)
@settings(max_examples=150, deadline=None)
def test_a_balance_plan_breaks_no_rule_in_any_state(seed: int, odd: float) -> None:
    inputs = random_inputs(seed, odd)

    assert violations(inputs, balance(inputs)) == []


@given(seeds, shares)
@example(2752078130, 0.5)
@example(238, 0.0)  # a VM that is parked on the way and needs other options from there on
@settings(max_examples=60, deadline=None)
def test_other_than_the_usual_options_are_used_only_where_those_will_not_do(seed: int, odd: float) -> None:
    """In balance and drain alike, and every such move says so."""
    inputs = random_inputs(seed, odd)
    snapshot, plan_settings = inputs.snapshot, inputs.settings
    for plan in (balance(inputs), drain(inputs, [h.name for h in snapshot.hosts[:2]])):
        for move in (step.move for step in plan.steps):
            vm = snapshot.vm(move.vm_uuid)
            usual, there = options(vm, plan_settings), replace(vm, host=move.source)
            asked = Candidate(vm_uuid=vm.uuid, source=move.source, destination=move.destination, options=usual)
            then = replace(snapshot, vms=tuple(there if other is vm else other for other in snapshot.vms))
            (cost,) = inputs.costs.costs(then, [asked])

            assert (move.options == usual) == admissible(cost, vm, plan_settings)
            assert (f"{vm.name} is allowed " in move.why) == (move.options != usual)


@given(seeds, shares)
@settings(max_examples=80, deadline=None)
def test_a_drain_plan_breaks_no_rule_and_accounts_for_every_vm(seed: int, odd: float) -> None:
    inputs = random_inputs(seed, odd)
    host = inputs.snapshot.hosts[0].name
    plan = drain(inputs, [host])
    gone = {s.move.vm_uuid for s in plan.steps}
    flying = {f.vm_uuid for f in inputs.snapshot.in_flight}
    told = {r.subject for r in plan.refusals}

    assert violations(replace(inputs, drained=frozenset({host})), plan) == []
    assert {v.uuid for v in inputs.snapshot.vms if v.host == host} - flying <= gone | told


@given(seeds, shares)
@settings(max_examples=80, deadline=None)
def test_a_plan_applied_to_the_end_leaves_nothing_to_do(seed: int, odd: float) -> None:
    inputs = random_inputs(seed, odd)
    plan = balance(inputs)
    if len(plan.steps) >= inputs.settings.max_moves or any(r.code is Code.CLUSTER_CAP for r in plan.refusals):
        return
    again = balance(carried_out(inputs, plan))

    assert [(s.move.vm_name, s.move.source, s.move.destination) for s in again.steps] == []


@given(st.integers(0, 2**32 - 1))
@example(185)  # a VM that can reach a third host only from where the plan has sent it
@example(1598)  # a single move that a bundle made possible
@settings(max_examples=200, deadline=None)
def test_plans_of_small_odd_clusters_break_no_rule_and_leave_nothing_to_do(seed: int) -> None:
    """Swaps, chains, detours, drains and what follows on them, carried out to the end."""
    tally = Tally()
    tally.add(seed)

    assert tally.broken == []
    assert tally.unfinished == []


@example(513)  # no host is hot any more when what is left is judged
@example(67108864)  # a destination has become a hotspot itself
@given(st.integers(0, 2**32 - 1))
@example(56232)  # the host that is left above headroom is no longer likely to be hot
@settings(max_examples=30, deadline=None)
def test_from_the_middle_of_a_plan_the_next_one_goes_on_with_it(seed: int) -> None:
    """After any wave: nothing that was done is undone, and what follows ends about as well as the rest of the plan would.

    Unless nothing calls for relief any more: then the plan ends there. And unless a host that it still sends VMs to has become
    a hotspot whose trouble its load does not show: nothing goes there any more.
    """
    inputs = random_cluster(seed)
    plan = decide(inputs)
    end = decide(carried_out(inputs, plan)).before.total
    for wave in sorted({s.wave for s in plan.steps})[:-1]:
        done = [s for s in plan.steps if s.wave <= wave]
        rest = [s.move for s in plan.steps if s.wave > wave]
        again = replace(
            carried_out(inputs, replace(plan, steps=tuple(done))),
            underway=tuple((m.vm_uuid, m.destination) for m in rest),
        )
        state = PlacementState(again)
        cores = state.demand.mean_cores
        spent = sum(
            cost_core_seconds(m.cost, float(cores[again.snapshot.vms.index(again.snapshot.vm(m.vm_uuid))]))
            for m in rest
        )
        following = decide(again)
        came_from = {s.move.vm_uuid: s.move.source for s in reversed(done)}

        assert not [s for s in following.steps if came_from.get(s.move.vm_uuid) == s.move.destination]
        assert violations(again, following) == []
        closed = {again.snapshot.hosts[h].name for h in state.shunned} & {m.destination for m in rest}
        if following.policy == plan.policy == "balance" and following.hot_hosts and not closed:
            assert following.after.total <= end + spent + NEARLY * max(1.0, end)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_failed_step_is_planned_around(seed: int) -> None:
    """Its pair is blocked: the next plan keeps every rule, does without it, and still moves what it can."""
    inputs = random_cluster(seed)
    plan = decide(inputs)
    if not plan.steps:
        return
    failed = plan.steps[0].move
    refused = about_vm(Code.LIBVIRT_REFUSED, failed.vm_uuid, "refused")
    blocked = {**inputs.blocked_pairs, (failed.vm_uuid, failed.destination): refused}
    rest = tuple((s.move.vm_uuid, s.move.destination) for s in plan.steps)
    again = replace(inputs, blocked_pairs=blocked, underway=rest)
    following = decide(again)

    assert violations(again, following) == []
    assert (failed.vm_uuid, failed.destination) not in {(s.move.vm_uuid, s.move.destination) for s in following.steps}


@given(seeds, shares)
@settings(max_examples=60, deadline=None)
def test_rounds_of_plans_come_to_an_end(seed: int, odd: float) -> None:
    """Even with one move per plan: no cluster is shuffled for ever."""
    inputs = random_inputs(seed, odd)
    for _ in range(len(inputs.snapshot.vms) + 2):
        plan = balance(inputs)
        if plan.is_empty:
            return
        inputs = carried_out(inputs, plan)

    raise AssertionError("still moving")


@given(seeds, shares)
@settings(max_examples=40, deadline=None)
def test_same_inputs_give_the_same_plan(seed: int, odd: float) -> None:
    assert balance(random_inputs(seed, odd)).digest == balance(random_inputs(seed, odd)).digest


@given(seeds, shares)
@settings(max_examples=40, deadline=None)
def test_every_vm_that_stays_can_be_asked_why(seed: int, odd: float) -> None:
    inputs = random_inputs(seed, odd)
    moved = {s.move.vm_uuid for s in balance(inputs).steps}
    for vm in inputs.snapshot.vms[:4]:
        assert (why_not(inputs, vm.uuid) == ()) == (vm.uuid in moved)


@given(seeds, shares)
@settings(max_examples=60, deadline=None)
def test_the_masks_of_destinations_are_what_the_constraints_say_one_by_one(seed: int, odd: float) -> None:
    state = PlacementState(random_inputs(seed, odd))
    admission = Admission(state)

    for v in range(len(state.vms)):
        asked = [first((*HOST_RULES, *FIT_RULES), Ask(state, v, h, (v,))) is None for h in range(len(state.hosts))]
        assert admission.of(v).tolist() == asked


@given(seeds, shares)
@settings(max_examples=100, deadline=None)
def test_a_consolidation_plan_breaks_no_rule_and_leaves_hosts_whole(seed: int, odd: float) -> None:
    """No host is left half-empty but the one a plan begins with, and the end is reached."""
    inputs = replace(random_inputs(seed, odd), window_seconds=6 * 3600.0)
    plan = consolidate(inputs)
    moved = {s.move.vm_uuid for s in plan.steps}
    for step in plan.steps:
        here = [v.uuid for v in inputs.snapshot.vms_on[step.move.source]]
        whole = moved.issuperset(here) or any(f.vm_uuid in here for f in inputs.snapshot.in_flight)
        expected = whole or "is emptied" not in step.move.why or "left to the next plan" in step.move.why
        assert expected or "to make room there" in step.move.why

    assert violations(inputs, plan) == []
    assert consolidate(inputs) == plan
    assert plan.after.hosts is not None


@given(seeds, st.sampled_from([0.0, 0.2]))
@settings(max_examples=40, deadline=None)
def test_consolidation_plans_come_to_an_end(seed: int, odd: float) -> None:
    inputs = replace(random_inputs(seed, odd), window_seconds=6 * 3600.0)
    for _ in range(60):
        plan = consolidate(inputs)
        if not plan.steps:
            return
        assert violations(inputs, plan) == []
        inputs = carried_out(inputs, plan)
    raise AssertionError("still moving after 60 plans")


@given(seeds, st.sampled_from([0.0, 0.2, 0.5]))
@example(53, 0.0)  # one move a plan: a host was begun, and what had moved came back
@example(225, 0.0)
@settings(max_examples=40, deadline=None)
def test_calm_clusters_are_folded_step_by_step_without_a_way_back(seed: int, odd: float) -> None:
    """On hosts four times as large; every plan without hot hosts is worth its cost, and in the end nothing is left to do."""
    inputs = random_inputs(seed, odd)
    hosts = tuple(
        replace(
            h,
            cores=h.cores and 4 * h.cores,
            memory_bytes=h.memory_bytes and 4 * h.memory_bytes,
            facts=h.facts and replace(h.facts, cpus=4 * h.facts.cpus),
            idle_watts=(None, 80.0, 120.0)[(seed + i) % 3],
        )
        for i, h in enumerate(inputs.snapshot.hosts)
    )
    shot = replace(inputs.snapshot, hosts=hosts)
    spots = hotspots_of(shot, inputs.scenarios, inputs.settings)
    inputs = replace(inputs, snapshot=shot, hotspots=spots, window_seconds=6 * 3600.0)
    for _ in range(80):
        plan = consolidate(inputs)
        assert violations(inputs, plan) == []
        if not plan.steps:
            return
        assert plan.hot_hosts or plan.after.total < plan.before.total
        inputs = carried_out(inputs, plan)
    raise AssertionError("still moving after 80 plans")
