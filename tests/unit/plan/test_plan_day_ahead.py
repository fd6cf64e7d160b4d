"""VMs whose host of the evening does not come back: what would get hot in the day is relieved at dawn, and only that."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code, Refusal, about_host, about_vm
from rebalancerd.cluster.snapshot import InFlight
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.day_ahead import homeless
from rebalancerd.plan.decide import decide
from rebalancerd.plan.inputs import PlanInputs
from tests.bench.planner_checker_plan import violations
from tests.unit.plan.plan_cluster import carried_out, flat, host, inputs_of, vm

DAWN = 0.3
NOON = {"u-v11": 4.0, "u-v21": 3.0, "u-v31": 2.0}
FAILED = about_host(Code.HOST_NOT_BACK, "h2", "h2 is failed: it did not come back within 900 s")
WAKING = about_host(Code.HOST_ASLEEP, "h2", "h2 is waking: the window is over")


def morning(
    *changed: Host,
    noon: dict[str, float] = NOON,
    gone: bool = False,
    homes: dict[str, str] | None = None,
    with_day: bool = True,
    **changes: object,
) -> PlanInputs:
    """v21 was on h2 in the evening and stands beside v11 on h1 now, which is too much at noon; h3 and h4 have room."""
    hosts = {h.name: h for h in (*(host(f"h{n}", 8.0) for n in (1, 2, 3, 4)), *changed)}
    if gone:
        del hosts["h2"]
    vms: list[Vm] = [vm("v11", "h1", DAWN), vm("v21", "h1", DAWN), vm("v31", "h3", DAWN)]
    made = inputs_of(list(hosts.values()), vms, homes=homes or {"u-v21": "h2"})
    day = flat(made.snapshot, steps=4, rows={u: [DAWN, c, c, DAWN] * 4 for u, c in noon.items()}) if with_day else None
    return replace(made, **{"blocked_hosts": {"h2": FAILED}, "day": day, **changes})  # type: ignore[arg-type]


def moves(plan: Plan) -> dict[str, str]:
    return {s.move.vm_uuid: s.move.destination for s in plan.steps}


def test_a_host_that_would_get_hot_at_noon_is_relieved_at_dawn_and_then_nothing_is_left_to_do() -> None:
    inputs = morning()
    plan = decide(inputs)

    assert plan.policy == "unfold"
    assert len(plan.steps) == 1 and plan.steps[0].move.source == "h1"
    assert plan.steps[0].move.destination == "h4", "where most room is"
    assert violations(inputs, plan) == []
    assert "v21 cannot go home" in plan.why and "day ahead" in plan.why
    after = carried_out(inputs, plan)
    assert decide(after).steps == ()


def test_who_has_lost_its_home_is_told_so() -> None:
    # v11 cannot go, so that v21 must
    plan = decide(morning(resting_vms={"u-v11": about_vm(Code.COOLDOWN, "u-v11", "moved a minute ago")}))

    assert moves(plan) == {"u-v21": "h4"}
    assert plan.steps[0].move.why.startswith("h2, where it was in the evening, does not come back: h2 is failed")
    assert "h1 is at" in plan.steps[0].move.why


def test_where_the_hosts_carry_the_day_nobody_moves() -> None:
    assert decide(morning(noon={"u-v11": 3.0, "u-v21": 3.0, "u-v31": 2.0})).steps == ()


def test_where_no_host_has_room_on_the_worst_days_the_usual_day_decides() -> None:
    inputs = morning(host("h4", 8.0, mode=HostMode.NO_INBOUND))
    high = [DAWN, 5.0, 5.0, DAWN] + [DAWN, 2.0, 2.0, DAWN] * 9  # one day in ten h3 has no room
    rows = {u: [DAWN, c, c, DAWN] * 10 for u, c in NOON.items()} | {"u-v31": high}
    inputs = replace(inputs, day=flat(inputs.snapshot, paths=10, steps=4, rows=rows))

    assert set(moves(decide(inputs)).values()) == {"h3"}
    often = replace(inputs, day=flat(inputs.snapshot, paths=10, steps=4, rows=rows | {"u-v31": high[:4] * 10}))
    assert decide(often).steps == (), "every day"
    usual = replace(inputs, settings=replace(inputs.settings, quantile=0.5))
    assert set(moves(decide(usual)).values()) == {"h3"}


def test_without_a_forecast_of_the_day_nobody_moves() -> None:
    assert decide(morning(with_day=False)).steps == ()


@pytest.mark.parametrize(
    ("blocked", "changed"),
    [
        ({"h2": about_host(Code.QUARANTINED, "h2", "three migrations to it failed")}, ()),
        ({"h2": WAKING}, ()),
        ({}, (host("h2", 8.0, unusable="stale: its figures are 400 s old"),)),
        ({}, (host("h2", 8.0, mode=HostMode.NO_INBOUND),)),
        ({}, (host("h2", 8.0, mode=HostMode.DRAIN),)),
    ],
)
def test_a_home_that_takes_nothing_in_is_waited_for_but_not_all_morning(
    blocked: dict[str, Refusal], changed: tuple[Host, ...]
) -> None:
    assert decide(morning(*changed, blocked_hosts=blocked, homes_may_return=True)).steps == ()
    plan = decide(morning(*changed, blocked_hosts=blocked))
    assert len(plan.steps) == 1 and plan.steps[0].move.destination != "h2"


def test_a_home_that_is_full_is_no_reason() -> None:
    assert decide(morning(host("h2", 1.0, 1.0), blocked_hosts={})).steps == (), "every host of the evening is back"


def test_nobody_waits_for_a_home_that_failed_or_is_gone() -> None:
    assert len(decide(morning(homes_may_return=True)).steps) == 1
    assert len(decide(morning(gone=True, blocked_hosts={}, homes_may_return=True)).steps) == 1


def test_first_everybody_who_can_goes_home() -> None:
    homes = {"u-v21": "h2", "u-v31": "h4"}
    inputs = morning(homes=homes, homes_may_return=True)
    plan = decide(inputs)
    assert moves(plan) == {"u-v31": "h4"}
    assert len(decide(carried_out(inputs, plan)).steps) == 1


def test_who_may_still_go_home_later_is_waited_for() -> None:
    homes = {"u-v21": "h2", "u-v31": "h4"}
    tired = {"u-v31": about_vm(Code.COOLDOWN, "u-v31", "moved a minute ago")}
    assert decide(morning(homes=homes, homes_may_return=True, resting_vms=tired)).steps == ()
    full = morning(host("h4", 1.0, 1.0), homes=homes, homes_may_return=True)
    assert decide(full).steps == (), "others may still leave h4"
    assert len(decide(replace(full, homes_may_return=False)).steps) == 1

    on_its_way = replace(
        morning(homes_may_return=True).snapshot,
        in_flight=(InFlight(vm_uuid="u-v21", source="h1", destination="h2", ours=True),),
    )
    assert homeless(replace(morning(homes_may_return=True), snapshot=on_its_way)) == {}


def test_relief_undoes_no_earlier_move() -> None:
    back = {(u, "h4"): about_vm(Code.REVERSE_MOVE, u, "left h4 an hour ago", "h4") for u in ("u-v11", "u-v21")}
    plan = decide(morning(blocked_pairs=back))

    assert len(plan.steps) == 1 and plan.steps[0].move.destination == "h3"


def test_when_the_home_is_back_late_who_was_not_moved_goes_there() -> None:
    assert moves(decide(morning(blocked_hosts={}))) == {"u-v21": "h2"}
