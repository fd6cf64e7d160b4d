"""CostInputs: what is known of many candidates as arrays, from a snapshot or from rows on record; unknown is NaN.

What is a VM's own (memory, dirty curve) stands once for each guest and is pointed to by ``row``; the rest stands once for
each candidate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.cost import Candidate, MigrationOptions
from rebalancerd.cluster.dirty import DirtyCurve
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import VmLoad
from rebalancerd.predict.demand.persistence import memory_demand_bytes

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ABSURD = 1e18  # bytes, or bytes per second: no machine has them
SINGLE_READING_SPREAD = 0.30
LEAST_LINK_SHARE = 1e-3


@dataclass(frozen=True, slots=True)
class Guest:
    """What of a VM a migration costs. ``points``: (seconds, unique bytes, standard error, readings), () if unknown."""

    memory: float
    resident: float
    vcpus: float
    cpu: float
    steal: float
    points: tuple[tuple[float, float, float, float], ...]
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CostInputs:
    """N candidates of G guests.

    Guests, shape (G,): ``memory``, ``resident`` (bytes), ``vcpus``, ``cpu``, ``steal`` (cores), ``points`` (number of
    periods measured, 0: none), ``age`` (seconds); shape (G, P): ``periods`` (seconds, increasing), ``unique``,
    ``error`` (bytes), ``readings``; columns from ``points`` on repeat nothing and hold NaN.
    Candidates, shape (N,): ``row`` (its guest), ``known`` (False: no such VM), ``link`` (bytes/s, rated), ``share``,
    ``cap`` (bytes/s, infinite: none), ``downtime``, ``deadline`` (seconds), ``auto``, ``parallel``, ``source_cores``,
    ``source_busy``, ``destination_cores``, ``destination_busy`` (shares of the usable cores kept busy).
    """

    memory: Floats
    resident: Floats
    vcpus: Floats
    cpu: Floats
    steal: Floats
    points: NDArray[np.int64]
    age: Floats
    periods: Floats
    unique: Floats
    error: Floats
    readings: Floats
    row: NDArray[np.intp]
    known: Bools
    link: Floats
    share: Floats
    cap: Floats
    downtime: Floats
    deadline: Floats
    auto: Bools
    parallel: Floats
    source_cores: Floats
    source_busy: Floats
    destination_cores: Floats
    destination_busy: Floats

    def __len__(self) -> int:
        return int(self.row.shape[0])

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot, candidates: Sequence[Candidate], deadline_seconds: float) -> "CostInputs":
        """What a snapshot says of candidates; each VM and host is looked at once."""
        place: dict[str, int] = {}
        guests: list[Guest] = []
        rows = []
        for c in candidates:
            at = place.get(c.vm_uuid)
            if at is None:
                vm = snapshot.vm_by_uuid.get(c.vm_uuid)
                at = -1 if vm is None else len(guests)
                place[c.vm_uuid] = at
                if vm is not None:
                    held = memory_demand_bytes(vm)
                    guests.append(_guest(vm.facts.memory_bytes, held, vm.facts.vcpus, vm.load, vm.dirty))
            rows.append(at)
        named, known = {name for c in candidates for name in (c.source, c.destination)}, snapshot.host_by_name
        hosts = {name: _host(known[name]) for name in named if name in known}
        unknown = (math.nan,) * 3
        sources = [hosts.get(c.source, unknown) for c in candidates]
        destinations = [hosts.get(c.destination, unknown) for c in candidates]
        return _assembled(
            guests,
            rows,
            links=[
                min(s[0], d[0]) if s[0] == s[0] and d[0] == d[0] else math.nan
                for s, d in zip(sources, destinations, strict=True)
            ],
            shares=[c.link_share for c in candidates],
            options=[c.options for c in candidates],
            deadlines=[deadline_seconds] * len(candidates),
            sources=[s[1:] for s in sources],
            destinations=[d[1:] for d in destinations],
        )

    @classmethod
    def of_facts(cls, facts: Sequence[MigrationFacts], deadline_seconds: Sequence[float]) -> "CostInputs":
        """What rows on record say, each with its own deadline (seconds)."""
        guests = [
            _guest(
                f.memory_bytes,
                _sane(f.resident_bytes) or None,
                f.vcpus,
                VmLoad(cpu_cores=f.vm_cpu_cores, steal_cores=f.vm_steal_cores),
                f.dirty,
            )
            for f in facts
        ]
        return _assembled(
            guests,
            list(range(len(facts))),
            links=[_link(f.link_bytes_per_second) for f in facts],
            shares=[f.link_share for f in facts],
            options=[f.options for f in facts],
            deadlines=list(deadline_seconds),
            sources=[_busy(f.source_cores, f.source_cpu_cores) for f in facts],
            destinations=[_busy(f.destination_cores, f.destination_cpu_cores) for f in facts],
        )


def _assembled(
    guests: list[Guest],
    rows: list[int],
    *,
    links: list[float],
    shares: list[float],
    options: list[MigrationOptions],
    deadlines: list[float],
    sources: list[tuple[float, ...]],
    destinations: list[tuple[float, ...]],
) -> CostInputs:
    guests = guests or [Guest(1.0, math.nan, 1.0, math.nan, math.nan, (), math.nan)]
    width = max(2, *(len(g.points) for g in guests))
    table = np.full((len(guests), width, 4), np.nan)
    for i, guest in enumerate(guests):
        if guest.points:
            table[i, : len(guest.points)] = guest.points
    row = np.array(rows, dtype=np.intp)
    own = np.array([(g.memory, g.resident, g.vcpus, g.cpu, g.steal, g.age) for g in guests], dtype=np.float64)
    ends = np.array([(*s, *d) for s, d in zip(sources, destinations, strict=True)], dtype=np.float64).reshape(-1, 4)
    return CostInputs(
        memory=own[:, 0],
        resident=own[:, 1],
        vcpus=own[:, 2],
        cpu=own[:, 3],
        steal=own[:, 4],
        age=own[:, 5],
        points=np.array([len(g.points) for g in guests], dtype=np.int64),
        periods=table[:, :, 0],
        unique=table[:, :, 1],
        error=table[:, :, 2],
        readings=table[:, :, 3],
        row=np.maximum(row, 0),
        known=row >= 0,
        link=np.array(links, dtype=np.float64),
        share=np.clip(np.array(shares, dtype=np.float64), LEAST_LINK_SHARE, 1.0),
        # None and 0 both mean no cap, as in libvirt; a smaller cap than a byte a second is one byte a second
        cap=np.array([max(1.0, o.bandwidth_bytes_per_second or math.inf) for o in options], dtype=np.float64),
        downtime=np.array([max(0.0, o.max_downtime_seconds) for o in options], dtype=np.float64),
        deadline=np.array(deadlines, dtype=np.float64),
        auto=np.array([o.auto_converge for o in options], dtype=np.bool_),
        parallel=np.array([o.parallel for o in options], dtype=np.float64),
        source_cores=ends[:, 0],
        source_busy=ends[:, 1],
        destination_cores=ends[:, 2],
        destination_busy=ends[:, 3],
    )


def _guest(memory: float, held: float | None, vcpus: int, load: VmLoad, dirty: DirtyCurve | None) -> Guest:
    points: tuple[tuple[float, float, float, float], ...] = ()
    age = math.nan
    # a curve with figures that are no measurement is none
    if dirty is not None and all(0 <= p.unique_bytes <= ABSURD for p in dirty.points):
        points = tuple(
            (p.period_seconds, p.unique_bytes, _error(p.unique_bytes, p.standard_error_bytes, p.readings), p.readings)
            for p in dirty.points
        )
        age = dirty.age_seconds if math.isfinite(dirty.age_seconds) else math.inf
    return Guest(
        memory=float(max(1, memory)),
        resident=math.nan if held is None else float(held),
        vcpus=float(vcpus),
        cpu=_nan(_sane(load.cpu_cores)),
        steal=_nan(_sane(load.steal_cores)),
        points=points,
        age=age,
    )


def _error(unique: float, told: float, readings: int) -> float:
    """Standard error of a point: as told, but a single reading, or one whose error is no figure, has a large one."""
    sound = 0 <= told <= ABSURD
    error = told if sound else 0.0
    return error if sound and readings >= 2 else max(error, SINGLE_READING_SPREAD * unique)


def _host(host: Host) -> tuple[float, float, float]:
    return (_link(host.link_bytes_per_second), *_busy(host.cores, host.load.cpu_cores))


def _link(rate: float | None) -> float:
    return rate if rate is not None and 1 <= rate <= ABSURD else math.nan


def _busy(cores: float | None, used: float | None) -> tuple[float, float]:
    """Usable cores and the share of them kept busy."""
    usable, busy = _sane(cores), _sane(used)
    if not usable:
        return math.nan, math.nan
    return usable, math.nan if busy is None else busy / usable


def _sane(value: float | None) -> float | None:
    return value if value is not None and 0 <= value <= ABSURD else None


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
