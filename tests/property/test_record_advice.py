"""Verdicts on advice over any history: they add up, praise needs every step, and what was followed is judged alike."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancerd.cluster.advice import AdviceRecord, Verdict
from rebalancerd.record.advice_verdict import judge
from rebalancerd.record.readiness import readiness
from tests.unit.record.advice_world import BESIDE, DUE, ROWS, STEP, T0, THERE, VM, advice, past, snapshot

LATER = DUE + 2 * STEP
cores = st.lists(st.floats(0, 7), min_size=ROWS, max_size=ROWS)
gaps = st.lists(st.tuples(st.sampled_from(["a", "b", VM, BESIDE, THERE]), st.integers(0, ROWS - 1)), max_size=3)
costs = st.floats(0, 5000)


@settings(max_examples=150, deadline=None)
@given(vm=cores, beside=cores, there=cores, gap=gaps, cost=costs)
def test_a_verdict_says_what_its_figures_say(vm, beside, there, gap, cost):
    score = judge(advice(cost=cost), past({VM: vm, BESIDE: beside, THERE: there}, gaps=gap), snapshot(), at=LATER)

    blind = any(name in ("a", "b", VM) for name, _ in gap)
    assert score.relief >= 0
    assert score.harm >= 0
    if score.verdict is Verdict.RIGHT:
        assert not blind
        assert score.relief - score.harm > cost
        assert score.source_peak > 0.8
        assert score.destination_peak <= 0.8 * 1.0001
    elif score.verdict is Verdict.HARMFUL:
        assert score.destination_peak > 0.8 * 0.9999
    elif score.verdict is Verdict.NEEDLESS:
        assert not blind
        assert score.relief <= cost or score.hot_after_seconds is None
    else:
        assert score.verdict is Verdict.UNKNOWN
        assert blind


@settings(max_examples=100, deadline=None)
@given(vm=cores, beside=cores, there=cores, row=st.integers(0, ROWS - 1))
def test_what_was_followed_is_judged_as_if_it_had_not_been(vm, beside, there, row):
    """But for the step in which the VM moved, which says nothing of either."""
    used = {VM: vm, BESIDE: beside, THERE: there}
    at = T0 + row * STEP  # between two steps, so that none is left out
    stayed = judge(advice(), past(used), snapshot(), at=LATER)
    went = judge(advice(), past(used, stays={VM: ((0.0, "a"), (at, "b"))}), snapshot(), at=LATER)

    assert went.verdict is stayed.verdict
    np.testing.assert_allclose([went.relief, went.harm], [stayed.relief, stayed.harm], rtol=1e-3, atol=1)


@settings(max_examples=100, deadline=None)
@given(vm=cores, beside=cores, there=cores, more=st.floats(0, 1))
def test_a_busier_destination_never_makes_advice_better(vm, beside, there, more):
    calm = judge(advice(), past({VM: vm, BESIDE: beside, THERE: there}), snapshot(), at=LATER)
    busy = judge(advice(), past({VM: vm, BESIDE: beside, THERE: [c + more for c in there]}), snapshot(), at=LATER)

    assert busy.harm >= calm.harm - 1e-3
    assert busy.verdict is not Verdict.RIGHT or calm.verdict is Verdict.RIGHT


counts = st.integers(0, 80)


@given(right=counts, needless=counts, harmful=counts, unknown=counts, days=st.floats(0, 40), advised=st.integers(0, 30))
def test_a_record_adds_up_and_wrong_advice_never_helps_it(right, needless, harmful, unknown, days, advised):
    def record(**more):
        verdicts = {
            Verdict.RIGHT: right,
            Verdict.NEEDLESS: needless,
            Verdict.HARMFUL: harmful,
            Verdict.UNKNOWN: unknown,
        }
        verdicts |= {Verdict(name): verdicts[Verdict(name)] + n for name, n in more.items()}
        return AdviceRecord(verdicts=verdicts, watched_days=days, advised_days=advised)

    told = readiness(record())
    assert record().scored == right + needless + harmful
    assert [r.ready for r in told] != [False, True]
    assert all(r.reason for r in told)
    for worse in (record(unknown=5), record(harmful=1), record(needless=1)):
        if worse.scored == record().scored or record().scored >= 50:
            later = readiness(worse)
            assert all(now.ready or not then.ready for now, then in zip(told, later, strict=True))
