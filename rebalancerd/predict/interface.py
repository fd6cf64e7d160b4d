"""The two interfaces of this room; simple and learned predictors stand behind the same ones."""

from collections.abc import Sequence
from typing import Protocol

from rebalancerd.cluster.cost import Candidate, MigrationCost
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.demand.forecast import Forecaster


class DemandModel(Protocol):
    """Joint demand scenarios for every VM of a snapshot."""

    @property
    def forecaster(self) -> Forecaster:
        """Who forecasts, whatever recorded rate is to be forecast."""
        ...

    def scenarios(self, snapshot: Snapshot, cpu: Series, memory: Series) -> Scenarios:
        """Scenarios from the snapshot's present loads and the recorded history (cores of the VM's host, bytes)."""
        ...


class CostModel(Protocol):
    """Cost of migrations."""

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> Sequence[MigrationCost]:
        """One cost per candidate, in their order. Missing inputs widen bounds; they never fail."""
        ...
