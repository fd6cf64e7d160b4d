"""The daemon's own history as traces: read while a daemon may be writing it, without its locks and without a change.

The rings hold cores and bytes. Sizes come from ``cluster.json`` beside them; where a VM is not in it (an older version
recorded it), its size is the largest value recorded, rounded up to whole vCPUs, so that its shares are upper bounds.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.trace import Trace
from rebalancerd.observe.cluster_file import FILE, ClusterFileError, RecordedCluster, read_cluster
from rebalancerd.observe.history import RESOURCES, VM_CPU, VM_MEMORY
from rebalancerd.observe.ring_file import RingFileError, copy_ring
from rebalancerd.observe.slot_index import SlotIndex, SlotIndexError
from rebalancerd.observe.traces.error import TraceError
from rebalancerd.observe.traces.shares import MOST_CPU, MOST_MEMORY

Floats = NDArray[np.float32]
TRIES = 5


@dataclass(frozen=True, slots=True)
class RecordedSeries:
    """One resource as recorded: float32 (T, N), its own units, NaN unknown; the first row begins at ``start``."""

    ids: tuple[str, ...]
    step_seconds: float
    start: float
    values: Floats


def history_directory(directory: Path) -> Path:
    """Where the rings are: in that directory, or in ``history`` under it. Raises TraceError where they are in neither."""
    for found in (directory / "history", directory):
        if found.is_dir() and any(found.glob("*.ring")):
            return found
    raise TraceError(directory, "no recorded history in it; give the daemon's state directory")


def recorded_steps(directory: Path) -> tuple[float, ...]:
    """The steps at which the CPU of VMs is recorded there, finest first. Raises TraceError."""
    steps = [_step_of(path) for path in directory.glob(f"{VM_CPU}.*s.ring")]
    if not steps:
        raise TraceError(directory, f"no ring of {VM_CPU}")
    return tuple(sorted(steps))


def recorded_series(directory: Path, resource: str, step_seconds: float) -> RecordedSeries:
    """A resource's complete rows at that step, one column for each VM or host that has any value. Raises TraceError."""
    path = directory / f"{resource}.{step_seconds:g}s.ring"
    index_path = directory / f"{RESOURCES[resource]}.slots.json"
    for _ in range(TRIES):
        try:
            if not index_path.exists():
                raise TraceError(index_path, "not there, so nobody knows whose columns these are")
            before, ring, after = SlotIndex(index_path), copy_ring(path), SlotIndex(index_path)
        except (RingFileError, SlotIndexError) as error:
            raise TraceError(path, str(error)) from error
        except OSError as error:
            raise TraceError(path, error.strerror or str(error)) from error
        ids = [i for i in before.ids() if before.slot(i) < ring.values.shape[1]]
        if all(after.get(i) == before.slot(i) for i in ids):
            break
    else:
        raise TraceError(path, "its columns change faster than they can be read; try again")
    values = ring.values[:, [before.slot(i) for i in ids]]
    with np.errstate(invalid="ignore"):
        values[~(values >= 0) | np.isinf(values)] = np.nan
    kept = np.isfinite(values).sum(axis=0) > 0
    return RecordedSeries(
        ids=tuple(i for i, keep in zip(ids, kept, strict=True) if keep),
        step_seconds=ring.step_seconds,
        start=ring.first * ring.step_seconds,
        values=values[:, kept],
    )


def read_history(directory: Path) -> tuple[Trace, ...]:
    """The recorded history, a trace for each step it is kept at, finest first; steps without a complete row are left out.

    ``directory``: the daemon's state directory or its history. Values that no load can be (more than four times a VM's
    vCPUs, ten times its memory) are unknown and counted. Raises TraceError.
    """
    found = history_directory(directory)
    cluster = recorded_cluster(found)
    traces = [_trace(found, step, cluster) for step in recorded_steps(found)]
    usable = tuple(trace for trace in traces if trace is not None)
    if not usable:
        raise TraceError(found, "nothing is recorded yet")
    return usable


def recorded_cluster(directory: Path) -> RecordedCluster | None:
    """Sizes and placement recorded beside the history, None where they were not. Raises TraceError."""
    path = directory / FILE
    if not path.exists():
        return None
    try:
        return read_cluster(path)
    except ClusterFileError as error:
        raise TraceError(path, str(error)) from error
    except OSError as error:
        raise TraceError(path, error.strerror or str(error)) from error


def _trace(directory: Path, step: float, cluster: RecordedCluster | None) -> Trace | None:
    cpu = recorded_series(directory, VM_CPU, step)
    if not cpu.values.size:
        return None
    memory = aligned(recorded_series(directory, VM_MEMORY, step), cpu)
    vms = cluster.vms if cluster is not None else {}
    peak = [np.nanmax(v, axis=0, initial=0.0) for v in (cpu.values, memory)]
    cores = np.array([vms[i].vcpus if i in vms else max(1, np.ceil(p)) for i, p in zip(cpu.ids, peak[0], strict=True)])
    size = np.array([vms[i].memory_bytes if i in vms else max(1.0, p) for i, p in zip(cpu.ids, peak[1], strict=True)])
    dropped: Counter[str] = Counter()
    return Trace(
        set="history",
        part=f"{step:g}s",
        ids=cpu.ids,
        step_seconds=step,
        start=cpu.start,
        cpu=_shares(cpu.values, cores, MOST_CPU, "cpu_huge", dropped),
        memory=_shares(memory, size, MOST_MEMORY, "memory_huge", dropped),
        cores=cores.astype(np.float64),
        memory_bytes=size.astype(np.float64),
        dropped=tuple(sorted(dropped.items())),
    )


def aligned(series: RecordedSeries, like: RecordedSeries) -> Floats:
    """The values of ``series`` in the rows and columns of ``like``, NaN where it has none. Of one step."""
    out = np.full(like.values.shape, np.nan, dtype=np.float32)
    shift = round((series.start - like.start) / like.step_seconds)
    rows = np.arange(len(series.values)) + shift
    keep = (rows >= 0) & (rows < len(out))
    place = {name: column for column, name in enumerate(series.ids)}
    pairs = [(column, place[name]) for column, name in enumerate(like.ids) if name in place]
    if pairs:
        to, of = (np.array(part, dtype=np.intp) for part in zip(*pairs, strict=True))
        out[np.ix_(rows[keep], to)] = series.values[np.ix_(np.flatnonzero(keep), of)]
    return out


def _shares(values: Floats, size: NDArray[np.float64], most: float, reason: str, dropped: Counter[str]) -> Floats:
    out = (values / size).astype(np.float32)
    with np.errstate(invalid="ignore"):
        huge = out > most
    if huge.any():
        dropped[reason] += int(huge.sum())
        out[huge] = np.nan
    return out


def _step_of(path: Path) -> float:
    try:
        return float(path.name.removesuffix("s.ring").rpartition(f"{VM_CPU}.")[2])
    except ValueError:
        raise TraceError(path, "its name does not tell its step") from None
