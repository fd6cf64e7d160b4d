"""The exact problem on clusters small enough to try everything."""

from itertools import product

import numpy as np
import pytest

from tests.bench.planner_cases import GIB, ArrayCase, array_case
from tests.bench.planner_exact import objective, relaxed_bound, solve


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_better_than_what_is_proven(seed):
    rng = np.random.default_rng(seed)
    case = ArrayCase(
        rng.uniform(1, 5, 6),
        rng.uniform(1, 5, 6) * GIB,
        np.array([0, 0, 0, 0, 1, 2]),
        np.full(3, 8.0),
        np.full(3, 16.0 * GIB),
    )
    tried = [
        objective(moved, 0.8, 0.85)
        for place in product(range(3), repeat=6)
        if (np.array(place) != case.place).sum() <= 2
        and ((moved := case.moved(np.array(place))).per_host(case.memory) <= case.capacity_memory).all()
    ]
    found = solve(case, 2, seconds=20)

    assert found.proven and found.objective == pytest.approx(min(tried), rel=0.005, abs=1e-6)
    assert relaxed_bound(case, 2, 0.8, 0.85) <= min(tried) + 1e-9


def test_a_proven_plan_keeps_the_limits():
    case = array_case(10, 100, 1)
    found = solve(case, 5, seconds=20)

    assert (found.place != case.place).sum() <= 5
    assert (case.moved(found.place).per_host(case.memory) <= case.capacity_memory).all()
    assert found.bound <= found.objective + 1e-9 < objective(case, 0.8, 0.85)
