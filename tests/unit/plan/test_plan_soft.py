"""Wishes choose among destinations; they neither start a move nor forbid one."""

import numpy as np

from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import VmPolicy
from rebalancerd.cluster.units import GIB
from rebalancerd.plan.balance import balance
from rebalancerd.plan.drain import drain
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.soft import penalty
from rebalancerd.plan.state import PlacementState
from tests.unit.plan.plan_cluster import host, inputs_of, vm

HOSTS = (host("h1", 8), host("h2", 8), host("h3", 8), host("h4", 8))


def wish(**policy: object) -> VmPolicy:
    return VmPolicy(**{k: frozenset(v) for k, v in policy.items()})  # type: ignore[arg-type]


def planned(policy: VmPolicy, *others: object, hosts: object = HOSTS, **settings: float) -> Plan:
    """One VM must leave h1; by balance alone it goes to h2, the first of the idle hosts."""
    vms = (vm("a", "h1", 4.0, policy=policy), vm("rest", "h1", 4.0, policy=VmPolicy(pin=frozenset({"h1"}))), *others)
    return balance(inputs_of(hosts, vms, settings=PlanSettings(**settings)))  # type: ignore[arg-type]


def to(plan: Plan) -> list[tuple[str, str]]:
    return [(s.move.vm_name, s.move.destination) for s in plan.steps]


def test_without_a_wish_the_first_of_equal_hosts_is_taken() -> None:
    assert to(planned(VmPolicy())) == [("a", "h2")]


def test_a_preferred_host_is_taken_where_all_else_is_equal() -> None:
    plan = planned(wish(prefer={"h4"}))

    assert to(plan) == [("a", "h4")]
    assert "wishes" not in plan.steps[0].move.why


def test_a_wish_that_cannot_be_granted_is_told_and_blocks_no_relief() -> None:
    plan = planned(wish(prefer={"h9", "h1"}), weight_soft=1e9)

    assert to(plan) == [("a", "h2")]
    assert plan.steps[0].move.why.endswith("against the wishes: a prefers h1, h9")


def test_soft_groups_draw_together_and_apart() -> None:
    friend = vm("b", "h3", 0.01, policy=wish(soft_affinity={"app"}))
    rival = vm("c", "h2", 0.01, policy=wish(soft_anti_affinity={"db"}))

    assert to(planned(wish(soft_affinity={"app"}), friend, weight_soft=1000.0)) == [("a", "h3")]
    assert to(planned(wish(soft_anti_affinity={"db"}), rival)) == [("a", "h3")]


def test_the_weight_says_how_much_imbalance_a_wish_is_worth() -> None:
    busy = vm("b", "h4", 2.0)
    policy = wish(prefer={"h4"})

    assert to(planned(policy, busy, weight_soft=1.0)) == [("a", "h2")]
    assert to(planned(policy, busy, weight_soft=1000.0)) == [("a", "h4")]


def test_wishes_alone_start_nothing() -> None:
    vms = (vm("a", "h1", 1.0, policy=wish(prefer={"h4"})), vm("b", "h1", 1.0))

    assert balance(inputs_of(HOSTS, vms, settings=PlanSettings(weight_soft=1e9))).is_empty


def test_a_drain_heeds_wishes() -> None:
    plan = drain(inputs_of(HOSTS, (vm("a", "h1", 1.0, policy=wish(prefer={"h3"})),)), ["h1"])

    assert to(plan) == [("a", "h3")]


def test_the_penalty_counts_every_broken_wish_of_a_unit() -> None:
    policy = wish(prefer={"h2"}, soft_anti_affinity={"db"}, soft_affinity={"app"})
    vms = (
        vm("a", "h1", policy=policy),
        vm("b", "h2", policy=wish(soft_anti_affinity={"db"})),
        vm("c", "h3", policy=wish(soft_affinity={"app"})),
    )
    state = PlacementState(inputs_of(HOSTS, vms, settings=PlanSettings(weight_soft=2.0)))

    assert penalty(state, (0,), np.arange(4)).tolist() == [4.0, 4.0, 2.0, 4.0]
    assert penalty(state, (0, 2), np.array([1])).tolist() == [2.0]


def test_what_a_wish_chooses_is_judged_itself() -> None:
    """The preferred host has the cores but has granted its memory; the next one is asked anew and taken."""
    full = vm("b", "h4", 0.01, 1.0, facts={"memory_bytes": 63 * GIB})

    assert to(planned(wish(prefer={"h4"}), full, weight_soft=1e9)) == [("a", "h2")]
