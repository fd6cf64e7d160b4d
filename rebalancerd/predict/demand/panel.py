"""Panel: the recent history of many VMs in one shape, whatever it is of: what every forecaster is given."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """History of one resource of N VMs, as shares of each VM's size (1.0: all its vCPUs, all its configured memory).

    ``values``: float32 (N, T), oldest column first, NaN where unknown; the last column is the present, taken at ``end``
    (epoch seconds), column t at ``end − (T−1−t)·step_seconds``. ``hourly``: float32 (N, T2) hourly means that end with
    the last complete hour before ``end``, None where no coarser history is kept. ``starved``: float32 (N,), what each VM
    waits for beyond what it uses now, as a share of its size; NaN unknown. ``siblings``: int (N,), the number of the
    host each VM is on, VMs of one number share a host; None where placement means nothing. ``season_seconds``: the
    period after which load is expected to come again (a day).
    """

    values: Floats
    step_seconds: float
    end: float
    hourly: Floats | None = None
    starved: Floats | None = None
    siblings: NDArray[np.intp] | None = None
    season_seconds: float = 86_400.0

    def __post_init__(self) -> None:
        """Check the shapes that belong together."""
        if self.values.ndim != 2 or self.step_seconds <= 0 or self.season_seconds <= 0:
            raise ValueError(f"panel: values of shape {self.values.shape}, step {self.step_seconds} s")
        rows = self.values.shape[0]
        for label, part in (("hourly", self.hourly), ("starved", self.starved), ("siblings", self.siblings)):
            if part is not None and part.shape[0] != rows:
                raise ValueError(f"panel {label}: {part.shape[0]} rows for {rows} VMs")
