"""What is replayed: a cluster whose guests ask for what a recording says, and what was recorded before the replay begins."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.observe.history import HOST_CPU, HOST_MEMORY, VM_CPU, VM_MEMORY, History
from rebalancerd.sim.spec import ClusterSpec

Floats = NDArray[np.float32]


class ReplayError(ValueError):
    """What was recorded is not enough for the replay that was asked for; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class ReplayCase:
    """A cluster and the load of its guests before and during the replay; columns are ``cluster.vms``.

    ``past_cpu`` and ``past_memory``: float32 (P, V), cores of the guest's host and bytes, NaN where nothing was recorded;
    the last row ends at ``start`` (epoch seconds). ``memory``: float32 (T, V) bytes held during the replay, None where
    they do not change. The CPU the guests ask for is in ``cluster`` (``Demand.trace``, whose first row is at the start).
    ``told``: how the case was made, in sentences.
    """

    cluster: ClusterSpec
    start: float
    seconds: float
    step_seconds: float
    past_cpu: Floats
    past_memory: Floats
    memory: Floats | None = None
    told: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the shapes that belong together."""
        vms = len(self.cluster.vms)
        for label, rows in (("past_cpu", self.past_cpu), ("past_memory", self.past_memory), ("memory", self.memory)):
            if rows is not None and (rows.ndim != 2 or rows.shape[1] != vms):
                raise ValueError(f"replay {label}: shape {rows.shape} for {vms} VMs")
        if self.past_cpu.shape != self.past_memory.shape or self.seconds <= 0 or self.step_seconds <= 0:
            raise ValueError(f"replay: past of {self.past_cpu.shape} and {self.past_memory.shape}, {self.seconds} s")

    def write_past(self, history: History) -> None:
        """Record what a daemon that ran until the start would have recorded. Raises OSError."""
        names = [vm.key for vm in self.cluster.vms]
        rows = {host.name: i for i, host in enumerate(self.cluster.hosts)}
        location = np.array([rows[vm.host] for vm in self.cluster.vms], dtype=np.intp)
        for t in range(len(self.past_cpu)):
            at = self.start - (len(self.past_cpu) - t - 0.5) * self.step_seconds
            sums = [
                np.bincount(location, np.nan_to_num(part[t]), len(rows)) for part in (self.past_cpu, self.past_memory)
            ]
            history.append(
                at,
                {
                    VM_CPU: dict(zip(names, self.past_cpu[t].tolist(), strict=True)),
                    VM_MEMORY: dict(zip(names, self.past_memory[t].tolist(), strict=True)),
                    HOST_CPU: dict(zip(rows, sums[0].tolist(), strict=True)),
                    HOST_MEMORY: dict(zip(rows, sums[1].tolist(), strict=True)),
                },
            )


def filled(values: Floats) -> Floats:
    """(T, N) without gaps: the value before a gap goes on, at the beginning the first one known. A column of NaN stays.

    A guest of a simulated cluster has to ask for something; unknown is never read as zero.
    """
    out = values.copy()
    for order in (range(1, len(out)), range(len(out) - 2, -1, -1)):
        step = -1 if order.step > 0 else 1
        for t in order:
            np.copyto(out[t], out[t + step], where=np.isnan(out[t]))
    return out
