"""How much shipped migrations are like a cluster's own: what is alike teaches more."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_OWN = 10  # below that a cluster has shown too little of itself to weigh by
LEAST_WEIGHT = 0.1
REACH = 2.0  # distance, in spreads of the own rows, at which a weight has fallen to about a seventh


def likeness(shipped: Floats, own: Floats) -> Floats:
    """Weights of the shipped rows, shape (N,), from ``LEAST_WEIGHT`` to 1; features of shape (N, F) and (M, F).

    exp(−½ (d ÷ REACH)²) of the mean distance d to the own rows' medians, each feature measured by their spread there
    (half of the 16 % to 84 % range, no less than a tenth of the shipped one). A feature that is unknown counts as alike.
    """
    if own.shape[0] < LEAST_OWN or not shipped.shape[0]:
        return np.ones(shipped.shape[0])
    told = np.isfinite(own).any(axis=0) & np.isfinite(shipped).any(axis=0)
    if not told.any():
        return np.ones(shipped.shape[0])
    own, shipped = own[:, told], shipped[:, told]
    middle = np.nanmedian(own, axis=0)
    spread = np.nanquantile(own, 0.84, axis=0) - np.nanquantile(own, 0.16, axis=0)
    whole = np.nanquantile(shipped, 0.84, axis=0) - np.nanquantile(shipped, 0.16, axis=0)
    scale = np.maximum(np.maximum(spread, 0.1 * whole) / 2, 1e-6)
    distance = np.nan_to_num(np.abs(shipped - middle) / scale)
    mean = np.minimum(distance, 6.0).mean(axis=1)
    weights: Floats = np.maximum(LEAST_WEIGHT, np.exp(-0.5 * (mean / REACH) ** 2))
    return weights
