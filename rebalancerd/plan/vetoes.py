"""The vetoes by predicted cost, each at an upper bound: what may go wrong counts, not what is hoped for."""

from collections.abc import Sequence

import numpy as np

from rebalancerd.cluster.cost import MigrationCost
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.options import downtime_limit
from rebalancerd.plan.price import Bounds
from rebalancerd.plan.settings import PlanSettings


def may_not_converge(cost: MigrationCost, settings: PlanSettings) -> bool:
    """The probability that pre-copy never ends is too large."""
    return cost.non_convergence.upper > settings.non_convergence_max


def may_take_too_long(cost: MigrationCost, settings: PlanSettings) -> bool:
    """The migration may not end within its limit."""
    return cost.seconds.upper > settings.max_migration_seconds


def may_pause_too_long(cost: MigrationCost, vm: Vm, settings: PlanSettings) -> bool:
    """The downtime may be longer than the VM accepts."""
    return cost.downtime_seconds.upper > downtime_limit(vm, settings)


def admissible(cost: MigrationCost, vm: Vm, settings: PlanSettings) -> bool:
    """Whether no veto stands against a migration of that cost."""
    return not (
        may_not_converge(cost, settings) or may_take_too_long(cost, settings) or may_pause_too_long(cost, vm, settings)
    )


def admissible_each(bounds: Bounds, vms: Sequence[Vm], settings: PlanSettings) -> list[bool]:
    """`admissible` of many migrations, one per VM given."""
    limits = np.array([downtime_limit(vm, settings) for vm in vms])
    vetoed = bounds.non_convergence > settings.non_convergence_max
    vetoed |= bounds.seconds > settings.max_migration_seconds
    vetoed |= bounds.downtime > limits
    found: list[bool] = (~vetoed).tolist()
    return found
