"""Trace: recorded load of many VMs that some other program wrote down, brought to one shape."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One uninterrupted stretch of a trace. ``set``: whose it is (planetlab, google, bitbrains, azure, history), ``part``: which day or months.

    ``cpu``, ``memory``: float32 (T, N), shares of each VM's size (1.0: all of it), oldest row first, NaN where unknown;
    ``memory`` None where the trace has none. ``start``: epoch seconds of the first row, 0 where the trace does not tell
    (then rows still follow a day of 86,400 s). ``cores``, ``memory_bytes``: float64 (N,) sizes, None where not told.
    ``dropped``: how many values were refused, by reason.
    """

    set: str
    part: str
    ids: tuple[str, ...]
    step_seconds: float
    start: float
    cpu: Floats
    memory: Floats | None = None
    cores: NDArray[np.float64] | None = None
    memory_bytes: NDArray[np.float64] | None = None
    dropped: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        """Check the shapes that belong together."""
        shape = self.cpu.shape
        if len(shape) != 2 or shape[1] != len(self.ids) or self.step_seconds <= 0:
            raise ValueError(
                f"trace {self.set} {self.part}: shape {shape}, {len(self.ids)} ids, step {self.step_seconds} s"
            )
        if self.memory is not None and self.memory.shape != shape:
            raise ValueError(f"trace {self.set} {self.part}: memory of shape {self.memory.shape}, CPU of {shape}")
        for label, sizes in (("cores", self.cores), ("memory_bytes", self.memory_bytes)):
            if sizes is not None and sizes.shape != (shape[1],):
                raise ValueError(f"trace {self.set} {self.part}: {label} of shape {sizes.shape} for {shape[1]} VMs")
