"""Contention that is felt already counts as unmet demand on its host, and is relieved by as much load as waits."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.host import HostLoad
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.scenarios import Hotspot
from rebalancerd.cluster.units import GIB
from rebalancerd.plan.balance import balance
from rebalancerd.plan.objective import Objective
from rebalancerd.plan.state import PlacementState
from tests.unit.plan.plan_checker import violations
from tests.unit.plan.plan_cluster import host, inputs_of, vm

HORIZON = 1800.0


def felt(resource: str, **load: object):
    """h1 at 50 % CPU with four guests of 2 cores, and what was measured of its contention."""
    guests = [
        replace(g, load=replace(g.load, steal_cores=0.0)) for g in (vm(f"v{i}", "h1", 2.0, 8.0) for i in range(4))
    ]
    used = HostLoad(cpu_cores=8.0, memory_used_bytes=32 * GIB, **load)  # type: ignore[arg-type]
    spot = Hotspot(
        host="h1", resource=resource, now=0.5, peak_p95=0.5, headroom=0.8, probability=0.0, lead_seconds=0.0,
        causes=(), contention="felt",
    )  # fmt: skip
    return inputs_of([host("h1", load=used), host("h2"), host("h3")], guests, hotspots=(spot,))


def unmet(inputs) -> float:
    return float(Objective(PlacementState(inputs)).unmet[0])


def test_cpu_pressure_counts_as_that_share_of_a_core_over_the_horizon():
    assert unmet(felt("cpu", psi_cpu=0.5)) == pytest.approx(0.5 * HORIZON)


def test_delay_of_guests_counts_less_what_their_demand_holds_already():
    inputs = felt("cpu")
    guests = tuple(replace(v, load=replace(v.load, steal_cores=0.5)) for v in inputs.snapshot.vms)
    waiting = replace(inputs, snapshot=replace(inputs.snapshot, vms=guests))

    assert unmet(waiting) == pytest.approx(2.0 * HORIZON)


def test_swap_counts_as_the_cores_that_go_with_it():
    inputs = felt("memory", swap_used_bytes=8 * GIB, psi_memory=0.05)

    assert unmet(inputs) == pytest.approx(8 / 64 * 16 * HORIZON)


def test_memory_pressure_counts_as_that_share_of_what_is_in_use():
    assert unmet(felt("memory", psi_memory=0.25)) == pytest.approx(0.25 * 32 / 64 * 16 * HORIZON)


@pytest.mark.parametrize("load", [{"psi_cpu": 0.5}, {"psi_cpu": None}])
def test_what_is_felt_is_relieved_by_as_much_load_as_waits_and_no_more(load):
    inputs = felt("cpu", **load)
    plan = balance(inputs)

    if load["psi_cpu"] is None:
        assert plan.is_empty
        return
    assert len(plan.steps) == 1
    assert plan.before.unmet == pytest.approx(0.5 * HORIZON)
    assert plan.after.unmet == 0
    assert violations(inputs, plan) == []
    assert plan.steps[0].move.hot_in_seconds == 0


def test_a_host_that_feels_contention_and_cannot_be_relieved_says_why():
    inputs = felt("memory", psi_memory=0.25)
    shut = replace(inputs, drained=frozenset({"h2", "h3"}))
    plan = balance(shut)

    assert plan.is_empty
    assert {r.code for r in plan.refusals} >= {Code.NO_DESTINATION, Code.HOST_MODE}


def test_contention_of_a_host_nobody_calls_hot_is_noise():
    assert unmet(replace(felt("cpu", psi_cpu=0.5), hotspots=())) == 0
