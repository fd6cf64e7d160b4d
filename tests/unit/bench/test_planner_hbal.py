"""What is told to hbal and read from it; against the program itself where it is installed."""

import shutil

import numpy as np
import pytest

from tests.bench.planner_cases import GIB, MIB, ArrayCase, array_case
from tests.bench.planner_hbal import disagreement, hbal_score, parse, placed, run_hbal, text_file, utilisation_file


def small() -> ArrayCase:
    return ArrayCase(
        cpu=np.array([1.5, 3.0]),
        memory=np.array([1.0, 2.0]) * GIB,
        place=np.array([0, 0], dtype=np.intp),
        capacity_cpu=np.array([4.0, 8.0]),
        capacity_memory=np.array([4.0, 8.0]) * GIB,
    )


def test_cases_are_repeatable_uneven_and_fit():
    case, again, other = array_case(20, 200, 1), array_case(20, 200, 1), array_case(20, 200, 2)
    share = case.per_host(case.cpu) / case.capacity_cpu

    assert np.array_equal(case.place, again.place) and not np.array_equal(case.place, other.place)
    assert 1 <= (share > 0.8).sum() < 10
    assert (case.per_host(case.memory) <= case.capacity_memory).all()
    assert (case.memory % MIB == 0).all()


def test_files_name_every_host_and_vm():
    groups, nodes, instances, rest = text_file(small()).split("\n\n", 3)

    assert groups.startswith("g0|") and rest.lstrip().startswith("|")
    assert nodes.splitlines() == ["host0|4096|0|1024|0|0|4|N|uuid-g0|1|N", "host1|8192|0|8192|0|0|8|N|uuid-g0|1|N"]
    assert instances.splitlines()[1] == "vm1|2048|0|3|running|Y|host0||ext||0"
    assert utilisation_file(small()).splitlines()[0] == "vm0 0.250000000 0 0 0"


def test_score_is_the_sum_of_three_standard_deviations():
    free = np.std([0.25, 1.0])
    ratio = np.std([6 / 4, 1 / 8])
    load = np.std([0.75, 0.0])

    assert hbal_score(small()) == pytest.approx(free + ratio + load)


def test_moves_are_parsed():
    printed = (
        "Initial score: 2.66471155\nTrying to minimize the CV...\n"
        "    1. vm14 host0       => host2         2.35533959 a=fa:host2\n"
        "    2. vm2  host10      => host4         2.1        a=fa:host4\n"
    )

    assert parse(printed) == (2.66471155, [(14, 2), (2, 4)], [2.35533959, 2.1])
    with pytest.raises(ValueError, match="no score"):
        parse("Error")


@pytest.mark.skipif(shutil.which("hbal") is None, reason="hbal is not installed")
def test_scores_are_those_that_hbal_prints():
    case = array_case(10, 100, 3)
    run = run_hbal(case, 5, runs=1)

    assert len(run.moves) == 5 and run.after < run.before
    assert disagreement(case, run) < 1e-8
    assert hbal_score(case, placed(case, run.moves)) == pytest.approx(run.after, abs=1e-8)
