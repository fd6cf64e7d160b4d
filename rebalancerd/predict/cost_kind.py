"""COST: models of what migrations cost, as files: how one is rebuilt, and the migrations it is proven with."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from rebalancerd.cluster.cost import MigrationCost
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.predict.cost_features import FEATURES
from rebalancerd.predict.interface import CostModel
from rebalancerd.predict.kind import Kind
from rebalancerd.predict.learned import LearnedCost
from rebalancerd.predict.manifest import Figures, Golden, Manifest

TARGETS = ("seconds", "downtime_seconds", "bytes", "slowdown", "non_convergence")


class Learned(CostModel, Protocol):
    """A fitted cost model: what is saved of it and what it can be asked."""

    @property
    def state(self) -> dict[str, Any]:
        """Estimators of scikit-learn, arrays, numbers, texts and lists of them."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its inputs, in their order."""
        ...

    def predict_facts(
        self, facts: Sequence[MigrationFacts], deadline_seconds: Sequence[float]
    ) -> Sequence[MigrationCost]:
        """Costs of migrations on record."""
        ...


class CostGolden(Golden):
    """One migration, and what the model said of it when it was saved."""

    facts: MigrationFacts
    deadline_seconds: float


def figures_of(cost: MigrationCost) -> Figures:
    """Value and upper bound of every figure of a cost, an infinite bound as None."""
    pairs = {name: getattr(cost, name) for name in TARGETS}
    return {n: (e.value, None if math.isinf(e.upper) else e.upper) for n, e in pairs.items()}


def ask(model: Learned, golden: Sequence[CostGolden]) -> list[Figures]:
    """What a model predicts of those migrations."""
    found = model.predict_facts([g.facts for g in golden], [g.deadline_seconds for g in golden])
    return [figures_of(cost) for cost in found]


COST: Kind[Learned, CostGolden] = Kind(
    name="cost", manifest=Manifest[CostGolden], features=FEATURES, rebuild=LearnedCost.of_state, ask=ask
)
