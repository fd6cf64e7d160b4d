"""The resolution that load was recorded with, and values brought to it."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

GRIDS = (0.01, 0.001)  # whole per cent and per mille; finer ones make no difference
SLACK = 0.01  # of a grid's step: what float32 adds
DISTINCT_LEAST = 12  # fewer values could lie on any grid by chance
LOOKED_AT = 64  # VMs


def resolution(values: Floats) -> float | None:
    """The coarsest grid on which all recorded values (N, T) lie, None where they lie on none."""
    sample = values[:: max(1, len(values) // LOOKED_AT)]
    known = sample[np.isfinite(sample)]
    for grid in GRIDS:
        steps = known / np.float32(grid)
        nearest = np.rint(steps)
        if len(np.unique(nearest)) < DISTINCT_LEAST:
            return None
        if (np.abs(steps - nearest) <= SLACK).all():
            return grid
    return None


def on_grid(values: Floats, grid: float | None) -> Floats:
    """The values at their nearest points of the grid, in place; as they are where there is none."""
    if grid is not None:
        values /= np.float32(grid)
        np.rint(values, out=values)
        values *= np.float32(grid)
    return values
