"""What a migration costs in the planner's currency, of one cost or of the columns of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rebalancerd.cluster.cost import COPY_CORES, Estimate, MigrationCost, MigrationOptions
from rebalancerd.plan.demand import Floats


def cost_core_seconds(cost: MigrationCost, mean_cores: float) -> float:
    """Cost of one migration in core-seconds, at upper bounds; infinite if no finite bound is known."""
    return _core_seconds(
        cost.seconds.upper, cost.slowdown.upper, cost.downtime_seconds.upper, cost.non_convergence.upper, mean_cores
    )


def price(cost: MigrationCost, mean_cores: float) -> Estimate:
    """Cost of one migration in core-seconds as predicted, and at upper bounds."""
    value = _core_seconds(
        cost.seconds.value, cost.slowdown.value, cost.downtime_seconds.value, cost.non_convergence.value, mean_cores
    )
    upper = cost_core_seconds(cost, mean_cores)
    return Estimate(value=min(value, upper), upper=upper)


def _core_seconds(seconds: float, slowdown: float, downtime: float, risk: float, mean_cores: float) -> float:
    if risk >= 1:
        return float("inf")
    return ((seconds * min(1.0, slowdown) + downtime) * mean_cores + seconds * COPY_CORES) / (1 - risk)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds of N migrations: seconds, seconds of downtime, share of the guest's progress lost, P(never ends)."""

    seconds: Floats
    downtime: Floats
    slowdown: Floats
    non_convergence: Floats

    @classmethod
    def of(cls, costs: Sequence[MigrationCost]) -> "Bounds":
        """Read the columns of a model that keeps them (``.seconds.upper`` and so on), else cost by cost."""
        return cls(*(_upper(costs, name) for name in ("seconds", "downtime_seconds", "slowdown", "non_convergence")))


def _upper(costs: Sequence[MigrationCost], name: str) -> Floats:
    column = getattr(costs, name, None)
    if column is not None:
        return np.asarray(column.upper, dtype=np.float64)
    return np.array([getattr(cost, name).upper for cost in costs], dtype=np.float64)


class Quote(NamedTuple):
    """A migration as the search reads it. ``cost_core_seconds`` of ``costs[row]``, taken apart by what the VM's cores do.

    ``admissible``: no veto stands against it. ``usual``: its cost with the usual options, where those are vetoed and
    these are not.
    """

    options: MigrationOptions
    costs: Sequence[MigrationCost]
    row: int
    admissible: bool
    seconds: float
    lost_seconds: float
    converging: float
    usual: MigrationCost | None = None

    def core_seconds(self, mean_cores: float) -> float:
        """`cost_core_seconds` without a MigrationCost."""
        if self.converging <= 0:
            return float("inf")
        return (self.lost_seconds * mean_cores + self.seconds * COPY_CORES) / self.converging


def quotes(
    costs: Sequence[MigrationCost], options: Sequence[MigrationOptions], bounds: Bounds, admissible: Sequence[bool]
) -> list[Quote]:
    """One quote per cost."""
    with np.errstate(invalid="ignore"):
        lost = bounds.seconds * np.minimum(1.0, bounds.slowdown) + bounds.downtime
    converging = 1 - bounds.non_convergence
    rows = zip(options, admissible, bounds.seconds.tolist(), lost.tolist(), converging.tolist(), strict=True)
    return [Quote(o, costs, i, ok, s, gone, share) for i, (o, ok, s, gone, share) in enumerate(rows)]
