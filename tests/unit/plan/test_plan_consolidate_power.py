"""How far to fold: whose turn it is, what cannot sleep stays on, and those that stay on are N+1 among themselves."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import VmPolicy
from rebalancerd.cluster.power import PowerLimits
from rebalancerd.cluster.refusal import Code, Refusal, about_host
from rebalancerd.cluster.units import GIB
from rebalancerd.plan.consolidate import consolidate
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings
from tests.bench.planner_checker_plan import violations
from tests.unit.plan.plan_cluster import carried_out, host, inputs_of, vm

HOURS_6 = 6 * 3600.0
ALONE = PowerLimits(hosts_on_min=1, spare_hosts=0)


def no(code: Code, *hosts: str) -> dict[str, Refusal]:
    return {name: about_host(code, name, f"{name}: {code}") for name in hosts}


def night(hosts, vms, **changes) -> PlanInputs:
    changes.setdefault("window_seconds", HOURS_6)
    return inputs_of(hosts, vms, **changes)


def three(**changes) -> PlanInputs:
    """h1 has least to copy, h3 most."""
    guests = [vm("a", "h1", 1), vm("b", "h2", 2), vm("c", "h3", 3)]
    return night([host("h1"), host("h2"), host("h3")], guests, **changes)


def emptied(plan: Plan) -> list[str]:
    return list(dict.fromkeys(s.move.source for s in plan.steps))


def stays(plan: Plan) -> dict[str, Code]:
    return {r.subject: r.code for r in plan.refusals}


def test_a_host_that_never_woke_by_our_order_is_emptied_after_those_that_did() -> None:
    plan = consolidate(three(no_sleep=no(Code.POWER_UNTESTED, "h1")))

    assert emptied(plan) == ["h2", "h3"]
    assert "h2 is emptied before h3 because they are equal" in plan.steps[0].move.why
    assert "h3 is emptied before h1 because h1 never woke by our order: asleep" in plan.steps[-1].move.why


@pytest.mark.parametrize("code", [Code.NO_POWER_CONTROL, Code.POWER_FAULT, Code.POWER_DISABLED])
def test_a_host_that_cannot_sleep_is_not_emptied_and_is_filled_first(code: Code) -> None:
    """h1 has least to copy and would go first."""
    guests = [vm("a", "h1", 1, 1), vm("b", "h2", 2, 2), vm("c", "h3", 3, 30)]
    hosts = [host("h1", idle_watts=300.0), host("h2", idle_watts=90.0), host("h3", idle_watts=60.0)]
    plan = consolidate(night(hosts, guests, no_sleep=no(code, "h1")))

    assert emptied(plan) == ["h2", "h3"]
    assert {s.move.destination for s in plan.steps} == {"h1"}
    told = next(r for r in plan.refusals if r.subject == "h1")
    assert told.code is code
    assert told.detail.startswith("h1 stays on, for it could not sleep: ")


def test_the_least_efficient_of_those_that_can_sleep_goes_first_and_the_plan_says_why() -> None:
    hosts = [host("h1", idle_watts=80.0), host("h2", idle_watts=160.0), host("h3", idle_watts=240.0)]
    guests = [vm("a", "h1", 1), vm("b", "h2", 1), vm("c", "h3", 1)]
    plan = consolidate(night(hosts, guests))

    assert emptied(plan) == ["h3", "h2"]
    assert "h3 is emptied before h2 because it draws 15 W per core when idle, that one 10 W" in plan.steps[0].move.why
    equal = consolidate(night([host("h1"), host("h2"), host("h3")], guests))
    assert "before h2 because they are equal and it comes first" in equal.steps[0].move.why
    assert consolidate(night([host("h1"), host("h2"), host("h3")], guests)) == equal


def test_a_host_that_must_stay_on_anyway_is_not_emptied() -> None:
    two = consolidate(three(power=replace(ALONE, hosts_on_min=2)))
    assert len(emptied(two)) == 1
    assert Code.HOSTS_ON_MIN in stays(two).values()
    assert len(emptied(consolidate(three(power=ALONE)))) == 2
    # 6 cores are carried by one host of 16, not with that one dead
    spare = consolidate(three(power=PowerLimits(hosts_on_min=1, spare_hosts=1)))
    assert len(emptied(spare)) == 1
    assert Code.NEEDED_FOR_DEMAND in stays(spare).values()
    # one that cannot sleep is on, empty or not
    awake = night(
        [host("h1"), host("h2"), host("h3")],
        [vm("a", "h1"), vm("b", "h2", 2)],
        power=replace(ALONE, hosts_on_min=2),
        no_sleep=no(Code.NO_POWER_CONTROL, "h3"),
    )
    assert len(emptied(consolidate(awake))) == 1


def given_gib(name: str, on: str, gib: float, **changes):
    """A VM that was given that much and uses one GiB and hardly any CPU."""
    return vm(name, on, 0.1, 1.0, facts={"memory_bytes": int(gib * GIB)}, **changes)


def folded(hosts, vms, **changes) -> tuple[PlanInputs, Plan]:
    inputs = night(hosts, vms, settings=PlanSettings(n_plus_one="memory", max_moves=20), **changes)
    return inputs, consolidate(inputs)


def test_the_last_host_is_never_folded_onto_where_n_plus_one_is_asked_for() -> None:
    hosts, guests = [host("h1"), host("h2"), host("h3")], [given_gib(n, f"h{i}", 8) for i, n in enumerate("abc", 1)]
    inputs, plan = folded(hosts, guests)

    assert len(emptied(plan)) == 1
    assert stays(plan) == {"h2": Code.NEEDED, "h3": Code.N_PLUS_ONE}
    assert any(r.detail.startswith("h3 stays on: h2 could not die afterwards") for r in plan.refusals)
    assert violations(inputs, plan) == []
    assert consolidate(carried_out(inputs, plan)).steps == ()
    assert len(emptied(consolidate(replace(inputs, settings=PlanSettings())))) == 2


def test_hosts_that_are_empty_already_are_no_room_unless_they_cannot_sleep() -> None:
    """h3 is empty: with it a and b could both stand on one host, which may then die."""
    hosts, guests = [host("h1"), host("h2"), host("h3")], [given_gib("a", "h1", 20), given_gib("b", "h2", 20)]

    assert folded(hosts, guests)[1].steps == ()
    assert folded(hosts, guests, no_sleep=no(Code.POWER_UNTESTED, "h3"))[1].steps == ()
    assert emptied(folded(hosts, guests, no_sleep=no(Code.NO_POWER_CONTROL, "h3"))[1]) == ["h1"]


def test_a_cluster_that_could_not_lose_a_host_is_still_folded_as_far_as_it_gets_no_worse() -> None:
    """Nobody but h1 has room for the large one, whoever is on; the two others need each other."""
    guests = [given_gib("big", "h1", 60), *(given_gib(f"v{i}", f"h{i}", 8) for i in (2, 3, 4))]
    hosts = [host("h1"), *(host(f"h{i}", memory_gib=48) for i in (2, 3, 4))]
    plan = folded(hosts, guests)[1]

    assert len(emptied(plan)) == 1
    assert Code.N_PLUS_ONE in stays(plan).values()


def fits(needs: list[tuple[float, frozenset[str]]], room: dict[str, float], groups: dict[str, frozenset[str]]) -> bool:
    """Whether VMs (GiB, anti-affinity groups) fit into that room, all ways tried."""
    if not needs:
        return True
    (gib, group), rest = needs[0], needs[1:]
    for name, free in room.items():
        if gib <= free and not group & groups[name]:
            more = {**groups, name: groups[name] | group}
            if fits(rest, {**room, name: free - gib}, more):
                return True
    return False


def survives(where: dict[str, str], sizes: dict[str, float], apart: dict[str, frozenset[str]], dead: str, on) -> bool:
    """Whether the VMs of a dead host find room on the others that are on, of 64 GiB each."""
    others = sorted(set(on) - {dead})
    room = {h: 64.0 - sum(sizes[v] for v, at in where.items() if at == h) for h in others}
    groups = {h: frozenset().union(*(apart[v] for v, at in where.items() if at == h)) for h in others}
    return fits([(sizes[v], apart[v]) for v, at in where.items() if at == dead], room, groups)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 30), st.booleans()), min_size=2, max_size=9),
    st.sets(st.integers(0, 4)),
)
@settings(max_examples=100, deadline=None)
def test_folding_never_leaves_a_host_on_that_could_die_before_and_cannot_now(guests, awake) -> None:
    """Held against all ways of packing: what stays on, without the empty ones that may sleep, survives any one death."""
    hosts = [host(f"h{i}") for i in range(5)]
    left, made, apart, sizes = [64.0] * 5, [], {}, {}
    for number, (h, gib, grouped) in enumerate(guests):
        if left[h] >= gib:
            left[h] -= gib
            name, group = f"v{number}", frozenset({"g"} if grouped else ())
            apart[name], sizes[name] = group, float(gib)
            made.append(given_gib(name, f"h{h}", gib, policy=VmPolicy(anti_affinity=group)))
    inputs, plan = folded(hosts, made, no_sleep=no(Code.POWER_FAULT, *(f"h{i}" for i in awake)))
    before = {v.name: v.host for v in made}
    after = before | {s.move.vm_name: s.move.destination for s in plan.steps}
    everyone = [h.name for h in hosts]
    on = set(after.values()) | {f"h{i}" for i in awake}
    assert violations(inputs, plan) == []
    for h in sorted(set(after.values())):
        if plan.steps and survives(before, sizes, apart, h, everyone):
            assert survives(after, sizes, apart, h, on), f"{h} could die before: {before} -> {after}"
