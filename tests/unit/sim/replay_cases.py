"""Small cases for tests of replaying: loads that are told by hand."""

from collections.abc import Mapping, Sequence

import numpy as np

from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.sim.clock import EPOCH
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.replay_case import ReplayCase
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec

STEP = 300.0


def case(
    loads: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    cpus: int = 8,
    past_rows: int = 24,
    minutes: float = 30.0,
    vcpus: int = 4,
    overhead: float = 0.2,
) -> ReplayCase:
    """``loads``: host → VM → cores asked for in each step of the replay; before it the first of them, evenly."""
    hosts = tuple(HostSpec(name=h, cpus=cpus, memory_bytes=64 * GIB, overhead_cores=overhead) for h in loads)
    vms = tuple(
        VmSpec(
            name=name,
            host=host,
            vcpus=vcpus,
            memory_bytes=2 * GIB,
            demand=Demand(trace=tuple(cores), trace_step_seconds=STEP),
            dirty_bytes_per_second=1.0 * MIB,
            working_set_bytes=16.0 * MIB,
        )
        for host, guests in loads.items()
        for name, cores in guests.items()
    )
    first = np.array([vm.demand.trace[0] for vm in vms], dtype=np.float32)
    return ReplayCase(
        cluster=ClusterSpec(hosts=hosts, vms=vms),
        start=EPOCH,
        seconds=minutes * 60,
        step_seconds=STEP,
        past_cpu=np.tile(first, (past_rows, 1)),
        past_memory=np.full((past_rows, len(vms)), 1.5 * GIB, dtype=np.float32),
        told=("told by hand",),
    )


def crowded(minutes: float = 30.0) -> ReplayCase:
    """One host is asked for ten cores and has eight, the two others are nearly idle."""
    return case(
        {"a": {f"busy-{i}": (2.0,) for i in range(5)}, "b": {"idle-1": (0.3,)}, "c": {"idle-2": (0.3,)}},
        minutes=minutes,
    )
