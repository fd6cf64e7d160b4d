"""The balance planner on clusters small enough to work out by hand."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.cost import Estimate
from rebalancerd.cluster.policy import HostMode, VmPolicy
from rebalancerd.cluster.refusal import Code, about_vm
from rebalancerd.cluster.scenarios import Hotspot
from rebalancerd.cluster.snapshot import InFlight
from rebalancerd.plan.balance import balance
from rebalancerd.plan.settings import PlanSettings
from tests.bench.planner_checker_plan import violations
from tests.unit.plan.plan_cluster import FixedCosts, cost_of, host, inputs_of, vm


def hot_pair(**changes):
    """h1 with 15 of 16 cores used by four guests, h2 with 2 of 16."""
    guests = [vm(f"a{i}", "h1", 4.0) for i in range(3)] + [vm("a3", "h1", 3.0), vm("b", "h2", 2.0)]
    return inputs_of([host("h1"), host("h2")], guests, **changes)


def codes(plan):
    return {r.code for r in plan.refusals}


def test_hot_host_is_relieved_by_the_fewest_moves():
    """15 of 16 cores used: one guest of 4 brings it below 80 %."""
    inputs = hot_pair()
    plan = balance(inputs)

    assert [(s.move.vm_name, s.move.source, s.move.destination) for s in plan.steps] == [("a0", "h1", "h2")]
    assert violations(inputs, plan) == []


def test_the_plan_says_what_when_and_what_else_was_possible():
    plan = balance(hot_pair())
    move = plan.steps[0].move

    assert "h1 is at 94 % CPU (headroom 80 %), p95 94 % within 30 min" in plan.why
    assert "moving a0 to h2; then h1 is at 69 % CPU" in plan.why
    assert "relieves 5280 core-s of 5280 unmet" in move.why
    assert move.payback_seconds is not None
    assert move.payback_seconds < 20
    assert len(move.alternatives) == 3
    assert all(a.score >= plan.after.total - 1e-6 and a.reason for a in move.alternatives)
    assert dict(move.facts)["vm.host"] == "h1"


def test_the_score_is_core_seconds_above_headroom():
    """(15 − 0.8·16) cores over three steps of 600 s, and now as one more."""
    plan = balance(hot_pair())

    assert plan.before.unmet == pytest.approx(2.2 * 4 * 600)
    assert plan.after.unmet == 0
    assert plan.after.cost == pytest.approx((10 * 0.1 + 0.05) * 4.0 + 10 * 0.5)
    assert plan.before.total - plan.after.total == pytest.approx(plan.steps[0].move.gain)


def test_identity_expiry_and_basis_come_from_the_inputs():
    plan = balance(hot_pair())

    assert (plan.id, plan.policy, plan.basis) == ("p1", "balance", "persistence")
    assert (plan.created_at, plan.expires_at) == (1000.0, 1300.0)
    assert plan.hot_hosts == ("h1",)


def test_balanced_cluster_is_left_alone():
    plan = balance(inputs_of([host("h1"), host("h2")], [vm("a", "h1", 6.0), vm("b", "h2", 1.0)]))

    assert plan.is_empty
    assert codes(plan) == {Code.BALANCED}
    assert plan.before == plan.after
    assert "h1 is at 38 % CPU" in plan.why


def test_imbalance_alone_never_starts_a_move():
    """12 guests on one host, none on the other: uneven, but below headroom. Nothing is churned."""
    guests = [vm(f"a{i:02}", "h1", 1.0) for i in range(12)]

    assert balance(inputs_of([host("h1"), host("h2")], guests)).is_empty


def test_a_lone_vm_does_not_circle_empty_hosts():
    """Moving the only guest of a hot host makes another host exactly as hot."""
    plan = balance(inputs_of([host("h1", 4), host("h2", 4), host("h3", 4)], [vm("a", "h1", 3.9)]))

    assert plan.is_empty
    assert Code.WOULD_BE_HOT in codes(plan)


def test_a_cluster_where_everything_is_hot_says_so():
    guests = [vm(f"{h}{i}", h, 5.0) for h in ("h1", "h2", "h3") for i in range(3)]
    plan = balance(inputs_of([host(h) for h in ("h1", "h2", "h3")], guests))

    assert plan.is_empty
    assert plan.why.startswith("All 3 hosts are hotspots")
    assert codes(plan) == {Code.NO_DESTINATION, Code.CPU_CAPACITY}


def test_a_hot_host_without_a_move_has_its_reasons_counted():
    pinned = VmPolicy(pin=frozenset({"h1"}))
    guests = [vm(f"a{i}", "h1", 5.0, policy=pinned) for i in range(3)]
    plan = balance(inputs_of([host("h1"), host("h2"), host("h3")], guests))
    summary = next(r for r in plan.refusals if r.code is Code.NO_DESTINATION)
    single = next(r for r in plan.refusals if r.subject == "u-a0")

    assert plan.is_empty
    assert "3 pinned" in summary.detail
    assert (single.code, single.count) == (Code.PINNED, 2)


def test_one_odd_vm_costs_only_itself():
    """A passthrough guest on the hot host does not keep the others from being moved."""
    inputs = hot_pair()
    odd = inputs.snapshot.vm("u-a0")
    odd = replace(odd, facts=replace(odd.facts, immovable=("hostdev 0000:01:00.0",)))
    plan = balance(replace(inputs, snapshot=replace(inputs.snapshot, vms=(odd, *inputs.snapshot.vms[1:]))))

    assert [s.move.vm_name for s in plan.steps] == ["a1"]


def test_memory_pressure_is_relieved_too():
    guests = [vm(f"a{i}", "h1", 0.5, 9.5) for i in range(6)]
    inputs = inputs_of([host("h1"), host("h2")], guests)
    plan = balance(inputs)

    assert "89 % memory (headroom 85 %)" in plan.why
    assert len(plan.steps) == 1
    assert violations(inputs, plan) == []


def test_a_forecast_peak_alone_calls_for_a_move_ahead():
    """Now 50 %, in ten minutes 94 %: the forecast changes the plan."""
    rows = {f"u-a{i}": [2.0, 3.75, 3.75] * 4 for i in range(4)}
    guests = [vm(f"a{i}", "h1", 2.0, facts={"vcpus": 4}) for i in range(4)]
    hosts = [host("h1"), host("h2")]

    assert len(balance(inputs_of(hosts, guests, rows=rows)).steps) == 1
    assert balance(inputs_of(hosts, guests)).is_empty


def test_a_hopeful_forecast_does_not_hide_todays_load():
    """A destination that is full now is no destination, whatever the forecast promises."""
    guests = [vm(f"a{i}", "h1", 5.0) for i in range(3)] + [vm(f"b{i}", "h2", 3.0) for i in range(3)]
    plan = balance(inputs_of([host("h1"), host("h2")], guests, rows={f"u-b{i}": [0.0] * 12 for i in range(3)}))

    assert plan.is_empty
    assert Code.WOULD_BE_HOT in codes(plan)


def test_quiet_hours_of_one_vm_cover_the_peaks_of_another():
    """h2's guest peaks when the arriving one is quiet: a sum of peaks would refuse what the peak of the sum allows."""
    early, late = [10.0, 2.0, 2.0] * 4, [2.0, 10.0, 2.0] * 4
    guests = [
        vm("a", "h1", 2.0, facts={"vcpus": 10}),
        vm("c", "h1", 2.0, facts={"vcpus": 10}),
        vm("b", "h2", 2.0, facts={"vcpus": 10}),
    ]
    plan = balance(inputs_of([host("h1"), host("h2")], guests, rows={"u-a": early, "u-c": early, "u-b": late}))

    assert [s.move.destination for s in plan.steps] == ["h2"]


