"""The planner's one entry: drain what is to be drained, else go by the policy. The loop and offline planning come in here."""

from dataclasses import replace

from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.refusal import Code
from rebalancerd.plan import consolidate as folding
from rebalancerd.plan.balance import balance
from rebalancerd.plan.consolidate import consolidate
from rebalancerd.plan.drain import drain
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.rebalance import rebalance
from rebalancerd.plan.unfold import unfold


def decide(inputs: PlanInputs) -> Plan:
    """The plan for these inputs; what could not be drained is told in it. Same inputs, same plan."""
    occupied = frozenset(name for name in inputs.drained if inputs.snapshot.vms_on.get(name))
    if not occupied:
        return _by_policy(inputs)
    refused = {p: r for p, r in inputs.blocked_pairs.items() if r.code is not Code.REVERSE_MOVE}
    plan = drain(replace(inputs, blocked_pairs=refused, policy="balance"), occupied)
    if plan.steps:
        return plan
    stays = plan.refusals
    plan = _by_policy(inputs)
    return replace(plan, refusals=(*stays, *plan.refusals))


def _by_policy(inputs: PlanInputs) -> Plan:
    if inputs.policy_now == folding.POLICY:
        return consolidate(inputs)
    plan = balance(inputs)
    return plan if plan.steps else unfold(inputs) or rebalance(inputs) or plan
