"""Forecast: the marginal distribution of each VM's demand at each step ahead; and what makes one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.panel import Panel

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Marginals for N VMs at H steps ahead, in shares of each VM's size.

    ``steps``: how many steps of the panel ahead, increasing. ``mean``: float32 (N, H). ``levels``: probabilities,
    increasing, 0.05, 0.5 and 0.95 among them. ``quantiles``: float32 (N, H, Q), not decreasing along Q. No value is
    NaN or negative. ``basis``: name of what made it.
    """

    steps: tuple[int, ...]
    mean: Floats
    levels: tuple[float, ...]
    quantiles: Floats
    basis: str

    def at(self, level: float) -> Floats:
        """That quantile, (N, H). Raises ValueError for a level that is not among ``levels``."""
        return self.quantiles[..., self.levels.index(level)]


class Forecaster(Protocol):
    """Makes forecasts: naive ways and learned models alike."""

    @property
    def basis(self) -> str:
        """Name of the way, or the model's id."""
        ...

    def forecast(self, panel: Panel, steps: Sequence[int]) -> Forecast:
        """Forecast every VM of the panel, whatever is missing of its history: less known is wider, never NaN, never an error."""
        ...