def test_relief_that_is_under_way_is_not_planned_twice():
    inputs = hot_pair(snapshot={"in_flight": (InFlight(vm_uuid="u-a0", source="h1", destination="h2", ours=True),)})
    plan = balance(inputs)

    assert plan.is_empty
    assert "a0 on the move already" in plan.why


def test_a_copy_in_flight_takes_its_room_on_the_destination():
    """10 of 16 cores of h2 are promised to a VM that is still being copied."""
    guests = [vm(f"a{i}", "h1", 4.0) for i in range(4)] + [vm("c", "h3", 10.0)]
    flight = InFlight(vm_uuid="u-c", source="h3", destination="h2", ours=False)
    plan = balance(inputs_of([host("h1"), host("h2"), host("h3", 13)], guests, snapshot={"in_flight": (flight,)}))

    assert plan.is_empty
    assert "h2 would reach 88 % CPU" in " ".join(r.detail for r in plan.refusals)


def test_a_flight_to_nobody_knows_where_counts_everywhere():
    guests = [vm(f"a{i}", "h1", 4.0) for i in range(4)] + [vm("c", "h3", 10.0)]
    flight = InFlight(vm_uuid="u-c", source="h3", destination=None, ours=False)

    assert balance(inputs_of([host("h1"), host("h2"), host("h3")], guests, snapshot={"in_flight": (flight,)})).is_empty


def test_a_resting_vm_stays_and_another_goes():
    inputs = hot_pair(resting_vms={"u-a0": about_vm(Code.COOLDOWN, "u-a0", "moved 3 min ago")})

    assert [s.move.vm_name for s in balance(inputs).steps] == ["a1"]


def test_a_vm_of_unknown_load_is_not_moved_for_balance():
    guests = [vm("a", "h1", None, facts={"vcpus": 8}), vm("b", "h1", 14.0)]
    plan = balance(inputs_of([host("h1"), host("h2", 8)], guests))

    assert plan.is_empty
    assert Code.VM_LOAD_UNKNOWN in codes(plan)


def test_gain_must_exceed_cost():
    """A long migration with a strong slowdown costs more than a short overload."""
    costly = FixedCosts(default=cost_of(600.0, slowdown=1.0))
    rows = {f"u-a{i}": [12.9 / 4] * 12 for i in range(4)}
    guests = [vm(f"a{i}", "h1", 12.9 / 4) for i in range(4)]
    plan = balance(inputs_of([host("h1"), host("h2")], guests, rows=rows, costs=costly))

    assert plan.is_empty
    assert Code.GAIN_TOO_SMALL in codes(plan)


