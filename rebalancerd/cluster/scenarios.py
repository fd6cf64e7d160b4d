"""Scenarios: K joint demand paths over H steps for every VM, as one matrix per resource.

The load of a host is the sum of its rows; its peak in a path is the maximum over that path's H sums; its p95 the
quantile of those peaks (a sum of peaks is not the peak of a sum). So correlated VMs are seen as correlated, and every
what-if is one addition and one subtraction.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Scenarios:
    """Joint demand paths. ``cpu_cores`` (reference cores) and ``memory_bytes``: float32, shape (V, paths·steps), path-major.

    Column ``k·steps + h`` is step h of path k; step h ends ``(h+1)·step_seconds`` after the snapshot. ``basis`` names
    what made it (``persistence`` or a model id). ``known[v]`` is False where a VM's load was unknown and the row is a
    cautious stand-in. Raises ValueError for shapes that disagree or values that are NaN, infinite or negative.
    """

    vm_uuids: tuple[str, ...]
    paths: int
    steps: int
    step_seconds: float
    cpu_cores: NDArray[np.float32]
    memory_bytes: NDArray[np.float32]
    known: NDArray[np.bool_]
    basis: str

    def __post_init__(self) -> None:
        """Check shapes and values."""
        shape = (len(self.vm_uuids), self.paths * self.steps)
        for label, matrix in (("cpu_cores", self.cpu_cores), ("memory_bytes", self.memory_bytes)):
            if matrix.shape != shape:
                raise ValueError(f"scenarios {label}: shape {matrix.shape}, expected {shape}")
            if matrix.size and not (np.isfinite(matrix).all() and matrix.min() >= 0):
                raise ValueError(f"scenarios {label}: a value is NaN, infinite or negative")
            matrix.flags.writeable = False

    @cached_property
    def row(self) -> dict[str, int]:
        """Row index by VM UUID."""
        return {uuid: i for i, uuid in enumerate(self.vm_uuids)}

    @cached_property
    def host_figures(self) -> dict[tuple[str, str], tuple[object, object]]:
        """What was made of it for a host and a resource, with the snapshot it was made for; filled by ``predict.hotspot``."""
        return {}

    @property
    def horizon_seconds(self) -> float:
        """Length of the horizon."""
        return self.steps * self.step_seconds

    def peaks(self, load: NDArray[np.float32]) -> NDArray[np.float32]:
        """Peak of each path: ``load`` of shape (..., paths·steps) gives (..., paths)."""
        shaped: NDArray[np.float32] = load.reshape(*load.shape[:-1], self.paths, self.steps).max(axis=-1)
        return shaped


@dataclass(frozen=True, slots=True, kw_only=True)
class Hotspot:
    """A host that is or will be above its headroom.

    ``now`` and ``peak_p95`` are shares of the usable capacity (1.0 is full). ``probability``: share of paths whose peak
    passes the headroom. ``lead_seconds``: time to the first step where the median path passes it (0: hot already; None:
    no median crossing). ``causes``: UUIDs of the VMs that add most, largest first.
    """

    host: str
    resource: str
    now: float
    peak_p95: float
    headroom: float
    probability: float
    lead_seconds: float | None
    causes: tuple[str, ...]
    contention: str | None = None
