"""Alike: which rows of several columns are the same, so that what they lead to is computed once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Alike:
    """``first``: shape (K,), one row of each kind; ``kind``: shape (N,), the kind of every row."""

    first: NDArray[np.intp]
    kind: NDArray[np.intp]

    @classmethod
    def of(cls, *columns: NDArray[np.generic]) -> "Alike":
        """Rows are alike if they are equal in every column (shape (N,) each); NaN equals NaN.

        Found by a hash of the bits, and then checked, so that no collision can mix two kinds.
        """
        bits = [np.asarray(column, dtype=np.float64).view(np.uint64) for column in columns]
        mixed = np.zeros(bits[0].shape[0], dtype=np.uint64)
        with np.errstate(over="ignore"):
            for part in bits:
                mixed = (mixed ^ part) * _MIX
                mixed ^= mixed >> np.uint64(29)
        _, first, kind = np.unique(mixed, return_index=True, return_inverse=True)
        kind = kind.reshape(-1)
        if all(np.array_equal(part[first][kind], part) for part in bits):
            return cls(first.astype(np.intp), kind.astype(np.intp))
        everything = np.arange(mixed.shape[0], dtype=np.intp)
        return cls(everything, everything)
