import shutil
from itertools import pairwise

import numpy as np
import pytest

from rebalancerd.plan.reconsider import descend
from tests.bench.planner_cases import ArrayCase, array_case
from tests.bench.planner_hbal import hbal_score, placed, run_hbal
from tests.bench.planner_versus_hbal import field_of, ours, replayed

GIB = 1024.0**3


def test_our_moves_lower_the_formula_by_what_the_search_says_and_can_be_made_in_turn():
    case = array_case(20, 200, 2)
    field = field_of(case)
    assert field.score() == pytest.approx(hbal_score(case), abs=1e-12)

    moves = descend(field, 12, passes=0)

    assert len(moves) == 12
    replayed(case, moves)
    scores = [hbal_score(case, placed(case, moves[:n])) for n in range(len(moves) + 1)]
    assert all(later < sooner for sooner, later in pairwise(scores))
    assert field.score() == pytest.approx(scores[-1], abs=1e-10)


def test_exchange_never_makes_it_worse_and_keeps_within_the_moves():
    for seed in range(1, 6):
        case = array_case(20, 200, seed)
        plain, better = descend(field_of(case), 15, passes=0), descend(field_of(case), 15, passes=2)

        assert len(better) <= 15
        replayed(case, better)
        assert hbal_score(case, placed(case, better)) <= hbal_score(case, placed(case, plain)) + 1e-12


def test_a_host_without_room_receives_nothing():
    case = ArrayCase(
        cpu=np.array([2.0, 2.0, 2.0]),
        memory=np.array([2.0, 2.0, 2.0]) * GIB,
        place=np.array([0, 0, 0]),
        capacity_cpu=np.array([8.0, 8.0]),
        capacity_memory=np.array([8.0, 2.0]) * GIB,
    )

    assert descend(field_of(case), 3) == []  # exactly full is too full, as for hbal


def test_replay_refuses_what_cannot_be_made():
    case = array_case(10, 100, 1)
    home = int(case.place[0])

    with pytest.raises(ValueError, match="move 1, VM 0"):
        replayed(case, [(0, home)])


@pytest.mark.skipif(shutil.which("hbal") is None, reason="hbal is not installed")
def test_no_worse_than_hbal_at_equal_moves():
    case = array_case(10, 100, 3)
    theirs = run_hbal(case, 8, runs=1)
    mine, _, _ = ours(case, len(theirs.moves), runs=1)

    assert len(mine) <= len(theirs.moves)
    assert hbal_score(case, placed(case, mine)) <= hbal_score(case, placed(case, theirs.moves)) + 1e-9
