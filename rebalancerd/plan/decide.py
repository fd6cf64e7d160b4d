"""The planner's one entry: drain what is to be drained, else balance. The loop and offline planning both come in here."""

from dataclasses import replace

from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.refusal import Code
from rebalancerd.plan.balance import balance
from rebalancerd.plan.drain import drain
from rebalancerd.plan.inputs import PlanInputs


def decide(inputs: PlanInputs) -> Plan:
    """The plan for these inputs; what could not be drained is told in it. Same inputs, same plan."""
    occupied = frozenset(name for name in inputs.drained if inputs.snapshot.vms_on.get(name))
    if not occupied:
        return balance(inputs)
    refused = {p: r for p, r in inputs.blocked_pairs.items() if r.code is not Code.REVERSE_MOVE}
    plan = drain(replace(inputs, blocked_pairs=refused), occupied)
    if plan.steps:
        return plan
    stays = plan.refusals
    plan = balance(inputs)
    return replace(plan, refusals=(*stays, *plan.refusals))
