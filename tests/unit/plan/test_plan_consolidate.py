"""The consolidate policy: which hosts are emptied, in what sequence, and why the others stay on."""

from dataclasses import replace

import numpy as np
import pytest

from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import HostMode, VmPolicy
from rebalancerd.cluster.refusal import Code, about_host, about_vm
from rebalancerd.cluster.snapshot import InFlight
from rebalancerd.cluster.vm import DomainState
from rebalancerd.plan.consolidate import consolidate
from rebalancerd.plan.decide import decide
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.order import Placed, order
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.why_not import why_not, why_not_host
from tests.bench.planner_checker_plan import violations
from tests.unit.plan.plan_cluster import FixedCosts, carried_out, cost_of, host, inputs_of, vm

HOURS_6 = 6 * 3600.0


def night(hosts, vms, **changes) -> PlanInputs:
    changes.setdefault("window_seconds", HOURS_6)
    return inputs_of(hosts, vms, **changes)


def three(**changes) -> PlanInputs:
    guests = [vm("a", "h1", 1), vm("b", "h2", 2), vm("c", "h3", 3)]
    return night([host("h1"), host("h2"), host("h3")], guests, **changes)


def moves(plan: Plan) -> list[tuple[str, str, str]]:
    return [(s.move.vm_name, s.move.source, s.move.destination) for s in plan.steps]


def stays(plan: Plan) -> dict[str, Code]:
    return {r.subject: r.code for r in plan.refusals}


def test_three_hosts_fold_onto_one():
    inputs = three()
    plan = consolidate(inputs)

    assert moves(plan) == [("a", "h1", "h3"), ("b", "h2", "h3")]
    assert (plan.before.hosts, plan.after.hosts) == (3, 1)
    assert plan.policy == "consolidate"
    assert "emptying h1, h2" in plan.why
    assert "kWh" in plan.why
    assert violations(inputs, plan) == []
    assert consolidate(carried_out(inputs, plan)).steps == ()


def test_the_policy_of_the_settings_and_of_the_inputs_decides():
    settings = PlanSettings(policy="consolidate")

    assert decide(three()).policy == "balance"
    assert decide(three(settings=settings)).policy == "consolidate"
    assert decide(three(policy="consolidate")).policy == "consolidate"
    assert decide(three(settings=settings, policy="balance")).policy == "balance"


def test_at_least_so_many_hosts_keep_vms():
    plan = consolidate(three(settings=PlanSettings(consolidate_hosts_min=2)))

    assert plan.after.hosts == 2
    assert stays(plan) == {"h2": Code.HOSTS_MIN, "h3": Code.HOSTS_MIN}
    assert "at least 2 hosts stay on" in plan.refusals[0].detail


def test_emptying_is_all_or_nothing():
    """One VM of h1 is pinned there: its others stay too, and the reason names it."""
    guests = [
        vm("a", "h1"),
        vm("p", "h1", policy=VmPolicy(pin=frozenset({"h1"}))),
        vm("b", "h2", 2),
        vm("d", "h3", 4),
    ]
    plan = consolidate(night([host("h1"), host("h2"), host("h3")], guests))

    assert all(source != "h1" for _, source, _ in moves(plan))
    assert stays(plan)["h1"] is Code.PINNED


@pytest.mark.parametrize(
    ("guest", "code"),
    [
        (vm("p", "h1", state=DomainState.SHUTOFF), Code.VM_NOT_RUNNING),
        (vm("p", "h1", busy="backup"), Code.VM_BUSY),
        (vm("p", "h1", cores=None), Code.VM_LOAD_UNKNOWN),
        (vm("p", "h1", 11.0), Code.NEEDED),
    ],
)
def test_a_host_with_a_vm_that_cannot_go_is_not_begun(guest, code):
    guests = [vm("a", "h1"), guest, vm("b", "h2", 2)]
    plan = consolidate(night([host("h1"), host("h2")], guests, settings=PlanSettings(consolidate_hosts_min=1)))

    assert all(source != "h1" for _, source, _ in moves(plan))
    if not plan.steps:
        assert stays(plan)["h1"] is code


