"""Raw readings to shares of a VM's size: what no measurement can be becomes unknown, and is counted."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# of a VM's size; above it a reading is no load but a fault: Bitbrains' turbo clocks reach 1.6, memory of Google's jobs 1.3
MOST_CPU, MOST_MEMORY = 4.0, 10.0
WHOLE = 1.005  # sets that count a share of a whole cannot exceed it, save by rounding
MISSING_UINT16 = 65535


def shares(raw: NDArray[Any], unit: float, most: float, label: str, dropped: Counter[str]) -> Floats:
    """``raw × unit`` as float32, NaN where it is missing, NaN, infinite, negative or above ``most``.

    65535 in an array of uint16 is the sets' mark for missing. Reasons are counted in ``dropped`` as ``<label>_<reason>``.
    """
    values = raw.astype(np.float64) * unit
    missing = raw == MISSING_UINT16 if raw.dtype == np.uint16 else np.zeros(raw.shape, dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        faults = {
            "missing": missing,
            "nan": np.isnan(values),
            "infinite": np.isinf(values),
            "negative": (values < 0) & np.isfinite(values),
            "huge": (values > most) & np.isfinite(values) & ~missing,
        }
    for reason, where in faults.items():
        if count := int(where.sum()):
            dropped[f"{label}_{reason}"] += count
            values[where] = np.nan
    return values.astype(np.float32)


def drop_rows(values: Floats, rows: NDArray[np.bool_], reason: str, dropped: Counter[str]) -> None:
    """Make every known value of these rows of (N, T) unknown, and count them."""
    if count := int(np.isfinite(values[rows]).sum()):
        dropped[reason] += count
        values[rows] = np.nan


def sizes(raw: NDArray[Any]) -> NDArray[np.float64]:
    """Sizes as float64, NaN for what cannot be one: zero, negative, NaN, infinite."""
    found = raw.astype(np.float64)
    found[~(np.isfinite(found) & (found > 0))] = np.nan
    return found
