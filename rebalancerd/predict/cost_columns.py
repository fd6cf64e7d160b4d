"""CostColumns: the costs of many candidates as arrays; a MigrationCost is made only of those that are looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.cost import Estimate, MigrationCost

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
TARGETS = ("seconds", "downtime_seconds", "bytes", "slowdown", "non_convergence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure of all candidates: expected values and upper bounds, shape (N,), a bound never below its value."""

    value: Floats
    upper: Floats

    @classmethod
    def of(cls, value: Floats, upper: Floats) -> "Column":
        """A column whose bounds are lifted to their values."""
        return cls(value=value, upper=np.maximum(value, upper))


@dataclass(frozen=True, slots=True, kw_only=True)
class CostColumns(Sequence[MigrationCost]):
    """Costs of N candidates, a sequence of MigrationCost in their order.

    ``basis``: shape (N,), indices into ``bases``. ``missing``: shape (N, M), which of the M names in ``missing_names``
    were unknown of each.
    """

    seconds: Column
    downtime_seconds: Column
    bytes: Column
    slowdown: Column
    non_convergence: Column
    basis: NDArray[np.int8]
    bases: tuple[str, ...]
    missing: Bools
    missing_names: tuple[str, ...]

    def __len__(self) -> int:
        return int(self.seconds.value.shape[0])

    @overload
    def __getitem__(self, index: int) -> MigrationCost: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[MigrationCost]: ...
    def __getitem__(self, index: int | slice) -> MigrationCost | Sequence[MigrationCost]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        estimates = {
            name: Estimate(value=float(column.value[index]), upper=float(column.upper[index]))
            for name, column in self.columns().items()
        }
        unknown = self.missing[index]
        return MigrationCost(
            **estimates,
            basis=self.bases[int(self.basis[index])],
            inputs_missing=tuple(n for n, is_missing in zip(self.missing_names, unknown, strict=True) if is_missing),
        )

    def columns(self) -> dict[str, Column]:
        """The five figures by name."""
        return {name: getattr(self, name) for name in TARGETS}
