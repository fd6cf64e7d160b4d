"""How advice would have turned out: what was measured in its window, with the VM where it was and where it was to be.

A host's load is counted as the planner counts it: what its guests use and wait for (at most a quarter of their use, and
only where the host is short of CPU: ``cluster.demand``), plus what the host itself uses beyond its reservation, in
reference cores and bytes. The VMs of the advice and of the steps before it are taken out of the hosts where they were and
added where they would have been, so that advice is judged alike whether it was followed or not. Unmet demand is what lies
above a headroom, in core-seconds; memory counts as the cores that go with it (``plan.objective``).

Values are means over the steps of the history (5 min): a shorter peak shows only by its share of a step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.advice import Advice, AdvisedMove, HostTerms
from rebalancerd.cluster.demand import SHORT_OF_CPU, STARVED_GROWTH
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.stays import Stays

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
HOST_RESOURCES = ("host_cpu_cores", "host_memory_bytes")
RESOURCES = (*HOST_RESOURCES, "vm_cpu_cores", "vm_steal_cores", "vm_memory_bytes")


@dataclass(frozen=True)
class Past:
    """What was recorded: series by name (``RESOURCES``, the finest tier, of one step), and who stood where."""

    series: Mapping[str, Series]
    stays: Stays

    @cached_property
    def columns(self) -> dict[str, dict[str, int]]:
        """Column of each id, by series."""
        return {name: {uuid: i for i, uuid in enumerate(series.ids)} for name, series in self.series.items()}

    @property
    def step_seconds(self) -> float:
        """Seconds between two rows."""
        return self.series["host_cpu_cores"].step_seconds

    @property
    def end(self) -> float:
        """Epoch second up to which rows of host load are complete."""
        return self.series["host_cpu_cores"].end

    def values(self, resource: str, ids: Sequence[str], ends: Floats) -> Floats:
        """(T, N) values of those ids in the steps that end at ``ends`` (T,); NaN where nothing is on record."""
        series, column = self.series[resource], self.columns[resource]
        out = np.full((len(ends), len(ids)), np.nan)
        rows = len(series.values) - 1 - np.rint((series.end - ends) / series.step_seconds).astype(np.intp)
        there = np.flatnonzero((rows >= 0) & (rows < len(series.values)))
        for i, name in enumerate(ids):
            if name in column:
                out[there, i] = series.values[rows[there], column[name]]
        return out


@dataclass(frozen=True, slots=True)
class Hindsight:
    """The window of one piece of advice, T steps. ``ends``: when each ends; ``counted``: steps in which no VM of it moved.

    ``moved``: steps after the migration would have been over. Loads are (T, 2): reference cores and bytes, NaN unknown;
    ``without``: source and destination with the VM at its source, ``with_move``: with the VM moved once it could be.
    """

    ends: Floats
    counted: Flags
    moved: Flags
    source_without: Floats
    source_with: Floats
    destination_without: Floats
    destination_with: Floats


def window(advice: Advice, step_seconds: float) -> Floats:
    """Ends of the steps whose middle lies in the advice's window, shape (T,)."""
    first = np.floor((advice.proposed_at + step_seconds / 2) / step_seconds) + 1
    last = np.floor((advice.due_at + step_seconds / 2) / step_seconds)
    found: Floats = np.arange(first, last + 1) * step_seconds
    return found


def look_back(advice: Advice, past: Past, vcpus: Mapping[str, int]) -> Hindsight:
    """What was measured in the window of a piece of advice. ``vcpus``: of the VMs that are there now, by UUID.

    Raises KeyError for advice without the terms of a host that it names.
    """
    step = past.step_seconds
    ends = window(advice, step)
    middles = ends - step / 2
    moves = (*advice.before, advice.move)
    terms = {t.name: t for t in advice.hosts}
    asked = _Asked(past, ends, middles, {m.vm_uuid for m in moves}, vcpus)
    demand = {m.vm_uuid: asked.of_vm(m.vm_uuid, terms) for m in moves}
    counted = np.ones(len(ends), dtype=np.bool_)
    for uuid in demand:
        for at, _ in past.stays.changes(uuid, advice.proposed_at, advice.due_at + step):
            counted &= ~((ends - step < at) & (at < ends))
    moved = middles >= advice.proposed_at + advice.move_seconds
    source, destination = terms[advice.move.source], terms[advice.move.destination]
    others = {host.name: asked.of_others(host) for host in (source, destination)}

    def load(host: HostTerms, *, done: bool) -> Floats:
        total = others[host.name].copy()
        for move in moves:
            goes = moved & (done or move is not advice.move)
            total += np.where(_here(move, host.name, goes)[:, None], demand[move.vm_uuid], 0.0)
        return total

    return Hindsight(
        ends=ends,
        counted=counted,
        moved=moved,
        source_without=load(source, done=False),
        source_with=load(source, done=True),
        destination_without=load(destination, done=False),
        destination_with=load(destination, done=True),
    )