def test_a_resting_vm_keeps_its_host_on():
    rest = {"u-a": about_vm(Code.COOLDOWN, "u-a", "moved 3 min ago")}
    plan = consolidate(three(resting_vms=rest))

    assert stays(plan)["h1"] is Code.COOLDOWN
    assert moves(plan) == [("b", "h2", "h1"), ("c", "h3", "h1")]


def test_the_whole_window_counts_not_the_moment():
    """Each VM is small now and large in the last step of its forecast: two of them do not fit on one host."""
    guests = [vm("a", "h1", 1), vm("b", "h2", 1)]
    large = {v.uuid: [1.0, 1.0, 9.0] * 4 for v in guests}
    plan = consolidate(night([host("h1"), host("h2")], guests, rows=large))

    assert plan.steps == ()
    assert stays(plan)["h1"] is Code.NO_DESTINATION
    assert "without CPU" in plan.refusals[0].detail


def test_peaks_at_different_times_share_a_host():
    guests = [vm("a", "h1", 1), vm("b", "h2", 1)]
    early, late = [9.0, 1.0, 1.0] * 4, [1.0, 1.0, 9.0] * 4
    plan = consolidate(night([host("h1"), host("h2")], guests, rows={"u-a": early, "u-b": late}))

    assert len(plan.steps) == 1


def test_receivers_stay_below_the_consolidation_headroom():
    guests = [vm("a", "h1", 6), vm("b", "h2", 6)]
    hosts = [host("h1"), host("h2")]

    assert consolidate(night(hosts, guests, settings=PlanSettings(consolidate_cpu_headroom=0.7))).steps == ()
    assert len(consolidate(night(hosts, guests, settings=PlanSettings(consolidate_cpu_headroom=0.76))).steps) == 1


def test_efficient_hosts_are_kept():
    """h3 holds most and draws most per core: it is emptied first all the same."""
    hosts = [host("h1", idle_watts=80.0), host("h2", idle_watts=90.0), host("h3", idle_watts=160.0)]
    guests = [vm("a", "h1", 1, 2), vm("b", "h2", 1, 2), vm("c", "h3", 3, 8)]
    plan = consolidate(night(hosts, guests))

    assert moves(plan) == [("c", "h3", "h1"), ("b", "h2", "h1")]


def test_what_does_not_pay_back_is_left_on():
    slow, dear = PlanSettings(payback_max_seconds=500.0), FixedCosts(default=cost_of(seconds=500.0))

    assert set(stays(consolidate(three(settings=slow))).values()) == {Code.PAYBACK_TOO_LONG}
    assert set(stays(consolidate(three(window_seconds=605.0))).values()) == {Code.GAIN_TOO_SMALL}
    assert consolidate(three(costs=dear)).steps
    assert set(stays(consolidate(three(costs=dear, window_seconds=1100.0))).values()) == {Code.GAIN_TOO_SMALL}


def test_a_vm_that_does_not_converge_keeps_its_host_on():
    plan = consolidate(three(costs=FixedCosts({"u-a": cost_of(risk=0.9)})))

    assert stays(plan)["h1"] is Code.WILL_NOT_CONVERGE
    assert {m[1] for m in moves(plan)} == {"h2", "h3"}


def test_hosts_are_emptied_one_after_another_and_a_plan_goes_on_where_it_was_left():
    hosts = [host(f"h{i}") for i in range(1, 5)]
    guests = [vm(f"v{i}{j}", f"h{i}", 0.5, 1 + i) for i in range(1, 5) for j in range(3)]
    inputs = night(hosts, guests, settings=PlanSettings(max_moves=20))
    whole = consolidate(inputs)
    sources = [source for _, source, _ in moves(whole)]

    assert sources == sorted(sources)
    assert len(set(sources)) == 3
    now, made = replace(inputs, settings=PlanSettings(max_moves=2)), []
    while (plan := consolidate(now)).steps:
        assert violations(now, plan) == []
        made += moves(plan)
        now = carried_out(now, plan)
    assert [m[1] for m in made] == sources
    begun = consolidate(replace(inputs, settings=PlanSettings(max_moves=2)))
    assert "1 more moves are left to the next plan" in begun.steps[0].move.why
    assert begun.after.total < begun.before.total