def test_payback_must_come_in_time():
    plan = balance(hot_pair(settings=PlanSettings(payback_max_seconds=5.0)))

    assert plan.is_empty
    assert Code.PAYBACK_TOO_LONG in codes(plan)


@pytest.mark.parametrize(
    ("cost", "code"),
    [
        (cost_of(risk=0.5), Code.WILL_NOT_CONVERGE),
        (cost_of(seconds=700.0), Code.COST_TOO_HIGH),
        (cost_of(downtime=0.7), Code.COST_TOO_HIGH),
        (replace(cost_of(), seconds=Estimate(value=10.0, upper=float("inf"))), Code.COST_TOO_HIGH),
        (replace(cost_of(), non_convergence=Estimate(value=0.0, upper=1.0)), Code.WILL_NOT_CONVERGE),
    ],
)
def test_cost_vetoes_at_the_upper_bound(cost, code):
    plan = balance(hot_pair(costs=FixedCosts(default=cost)))

    assert plan.is_empty
    assert code in codes(plan)


def test_max_moves_bounds_a_plan_and_says_so():
    guests = [vm(f"a{i:02}", "h1", 1.0) for i in range(30)]
    plan = balance(inputs_of([host("h1"), host("h2", 32)], guests, settings=PlanSettings(max_moves=2)))

    assert len(plan.steps) == 2
    assert codes(plan) == {Code.CLUSTER_CAP}


def test_the_work_budget_is_counted_and_not_timed():
    none = balance(hot_pair(settings=PlanSettings(work_budget=0)))

    assert none.is_empty
    assert codes(none) == {Code.CLUSTER_CAP}


def test_a_frozen_or_fresh_snapshot_gives_no_plan():
    frozen = balance(hot_pair(snapshot={"frozen": "half of all hosts lost their load at once"}))
    fresh = balance(hot_pair(snapshot={"warming_up": True}))

    assert codes(frozen) == {Code.TELEMETRY_INSANE}
    assert codes(fresh) == {Code.WARMING_UP}
    assert frozen.is_empty
    assert fresh.is_empty


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"unusable": "stale for 90 s"}, Code.HOST_STALE),
        ({"mode": HostMode.OBSERVE}, Code.HOST_MODE),
        ({"cores": 0.0}, Code.HOST_LOAD_UNKNOWN),
    ],
)
def test_a_hot_host_that_must_not_be_touched_is_named(change, code):
    inputs = hot_pair()
    hosts = tuple(replace(h, **change) if h.name == "h1" else h for h in inputs.snapshot.hosts)
    plan = balance(replace(inputs, snapshot=replace(inputs.snapshot, hosts=hosts)))

    assert plan.is_empty
    assert code in codes(plan)


def test_contention_without_demand_is_named_and_not_acted_on():
    felt = Hotspot(
        host="h1", resource="cpu", now=0.3, peak_p95=0.3, headroom=0.8, probability=0.0, lead_seconds=None,
        causes=(), contention="psi_cpu 0.40",
    )  # fmt: skip
    plan = balance(inputs_of([host("h1"), host("h2")], [vm("a", "h1", 5.0)], hotspots=(felt,)))

    assert plan.is_empty
    assert "psi_cpu 0.40" in plan.why


def test_an_improbable_hotspot_does_not_trigger():
    faint = Hotspot(
        host="h1", resource="cpu", now=0.3, peak_p95=0.9, headroom=0.8, probability=0.1, lead_seconds=None, causes=()
    )
    plan = balance(inputs_of([host("h1"), host("h2")], [vm("a", "h1", 5.0)], hotspots=(faint,)))

    assert codes(plan) == {Code.BALANCED}


def test_an_affinity_group_moves_as_a_whole():
    pair = VmPolicy(affinity=frozenset({"web"}))
    guests = [vm(f"a{i}", "h1", 2.0, policy=pair) for i in range(2)]
    guests += [vm("c", "h1", 11.0, facts={"immovable": ("hostdev",)})]
    inputs = inputs_of([host("h1"), host("h2")], guests)
    plan = balance(inputs)

    assert [(s.move.vm_name, s.move.destination) for s in plan.steps] == [("a0", "h2"), ("a1", "h2")]
    assert [s.wave for s in plan.steps] == [1, 2]
    assert violations(inputs, plan) == []


def test_hostile_names_do_not_break_the_sentence():
    """Control characters are escaped and long names cut; the plan still carries the true name."""
    name = "evil\n\x1b[31m" + "x" * 300
    inputs = inputs_of([host("h1"), host("h2")], [vm(name, "h1", 7.0), vm("b", "h1", 7.0)])
    plan = balance(inputs)

    assert plan.why.isprintable()
    assert all(s.move.why.isprintable() and len(s.move.why) < 400 for s in plan.steps)


def test_an_empty_cluster_gives_a_reason():
    assert balance(inputs_of([], [])).why.startswith("Balanced")