def _here(move: AdvisedMove, host: str, goes: Flags) -> Flags:
    """Steps in which the VM of a move is on the host, if it goes in those of ``goes``."""
    here: Flags = np.where(goes, move.destination == host, move.source == host)
    return here


class _Asked:
    """What VMs asked for, and what hosts carried beside some of them, in the steps of a window."""

    def __init__(self, past: Past, ends: Floats, middles: Floats, apart: set[str], vcpus: Mapping[str, int]) -> None:
        self._past, self._ends, self._middles, self._apart, self._vcpus = past, ends, middles, apart, vcpus

    def of_vm(self, uuid: str, terms: Mapping[str, HostTerms]) -> Floats:
        """(T, 2) demand of a VM; NaN where unknown, or where it stood on a host whose speed is not known."""
        out = np.full((len(self._ends), 2), np.nan)
        for name in {self._past.stays.host_at(uuid, float(m)) for m in self._middles}:
            if name is not None and name in terms:
                there = self._stood([uuid], name)[:, 0]
                cpu, memory = self._guests([uuid], terms[name])
                out[there, 0], out[there, 1] = cpu[there, 0] * terms[name].speed_factor, memory[there, 0]
        return out

    def of_others(self, host: HostTerms) -> Floats:
        """(T, 2) load of a host without the VMs of the advice; NaN where it is unknown."""
        start, end = float(self._ends[0]) - self._past.step_seconds, float(self._ends[-1])
        guests = self._past.stays.guests(host.name, start, end)
        there = self._stood(guests, host.name)
        apart = np.array([uuid in self._apart for uuid in guests], dtype=np.bool_)
        used = self._past.values("vm_cpu_cores", guests, self._ends)
        asked, held = self._guests(guests, host)
        busy = self._past.values("host_cpu_cores", [host.name], self._ends)[:, 0]
        total = self._past.values("host_memory_bytes", [host.name], self._ends)[:, 0]
        # a guest whose use is unknown is in the host's own use, as the planner has it; one of the advice cannot be taken out
        own_cpu = np.maximum(0.0, busy - _sum(used, there) - host.reserved_cores)
        own_memory = np.maximum(0.0, total - _sum(held, there) - host.reserved_memory_bytes)
        cpu = (_sum(asked, there & ~apart) + own_cpu) * host.speed_factor
        memory = _sum(held, there & ~apart) + own_memory
        mixed: Flags = np.any(there & apart & ~(np.isfinite(used) & np.isfinite(held)), axis=1)
        return np.where(mixed[:, None], np.nan, np.stack([cpu, memory], axis=1))

    def _stood(self, guests: Sequence[str], host: str) -> Flags:
        """(T, N): whether each guest was on the host in the middle of each step."""
        stays = self._past.stays
        told = [[stays.host_at(uuid, float(m)) == host for uuid in guests] for m in self._middles]
        return np.array(told, dtype=np.bool_).reshape(len(self._middles), len(guests))

    def _guests(self, guests: Sequence[str], host: HostTerms) -> tuple[Floats, Floats]:
        """(T, N) cores of that host asked for, and bytes held."""
        used = self._past.values("vm_cpu_cores", guests, self._ends)
        waited = np.nan_to_num(self._past.values("vm_steal_cores", guests, self._ends))
        busy = self._past.values("host_cpu_cores", [host.name], self._ends)
        short = ~(busy < SHORT_OF_CPU * host.cores)  # unknown counts as short
        most = np.array([self._vcpus.get(uuid, np.inf) for uuid in guests])
        waited = np.where(short, np.minimum(waited, STARVED_GROWTH * used), 0.0)
        asked = np.maximum(used, np.minimum(used + waited, most))
        return asked, self._past.values("vm_memory_bytes", guests, self._ends)


def _sum(values: Floats, there: Flags) -> Floats:
    """Sum over the guests that were there, what is unknown left out."""
    total: Floats = np.where(there, np.nan_to_num(values), 0.0).sum(axis=1)
    return total