def test_a_host_that_is_being_emptied_is_first():
    guests = [vm("a", "h1", 1, 2), vm("b", "h2", 1, 8), vm("b2", "h2", 1, 8), vm("c", "h3", 1, 30)]
    flight = InFlight(vm_uuid="u-b", source="h2", destination="h3", ours=True)
    hosts = [host("h1"), host("h2"), host("h3")]
    plan = consolidate(night(hosts, guests, snapshot={"in_flight": (flight,)}))

    assert plan.steps[0].move.source == "h2"


def test_hot_hosts_are_relieved_first_and_onto_hosts_that_are_on():
    guests = [vm(f"a{i}", "h1", 3) for i in range(5)] + [vm("b", "h2", 2)]
    inputs = night([host("h1"), host("h2"), host("h3")], guests)
    plan = consolidate(inputs)

    assert moves(plan)[0][1:] == ("h1", "h2")
    assert plan.after.hosts == 2
    assert "relieving h1" in plan.why
    assert violations(inputs, plan) == []


def test_an_empty_host_is_opened_where_nothing_else_relieves():
    guests = [vm(f"a{i}", "h1", 3) for i in range(5)] + [vm("b", "h2", 12)]
    plan = consolidate(night([host("h1"), host("h2"), host("h3")], guests))

    assert {destination for _, _, destination in moves(plan)} == {"h3"}
    assert plan.after.hosts == 3


def test_room_is_made_by_one_vm_moving_on():
    """x fits nowhere until s moves on to h3."""
    guests = [vm("x", "h1", 5, 2), vm("s", "h2", 3, 20), vm("t", "h2", 5, 20), vm("u", "h3", 8, 30)]
    inputs = night([host("h1"), host("h2"), host("h3")], guests)
    plan = consolidate(inputs)

    assert moves(plan) == [("s", "h2", "h3"), ("x", "h1", "h2")]
    assert "to make room there" in plan.steps[0].move.why
    assert violations(inputs, plan) == []


def test_hosts_that_cannot_take_part_stay_as_they_are():
    hosts = [host("h1", mode=HostMode.OBSERVE), host("h2"), host("h3", unusable="stale for 90 s"), host("h4")]
    guests = [vm(f"v{i}", f"h{i}", i) for i in range(1, 5)]
    plan = consolidate(night(hosts, guests))

    assert moves(plan) == [("v2", "h2", "h4")]
    assert {h: stays(plan)[h] for h in ("h1", "h3")} == {"h1": Code.HOST_STALE, "h3": Code.HOST_STALE}


def test_a_reserve_can_keep_a_host_on():
    def two_stay(state, on):
        return about_host(Code.NEEDED, "cluster", "no host may die then") if len(on) < 2 else None

    plan = consolidate(three(), reserves=(two_stay,))

    assert plan.after.hosts == 2
    assert any("no host may die then" in r.detail for r in plan.refusals)


def test_affinity_groups_go_together_and_anti_affinity_keeps_apart():
    near, far = frozenset({"near"}), frozenset({"far"})
    guests = [
        vm("a", "h1", policy=VmPolicy(affinity=near)),
        vm("b", "h1", policy=VmPolicy(affinity=near)),
        vm("c", "h2", 2, policy=VmPolicy(anti_affinity=far)),
        vm("d", "h3", 3, policy=VmPolicy(anti_affinity=far)),
    ]
    inputs = night([host("h1"), host("h2"), host("h3")], guests)
    plan = consolidate(inputs)

    assert plan.after.hosts == 2
    assert violations(inputs, plan) == []
    assert Code.ANTI_AFFINITY in stays(plan).values()


def test_gains_of_moves_add_up_to_that_of_the_plan():
    plan = consolidate(three())

    assert sum(s.move.gain for s in plan.steps) == pytest.approx(plan.before.total - plan.after.total)
    assert all(s.move.payback_seconds for s in plan.steps)


def test_a_frozen_cluster_is_left_alone():
    plan = consolidate(three(snapshot={"frozen": "half the VMs jumped to zero"}))

    assert plan.steps == ()
    assert plan.refusals[0].code is Code.TELEMETRY_INSANE


