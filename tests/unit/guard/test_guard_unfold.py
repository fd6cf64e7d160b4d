"""The way back after a night: owed, whatever it gains; never hurried past a cooldown, a cap or a window."""

from rebalancerd.cluster.plan import Score
from rebalancerd.cluster.refusal import Code, about_vm
from rebalancerd.guard.checks import may_start
from rebalancerd.guard.memory import GuardMemory
from tests.unit.guard.conftest import make_context, make_plan

WORSE = Score(total=12.0, unmet=10.0, imbalance=2.0)


def test_it_needs_no_gain_no_hot_host_and_may_undo_a_move() -> None:
    tabu = GuardMemory(tabu_pairs={("u", "b"): about_vm(Code.REVERSE_MOVE, "u", "left b lately", "b")})
    plan = make_plan(policy="unfold", after=WORSE, hot_hosts=())

    assert may_start(make_context(memory=tabu, holds={}), plan, plan.steps[0]) is None


def test_a_cooldown_holds_for_it() -> None:
    tired = GuardMemory(resting={"u": about_vm(Code.COOLDOWN, "u", "moved a minute ago")})
    plan = make_plan(policy="unfold", after=WORSE, hot_hosts=())
    refusal = may_start(make_context(memory=tired), plan, plan.steps[0])

    assert refusal is not None and refusal.code is Code.COOLDOWN
