"""Series: a read-only view of recorded history, time-major, one column per VM or host."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """History of one resource: ``values`` float32 of shape (T, N), NaN where unknown; oldest row first.

    ``end`` is the epoch second of the last row; row t was taken at ``end − (T−1−t)·step_seconds``. ``ids`` are the
    column names (VM UUIDs or host names).
    """

    resource: str
    ids: tuple[str, ...]
    values: NDArray[np.float32]
    step_seconds: float
    end: float

    def __post_init__(self) -> None:
        """Check the shape and forbid writing through the view."""
        if self.values.ndim != 2 or self.values.shape[1] != len(self.ids):
            raise ValueError(f"series {self.resource}: shape {self.values.shape} does not match {len(self.ids)} ids")
        self.values.flags.writeable = False

    @classmethod
    def empty(cls, resource: str, step_seconds: float, end: float) -> "Series":
        """A series without columns or rows."""
        return cls(
            resource=resource, ids=(), values=np.empty((0, 0), dtype=np.float32), step_seconds=step_seconds, end=end
        )
