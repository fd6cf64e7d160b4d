"""KINDS: every kind of model there is, in the order in which they are listed."""

from typing import Any

from rebalancerd.predict.cost_kind import COST
from rebalancerd.predict.demand.kind import DEMAND
from rebalancerd.predict.kind import Kind

KINDS: tuple[Kind[Any, Any], ...] = (COST, DEMAND)
