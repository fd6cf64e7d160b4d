"""Demand of every VM as one row per resource: the forecast paths, and what is measured now as one more column.

The present load stands beside the forecast as a constraint of its own: a path's peak is never below what is measured
now, so that a hopeful forecast cannot hide today's load.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.demand import sane
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import DomainState, Vm

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
GONE = frozenset({DomainState.SHUTOFF, DomainState.CRASHED, DomainState.ABSENT})


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Rows in the snapshot's order of VMs; columns ``paths·steps`` path-major, then one column "now".

    ``cpu``: float32 (V, C) reference cores. ``memory``: float32 (V, C) bytes. ``hard_memory``: float64 (V,) bytes that a
    VM must be granted: the largest of its measured memory and every forecast value, or its configured memory while its
    use is unknown. ``mean_cores``: float64 (V,). ``known[v]``: both present figures and a real forecast exist.
    ``active[v]``: it holds resources (a domain that is shut off does not).
    """

    paths: int
    steps: int
    step_seconds: float
    cpu: NDArray[np.float32]
    memory: NDArray[np.float32]
    hard_memory: Floats
    mean_cores: Floats
    known: NDArray[np.bool_]
    active: NDArray[np.bool_]

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.paths * self.steps + 1

    def path_peaks(self, load: Floats) -> Floats:
        """Peak of each path, now included: (..., C) gives (..., paths)."""
        paths: Floats = load[..., :-1].reshape(*load.shape[:-1], self.paths, self.steps).max(axis=-1)
        return np.maximum(paths, load[..., -1:])

    def peak(self, load: Floats, quantile: float) -> Floats:
        """That quantile of the path peaks, the upper one of two neighbours: (..., C) gives (...)."""
        peaks = self.path_peaks(load)
        rank = int(np.ceil(quantile * (self.paths - 1) - 1e-9))
        found: Floats = np.partition(peaks, rank, axis=-1)[..., rank]
        return found


def _memory_now(vm: Vm) -> float | None:
    """Bytes it holds; None if unknown. A running VM that holds nothing is a fault of the telemetry, not a fact."""
    return sane(vm.load.memory_bytes) or None


def build(snapshot: Snapshot, scenarios: Scenarios) -> Demand:
    """Demand of every VM of the snapshot.

    A VM without a forecast gets a cautious stand-in: all its vCPUs and its configured memory. Raises ValueError for
    scenarios without a path or a step.
    """
    if scenarios.paths < 1 or scenarios.steps < 1:
        raise ValueError(f"scenarios need a path and a step, not {scenarios.paths} × {scenarios.steps}")
    count = len(snapshot.vms)
    rows = np.array([scenarios.row.get(vm.uuid, -1) for vm in snapshot.vms], dtype=np.intp)
    shape = (count, scenarios.paths * scenarios.steps + 1)
    cpu, memory = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    there = rows >= 0
    cpu[there, :-1] = scenarios.cpu_cores[rows[there]]
    memory[there, :-1] = scenarios.memory_bytes[rows[there]]
    known = there.copy()
    known[there] = scenarios.known[rows[there]]
    active = np.array([vm.state not in GONE for vm in snapshot.vms], dtype=np.bool_)
    granted = np.zeros(count, dtype=np.float64)
    for i, vm in enumerate(snapshot.vms):
        home = snapshot.host(vm.host)
        speed = home.speed_factor
        if not there[i]:
            cpu[i], memory[i] = vm.facts.vcpus * speed, vm.facts.memory_bytes
        asked = snapshot.asked_cores[vm.uuid]
        now_cpu, now_memory = None if asked is None else asked * speed, _memory_now(vm)
        known[i] &= now_cpu is not None and now_memory is not None
        cpu[i, -1] = cpu[i, :-1].max() if now_cpu is None else now_cpu
        memory[i, -1] = memory[i, :-1].max() if now_memory is None else now_memory
        granted[i] = vm.facts.memory_bytes if not known[i] else 0
    cpu[~active], memory[~active], granted[~active] = 0, 0, 0
    return Demand(
        paths=scenarios.paths,
        steps=scenarios.steps,
        step_seconds=scenarios.step_seconds,
        cpu=cpu,
        memory=memory,
        hard_memory=np.maximum(granted, memory.max(axis=1, initial=0).astype(np.float64)),
        mean_cores=cpu.mean(axis=1, dtype=np.float64),
        known=known,
        active=active,
    )
