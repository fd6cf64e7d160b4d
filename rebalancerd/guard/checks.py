"""May this cycle plan, and may this step start now?

A drain is an operator's command: it ignores hold, cooldowns, the reverse-move tabu, minimum gain, payback and windows.
It respects everything else: blackouts, pause, breaker, caps, quarantine, modes and approvals.

The way back after a night is owed: it ignores minimum gain, payback and the reverse-move tabu, which it is by nature.
"""

from collections.abc import Iterator

from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.refusal import Code, Refusal, about_plan
from rebalancerd.guard.context import GuardContext
from rebalancerd.guard.cycle_checks import CYCLE_CHECKS, WINDOW_CHECKS
from rebalancerd.guard.step_checks import REST_CHECKS, STEP_CHECKS, Ask, rested

DRAIN = "drain"
UNFOLD = "unfold"


def may_plan(ctx: GuardContext, policy: str = "balance") -> Refusal | None:
    """The first reason why nothing may start in this cycle under ``policy``, or None."""
    checks = CYCLE_CHECKS if policy == DRAIN else CYCLE_CHECKS + WINDOW_CHECKS
    return next((refusal for refusal in (check(ctx) for check in checks) if refusal is not None), None)


def may_start(ctx: GuardContext, plan: Plan, step: Step) -> Refusal | None:
    """The first reason why this step may not start now, or None: it may."""
    return next(start_refusals(ctx, plan, step), None)


def start_refusals(ctx: GuardContext, plan: Plan, step: Step) -> Iterator[Refusal]:
    """Every reason why this step may not start now, the gravest first. Raises KeyError if the step is not the plan's."""
    if plan.step(step.number) != step:
        yield about_plan(Code.PLAN_STALE, plan.id, f"step {step.number} is not the one in the plan")
        return
    stop = may_plan(ctx, plan.policy)
    if stop is not None:
        yield stop
    ask = Ask(ctx, plan, step)
    checks = STEP_CHECKS + {DRAIN: (), UNFOLD: (rested,)}.get(plan.policy, REST_CHECKS)
    yield from (refusal for refusal in (check(ask) for check in checks) if refusal is not None)
