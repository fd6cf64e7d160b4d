"""Hours of measured host load: how long hosts were hot, and which hotspots advice had seen coming."""

from collections.abc import Collection, Sequence

import numpy as np

from rebalancerd.cluster.advice import HostTerms, WatchedHour
from rebalancerd.record.hindsight import Flags, Floats, Past

HOUR_SECONDS = 3600.0
LEAD_ROWS = 2  # a hotspot lasts two steps at least


def watched_hour(
    hour: int,
    past: Past,
    hosts: Sequence[HostTerms],
    *,
    cpu_headroom: float,
    memory_headroom: float,
    advised: Collection[tuple[str, float, float]],
) -> WatchedHour:
    """What the hour of that number since the epoch was like.

    ``advised``: (source, proposed at, end of the window) of advice that reaches into the hour. A host is hot in a step in
    which its measured use beyond its reservation is above a headroom. A gap leaves a host as hot, or as cool, as it was.
    """
    step = past.step_seconds
    steps = max(1, round(HOUR_SECONDS / step))
    ends = hour * HOUR_SECONDS + step * np.arange(1 - LEAD_ROWS, steps + 1, dtype=np.float64)
    names = [host.name for host in hosts]
    busy, held = (past.values(r, names, ends) for r in ("host_cpu_cores", "host_memory_bytes"))
    known = np.isfinite(busy)[LEAD_ROWS:]
    hot = _hot(busy, held, hosts, cpu_headroom, memory_headroom)
    counts = {"foreseen": 0, "late": 0, "unadvised": 0}
    for i, name in enumerate(names):
        for row in _onsets(hot[:, i], np.isfinite(busy[:, i])):
            counts[_kind(name, float(ends[row]) - step, (hour + 1) * HOUR_SECONDS, advised)] += 1
    return WatchedHour(
        hour=hour,
        known=float(known.mean()) if known.size else 0.0,
        hot_seconds=float(hot[LEAD_ROWS:].sum()) * step,
        **counts,
    )


def _hot(busy: Floats, held: Floats, hosts: Sequence[HostTerms], cpu_headroom: float, memory_headroom: float) -> Flags:
    """(T, N): which host was above a headroom when; unknown is not."""
    cpu_limit = np.array([h.reserved_cores + cpu_headroom * (h.cores - h.reserved_cores) for h in hosts])
    memory_limit = np.array([h.reserved_memory_bytes + memory_headroom * h.capacity_memory_bytes for h in hosts])
    found: Flags = (busy > cpu_limit) | (held > memory_limit)
    return found


def _onsets(hot: Flags, known: Flags) -> list[int]:
    """Rows at which a hotspot of two steps or more begins, of those whose second step lies in the hour."""
    state, filled = False, []
    for now, told in zip(hot, known, strict=True):
        state = bool(now) if told else state
        filled.append(state)
    return [r for r in range(LEAD_ROWS - 1, len(filled) - 1) if filled[r] and filled[r + 1] and not filled[r - 1]]


def _kind(host: str, began: float, end: float, advised: Collection[tuple[str, float, float]]) -> str:
    mine = [(proposed, due) for source, proposed, due in advised if source == host]
    if any(proposed <= began <= due for proposed, due in mine):
        return "foreseen"
    return "late" if any(began < proposed <= end for proposed, _ in mine) else "unadvised"
