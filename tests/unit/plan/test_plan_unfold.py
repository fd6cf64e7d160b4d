"""The way back after a night: to the evening's hosts, under every constraint, whatever the moves cost."""

from dataclasses import replace

from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code, about_host, about_vm
from rebalancerd.plan.decide import decide
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings
from tests.bench.planner_checker_plan import violations
from tests.unit.plan.plan_cluster import carried_out, host, inputs_of, vm

CALM = 0.5
HOMES = {"u-v21": "h2", "u-v22": "h2", "u-v31": "h3"}


def folded(**changes: object) -> PlanInputs:
    """All VMs on h1; v21 and v22 were on h2 in the evening, v31 on h3, v11 never moved."""
    hosts = [host(f"h{n}", 8.0) for n in (1, 2, 3)]
    vms = [vm(name, "h1", CALM) for name in ("v11", "v21", "v22", "v31")]
    return inputs_of(hosts, vms, **{"homes": HOMES, **changes})


def moves(inputs: PlanInputs) -> dict[str, str]:
    return {s.move.vm_uuid: s.move.destination for s in decide(inputs).steps}


def test_everybody_goes_home_and_then_nothing_is_left_to_do() -> None:
    inputs = folded()
    plan = decide(inputs)

    assert plan.policy == "unfold"
    assert moves(inputs) == HOMES
    assert violations(inputs, plan) == []
    assert "3 of 3 VMs go back" in plan.why
    assert all("where it was before the night" in s.move.why for s in plan.steps)
    assert decide(carried_out(inputs, plan)).steps == ()


def test_without_homes_a_folded_cluster_that_is_not_hot_stays_as_it_is() -> None:
    assert moves(folded(homes={})) == {}


def test_the_move_that_folding_made_may_be_undone() -> None:
    tabu = {("u-v31", "h3"): about_vm(Code.REVERSE_MOVE, "u-v31", "left h3 an hour ago", "h3")}
    refused = {("u-v31", "h3"): about_vm(Code.CPU_MODEL, "u-v31", "libvirt refused", "h3")}

    assert "u-v31" in moves(folded(blocked_pairs=tabu))
    assert "u-v31" not in moves(folded(blocked_pairs=refused))


def test_a_home_that_takes_nothing_in_is_waited_for() -> None:
    inputs = folded()
    hosts = tuple(replace(h, mode=HostMode.NO_INBOUND) if h.name == "h2" else h for h in inputs.snapshot.hosts)
    closed = replace(inputs, snapshot=replace(inputs.snapshot, hosts=hosts))
    blocked = folded(blocked_hosts={"h2": about_host(Code.QUARANTINED, "h2", "it flaps")})

    assert moves(closed) == moves(blocked) == {"u-v31": "h3"}


def test_a_home_that_has_no_room_any_more_is_no_home() -> None:
    hosts = [host("h1", 8.0), host("h2", 8.0)]
    vms = [vm("v11", "h1", CALM), vm("v21", "h1", 2.0), vm("v22", "h2", 5.0)]
    plan = decide(inputs_of(hosts, vms, homes={"u-v21": "h2"}))

    assert plan.steps == ()


def test_a_hot_host_comes_first_and_plans_are_bounded() -> None:
    hosts = [host("h1", 4.0), host("h2", 8.0), host("h3", 8.0)]
    vms = [vm("v11", "h1", 2.0), vm("v21", "h1", 2.0)]
    hot = decide(inputs_of(hosts, vms, homes={"u-v21": "h3"}))

    assert hot.policy == "balance" and hot.steps
    assert len(decide(folded(settings=PlanSettings(max_moves=2))).steps) == 2
