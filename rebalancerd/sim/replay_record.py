"""A case from what a daemon recorded: its own hosts, VMs and placement, as they were when the replay begins.

What a VM used on its host, plus what it waited for there (at most a quarter of its use, as a cycle counts it), is what
it asks for in the replay, wherever it then is. Storage and networks are not recorded: every host reaches all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rebalancerd.cluster.demand import STARVED_GROWTH
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.observe.cluster_file import FILE, RecordedCluster, RecordedHost, RecordedVm
from rebalancerd.observe.history import HOST_CPU, VM_CPU, VM_DIRTY, VM_MEMORY, VM_STEAL
from rebalancerd.observe.traces.error import TraceError
from rebalancerd.observe.traces.recorded import (
    RecordedSeries,
    aligned,
    history_directory,
    recorded_cluster,
    recorded_series,
    recorded_steps,
)
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.replay_case import Floats, ReplayCase, ReplayError, filled
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec

KNOWN_SHARE = 0.5
LEAST_PAST_ROWS = 12
OVERHEAD_LEAST_CORES = 0.05
UNKNOWN_DIRTY = 8.0 * MIB  # bytes per second, where none was ever measured


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What was recorded of the VMs that are replayed; float32 (T, V) each, cores of the host, bytes, bytes per second."""

    cpu: Floats
    steal: Floats
    memory: Floats
    dirty: Floats


def case_of_record(directory: Path, *, hours: float) -> ReplayCase:
    """The last hours recorded in a daemon's state directory. Raises TraceError, ReplayError."""
    found = history_directory(directory)
    cluster = recorded_cluster(found)
    if cluster is None or not cluster.hosts:
        raise TraceError(
            found / FILE, "not there: sizes and placement were not recorded by the version that wrote this"
        )
    step = recorded_steps(found)[0]
    cpu = recorded_series(found, VM_CPU, step)
    rows, total = max(1, round(hours * 3600 / step)), len(cpu.values)
    if total < rows + LEAST_PAST_ROWS:
        raise ReplayError(
            f"{found}: {total * step / 3600:.1f} h are recorded every {step:g} s; {hours:g} h of replay need "
            f"{LEAST_PAST_ROWS * step / 3600:.1f} h of history before them"
        )
    past = total - rows
    start = cpu.start + past * step
    vms, columns, left_out = _present(cluster, cpu, past, start)
    if not vms:
        raise ReplayError(f"{found}: no VM is known for half of the last {hours:g} h and stood on a known host then")
    others = [aligned(recorded_series(found, r, step), cpu) for r in (VM_STEAL, VM_MEMORY, VM_DIRTY)]
    load = _Recorded(cpu.values[:, columns], *(values[:, columns] for values in others))
    places = [vm.host_at(start) or "" for vm in vms]
    overhead = _overhead(found, step, load, places, cpu)
    hosts = tuple(_host(host, overhead.get(host.name, OVERHEAD_LEAST_CORES)) for host in cluster.hosts)
    memory = filled(load.memory)[past:]
    return ReplayCase(
        cluster=ClusterSpec(hosts=hosts, vms=_vms(vms, places, load, cluster, past=past, start=cpu.start, step=step)),
        start=start,
        seconds=rows * step,
        step_seconds=step,
        past_cpu=load.cpu[:past],
        past_memory=load.memory[:past],
        memory=np.where(np.isfinite(memory), memory, [0.75 * vm.memory_bytes for vm in vms]).astype(np.float32),
        told=(
            f"{len(hosts)} hosts and {len(vms)} VMs as recorded in {directory}{_omitted(left_out)}",
            f"{past * step / 3600:.1f} h of history, then {rows * step / 3600:g} h of replay; placement as it was at its start",
        ),
    )


def _present(
    cluster: RecordedCluster, cpu: RecordedSeries, past: int, start: float
) -> tuple[list[RecordedVm], list[int], int]:
    """VMs with half of the replay known, that stood on a known host at its start; their columns; how many are left out."""
    names = {host.name for host in cluster.hosts}
    known = np.isfinite(cpu.values[past:]).mean(axis=0) >= KNOWN_SHARE
    vms, columns, left_out = [], [], 0
    for column, uuid in enumerate(cpu.ids):
        if not np.isfinite(cpu.values[past:, column]).any():
            continue  # long gone
        vm = cluster.vms.get(uuid)
        if vm is None or not known[column] or vm.host_at(start) not in names:
            left_out += 1
            continue
        vms.append(vm)
        columns.append(column)
    return vms, columns, left_out


def _overhead(
    directory: Path, step: float, load: _Recorded, places: Sequence[str], like: RecordedSeries
) -> dict[str, float]:
    """Cores each host uses beside its VMs: the median difference over the recorded rows, no less than a little."""
    hosts = recorded_series(directory, HOST_CPU, step)
    frame = RecordedSeries(hosts.ids, step, like.start, np.empty((len(like.values), len(hosts.ids)), dtype=np.float32))
    busy = aligned(hosts, frame)
    found = {}
    for i, name in enumerate(hosts.ids):
        own = [v for v, place in enumerate(places) if place == name]
        rest = busy[:, i] - np.nansum(load.cpu[:, own], axis=1)
        rest = rest[np.isfinite(rest)]
        found[name] = max(OVERHEAD_LEAST_CORES, float(np.median(rest))) if rest.size else OVERHEAD_LEAST_CORES
    return found


def _host(host: RecordedHost, overhead: float) -> HostSpec:
    cpus = max(1, round(host.cpus))
    return HostSpec(
        name=host.name,
        cpus=cpus,
        memory_bytes=host.memory_bytes,
        speed_factor=host.speed_factor,
        link_bytes_per_second=host.link_bytes_per_second,
        overhead_cores=min(overhead, 0.5 * cpus),
        overhead_memory_bytes=min(1 * GIB, host.memory_bytes // 20),
        failure_domain=host.failure_domain,
        mode=host.mode,
        reserved_cores=host.reserved_cores,
        reserved_memory_bytes=host.reserved_memory_bytes,
    )


def _vms(
    vms: Sequence[RecordedVm],
    places: Sequence[str],
    load: _Recorded,
    cluster: RecordedCluster,
    *,
    past: int,
    start: float,
    step: float,
) -> tuple[VmSpec, ...]:
    speed = {host.name: host.speed_factor for host in cluster.hosts}
    waited = np.minimum(np.nan_to_num(load.steal), STARVED_GROWTH * load.cpu)
    asked = filled(load.cpu + waited)
    made = []
    for i, vm in enumerate(vms):
        factors = [
            speed.get(vm.host_at(start + row * step) or places[i], speed[places[i]]) for row in range(past, len(asked))
        ]
        wanted = np.minimum(asked[past:, i], float(vm.vcpus)) * np.array(factors)
        dirty = load.dirty[:, i][np.isfinite(load.dirty[:, i])]
        held = load.memory[:past, i][np.isfinite(load.memory[:past, i])]
        made.append(
            VmSpec(
                name=vm.name,
                uuid=vm.uuid,
                host=places[i],
                vcpus=vm.vcpus,
                memory_bytes=vm.memory_bytes,
                rss_bytes=int(held[-1]) if held.size else None,
                demand=Demand(trace=tuple(wanted.astype(float).tolist()), trace_step_seconds=step),
                immovable=vm.immovable,
                owner=vm.owner,
                policy=vm.policy,
                dirty_bytes_per_second=float(dirty.mean()) if dirty.size else UNKNOWN_DIRTY,
            )
        )
    return tuple(made)


def _omitted(count: int) -> str:
    return f" ({count} VMs left out: half of their load, their size or their place is not known)" if count else ""
