"""Contradictions are named in every plan, and the rest is planned as if they were not there."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.policy import HostMode, VmPolicy
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.balance import balance
from rebalancerd.plan.contradictions import contradictions
from rebalancerd.plan.decide import decide
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.why_not import why_not
from tests.unit.plan.plan_cluster import host, inputs_of, vm

HOSTS = (host("h1"), host("h2"), host("h3"))


def rules(**policy: object) -> VmPolicy:
    return VmPolicy(**{k: frozenset(v) for k, v in policy.items()})  # type: ignore[arg-type]


def ruled(name: str, on: str, **policy: object) -> Vm:
    return vm(name, on, policy=rules(**policy))


def told(inputs: PlanInputs) -> list[tuple[Code, str, str]]:
    return [(r.code, r.subject, r.detail) for r in contradictions(PlacementState(inputs))]


CASES = {
    "pin avoided": (
        (ruled("a", "h1", pin={"h2"}, avoid={"h2"}),),
        (Code.CONTRADICTION, "u-a", "a is pinned to h2, which it is to avoid"),
    ),
    "unknown pin": (
        (ruled("a", "h1", pin={"nowhere"}),),
        (Code.UNKNOWN_NAME, "u-a", "a is pinned to nowhere: there is no such host"),
    ),
    "unknown avoid and prefer": (
        (ruled("a", "h1", avoid={"x"}, prefer={"y"}),),
        (
            Code.UNKNOWN_NAME,
            "u-a",
            "a is to avoid x: there is no such host; a is to prefer y: there is no such host",
        ),
    ),
    "pinned apart, bound together": (
        (ruled("a", "h1", pin={"h1"}, affinity={"g"}), ruled("b", "h2", pin={"h2"}, affinity={"g"})),
        (Code.CONTRADICTION, "cluster", "a, b are to stay together, but no host may have all: a on h1, b on h2"),
    ),
    "more rivals than hosts": (
        tuple(ruled(f"v{i}", "h1", anti_affinity={"db"}) for i in range(4)),
        (Code.CONTRADICTION, "cluster", "group db is to be spread over hosts, but has 4 VMs for 3 hosts"),
    ),
    "pinned beside a rival": (
        (
            ruled("a", "h1", pin={"h2"}, anti_affinity={"db"}),
            replace(
                ruled("b", "h2", anti_affinity={"db"}),
                facts=replace(vm("b", "h2").facts, immovable=("passthrough",)),
            ),
        ),
        (Code.CONTRADICTION, "u-a", "a is pinned to h2, where group db forbids it: b must be there"),
    ),
    "too many vCPUs": (
        (vm("a", "h1", facts={"vcpus": 64}),),
        (Code.NO_CAPACITY, "u-a", "a has 64 vCPUs, the largest host 16 CPUs"),
    ),
    "too much memory": (
        (vm("a", "h1", facts={"memory_bytes": 128 * 2**30}),),
        (Code.NO_CAPACITY, "u-a", "a has 128.0 GiB of memory, the largest host 64.0 GiB for guests"),
    ),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_contradiction_is_named(case: str) -> None:
    vms, expected = CASES[case]

    assert told(inputs_of(HOSTS, vms)) == [expected]


def test_together_and_apart_is_told_of_each() -> None:
    pair = [ruled(n, "h1", affinity={"t"}, anti_affinity={"r"}) for n in "ab"]

    assert told(inputs_of(HOSTS, pair)) == [
        (Code.CONTRADICTION, "u-a", "a and b are to stay together and, by group r, apart"),
        (Code.CONTRADICTION, "u-b", "b and a are to stay together and, by group r, apart"),
    ]


@pytest.mark.parametrize("mode", [HostMode.OBSERVE, HostMode.DRAIN, HostMode.NO_INBOUND, HostMode.QUARANTINED])
def test_a_pin_to_a_host_that_takes_nothing_in(mode: HostMode) -> None:
    hosts = (HOSTS[0], host("h2", mode=mode))
    there, elsewhere = ruled("a", "h2", pin={"h2"}), ruled("b", "h1", pin={"h2"})

    assert told(inputs_of(hosts, (there, elsewhere))) == [
        (Code.CONTRADICTION, "u-b", f"b is pinned to h2, in mode {mode.value}")
    ]


def test_a_host_without_capacity_is_named_and_the_rest_is_planned() -> None:
    hosts = (host("h1", 8), host("h2", 8), host("h3", 8, reserved_cores=8.0))
    plan = balance(inputs_of(hosts, (vm("a", "h1", 4.0), vm("b", "h1", 4.0))))

    assert [(s.move.source, s.move.destination) for s in plan.steps] == [("h1", "h2")]
    assert [(r.code, r.subject, r.detail) for r in plan.refusals] == [
        (Code.NO_CAPACITY, "h3", "h3 has no CPU for guests: all of it is reserved")
    ]


def test_a_host_whose_figures_are_a_fault_is_not_called_empty() -> None:
    assert told(inputs_of((HOSTS[0], host("h2", cores=0.0, unusable="has no CPUs")), ())) == []


def test_nothing_is_said_of_sizes_while_a_host_is_unknown() -> None:
    assert told(inputs_of((HOSTS[0], host("h2", facts=None, memory_bytes=None)), (CASES["too many vCPUs"][0]))) == []


def test_many_are_counted_and_the_first_named() -> None:
    vms = [ruled(f"v{i:02}", "h1", pin={"z"}) for i in range(12)]
    (refusal,) = contradictions(PlacementState(inputs_of(HOSTS, vms)))

    assert (refusal.code, refusal.subject, refusal.count) == (Code.UNKNOWN_NAME, "cluster", 12)
    assert refusal.detail.startswith("v00 is pinned to z: there is no such host, ")
    assert refusal.detail.endswith(" and 8 more")


def test_rules_that_can_be_kept_are_no_contradiction() -> None:
    vms = (
        ruled("a", "h1", pin={"h1", "h2"}, avoid={"h2"}, affinity={"g"}, anti_affinity={"r"}),
        ruled("b", "h1", affinity={"g"}, prefer={"h3"}),
        ruled("c", "h2", pin={"h2"}, anti_affinity={"r"}),
        ruled("d", "h3", anti_affinity={"r"}),
    )

    assert told(inputs_of(HOSTS, vms)) == []


def test_every_plan_and_every_answer_about_the_vm_names_them() -> None:
    inputs = inputs_of(HOSTS, CASES["pin avoided"][0])

    for drained in (frozenset[str](), frozenset({"h1"})):
        assert Code.CONTRADICTION in [r.code for r in decide(replace(inputs, drained=drained)).refusals]
    assert Code.CONTRADICTION in [r.code for r in why_not(inputs, "u-a")]