def test_many_hosts_fold_near_to_the_bound():
    rng = np.random.default_rng(7)
    hosts = [host(f"h{i:02}") for i in range(40)]
    guests = [
        vm(f"v{i:03}", f"h{i % 40:02}", float(rng.uniform(0.1, 2)), float(rng.choice([1, 2, 4]))) for i in range(160)
    ]
    settings = PlanSettings(max_moves=500, per_cluster=8, out_per_host=4, in_per_host=4)
    inputs = night(hosts, guests, settings=settings)
    plan = consolidate(inputs)
    fluid = int(np.ceil(sum(v.load.cpu_cores or 0 for v in guests) / (16 * 0.7)))

    assert plan.after.hosts <= fluid + 1
    assert violations(inputs, plan) == []


def test_a_vm_asked_about_is_told_what_keeps_its_host_on():
    guests = [vm("a", "h1", 2), vm("p", "h1", policy=VmPolicy(pin=frozenset({"h1"}))), vm("b", "h2", 1)]
    inputs = night([host("h1"), host("h2")], guests, policy="consolidate")

    assert why_not(inputs, "u-b") == ()
    assert why_not_host(inputs, "h2") == ()
    assert [r.code for r in why_not_host(inputs, "h1")] == [Code.HOSTS_MIN]
    assert next(r for r in why_not(inputs, "u-a")).code is Code.HOSTS_MIN
    assert why_not(replace(inputs, policy="balance"), "u-a")[0].code is Code.BALANCED


def test_the_plan_says_how_much_of_the_window_is_forecast():
    assert "(the forecast covers 30 min of it)" in consolidate(three()).steps[0].move.why
    assert "the forecast covers" not in consolidate(three(window_seconds=1800.0)).steps[0].move.why


def test_relief_opens_as_few_empty_hosts_as_it_needs_and_the_efficient_ones():
    """Three hot hosts could each open an empty host of its own; one takes all that is too much."""
    hosts = [
        *(host(f"h{i}", idle_watts=100.0) for i in range(3)),
        *(host(f"e{i}", idle_watts=120.0) for i in range(3)),
        host("f", idle_watts=90.0),
    ]
    guests = [vm(f"v{i}{j}", f"h{i}", 3) for i in range(3) for j in range(5)]
    settings = PlanSettings(consolidate_hosts_min=3, max_moves=20)
    inputs = night(hosts, guests, settings=settings)
    plan = consolidate(inputs)

    assert [destination for _, _, destination in moves(plan)] == ["f"] * 3
    assert plan.after.hosts == 4
    assert violations(inputs, plan) == []


def test_a_host_that_came_back_is_filled_at_once_while_consolidating():
    guests = [vm(f"v{i}", "h1", 1) for i in range(15)]
    hosts = [host("h1"), host("h2"), host("h3")]
    plan = consolidate(night(hosts, guests, returned={"h2": 0.0, "h3": 0.0}))

    assert {destination for _, _, destination in moves(plan)} == {"h2"}
    assert len(plan.steps) > 1


def test_small_plans_never_undo_each_other():
    """One move a plan: what is begun is gone on with, or not begun."""
    guests = [vm("x", "h1", 5, 2), vm("s", "h2", 3, 20), vm("t", "h2", 5, 20), vm("u", "h3", 8, 30)]
    now = night([host("h1"), host("h2"), host("h3")], guests, settings=PlanSettings(max_moves=1))
    made = []
    for _ in range(6):
        plan = consolidate(now)
        made += moves(plan)
        assert violations(now, plan) == []
        now = carried_out(now, plan)

    assert consolidate(now).steps == ()
    assert len({name for name, _, _ in made}) == len(made)


def test_moves_in_sequence_wait_for_those_before_them_and_bundles_stay_whole():
    guests = [vm("a", "h1", 1), vm("b", "h1", 1), vm("c", "h2", 1), vm("huge", "h2", 2, 63)]
    state = PlacementState(inputs_of([host("h1"), host("h2", memory_gib=80), host("h3"), host("h4")], guests))
    moves_ = [Placed(0, 2, 0), Placed(1, 2, 1), Placed(2, 3, 2)]
    free, kept = order(state, moves_), order(state, moves_, in_sequence=True)

    assert free.waves == ((0, 2), (1,))
    assert kept.waves == ((0,), (1, 2))
    stuck = order(state, [Placed(2, 3, 0, -2), Placed(3, 0, 1, -2), Placed(0, 3, 2)], in_sequence=True)
    assert sorted(stuck.dropped) == [0, 1]
    assert stuck.waves == ((2,),)
