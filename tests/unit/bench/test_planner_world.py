import numpy as np
import pytest

from rebalancerd.cluster.trace import Trace
from rebalancerd.plan.balance import balance
from tests.bench.planner_bound import objective_bound
from tests.bench.planner_cases import array_case
from tests.bench.planner_checker import violations
from tests.bench.planner_demand import policies, recorded
from tests.bench.planner_world import speed_inputs


def trace(steps: int = 40) -> Trace:
    cpu = np.random.default_rng(1).random((steps, 3)).astype(np.float32)
    cpu[:, 2] = np.nan
    return Trace(set="made", part="up", ids=("a", "b", "c"), step_seconds=300.0, start=0.0, cpu=cpu)


def test_no_plan_is_below_the_bound_and_none_breaks_a_rule():
    inputs = speed_inputs(20, 200, seed=4, constrained=0.3)
    plan = balance(inputs)
    before, bound = objective_bound(inputs)

    assert len(plan.steps) > 2
    assert before == pytest.approx(plan.before.unmet)
    assert 0 <= bound <= plan.after.unmet
    assert violations(inputs.snapshot, inputs.scenarios, inputs.settings, plan) == []


def test_demand_follows_the_traces_and_unknown_stretches_count_as_the_mean():
    case = array_case(10, 100, 1)
    factors = recorded(case, paths=4, steps=6, seed=1, traces=[trace()])

    assert factors.shape == (100, 24)
    flat = (factors == 1).all(axis=1)
    assert flat.any() and not flat.all()
    assert factors[~flat].mean() == pytest.approx(1.0, abs=0.25)
    assert len(speed_inputs(10, 100, 1, traces=[trace()]).scenarios.cpu_cores) == 100
    with pytest.raises(ValueError, match="more than 6 rows"):
        recorded(case, paths=4, steps=6, seed=1, traces=[trace(steps=5)])


def test_constraints_bind_the_stated_share_and_hold_at_the_start():
    case = array_case(20, 200, 1)
    found = policies(case, 0.3, seed=1)
    grouped = [v for v, policy in enumerate(found) if policy.anti_affinity]

    assert 40 <= sum(bool(p.avoid or p.anti_affinity) for p in found) <= 60
    for group in {name for v in grouped for name in found[v].anti_affinity}:
        places = [int(case.place[v]) for v in grouped if group in found[v].anti_affinity]
        assert len(places) == len(set(places)) == 3
    assert all(f"h{case.place[v]:04d}" not in policy.avoid for v, policy in enumerate(found))
