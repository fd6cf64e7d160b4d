"""PhysicsCost: the cost of migrations from physics alone, with bounds that widen for whatever was not measured.

Every candidate is simulated at seven levels of bad luck at once (``LEVELS``, standard deviations). A level moves the
dirty curve by its standard errors and by a model error, the rate the other way, and picks the shape of the curve left
of its first measured point: the chord from the origin for good luck, the prolonged first segment from level 0 on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.cost import Candidate, Estimate, MigrationCost
from rebalancerd.cluster.dirty import DirtyCurve
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import Vm
from rebalancerd.predict.demand import memory_demand_bytes
from rebalancerd.predict.physics import DirtyCurves, Floats, Precopy, PrecopyInputs, simulate, wire_bytes
from rebalancerd.predict.settings import PredictSettings

# Standard normal quantiles .1 .3 .5 .7 .9, and the same five seen from the pessimist's side (level 1.28 is its median).
LEVELS = (-1.2816, -0.5244, 0.0, 0.5244, 1.2816, 1.8060, 2.5631)
EXPECTED, UPPER = 2, 4  # columns of LEVELS: median, 90 %
VALUE_LEVELS, UPPER_LEVELS = slice(0, 5), slice(2, 7)

MODEL_SPREAD = 0.10  # Gudkov 2023 reports typical errors of 6-7 % for this model with good curves
SINGLE_READING_SPREAD = 0.30
AGE_SPREAD_PER_HOUR, AGE_SPREAD_MAX = 0.30, 0.60
RATE_SPREAD = 0.05
SURE = (0.01, 0.02)  # never quite sure, even where every level converges
NOT_MEASURED = (0.10, 0.30)  # non-convergence where no dirty curve is known
# Akoush et al., MASCOTS 2010: a pre-copy that ends has sent at most about five times the memory
COPIES_UPPER = 5.0
SLOWDOWN = (0.02, 0.10)  # dirty logging write-protects pages; assumed, until measured
OVERHEAD_UPPER = 1.5
SWITCHOVER_UPPER = 2.5
ABSURD = 1e18  # bytes, or bytes per second: no machine has them
UNKNOWN_LINK_BYTES_PER_SECOND, UNKNOWN_LINK_UPPER = 125_000_000.0, 0.1


@dataclass(frozen=True, slots=True)
class _Guest:
    """What of a VM a migration costs: RAM in bytes and its dirty curve at the levels, shape (levels, points)."""

    resident: float
    zero: float
    seconds: tuple[float, ...]
    unique: tuple[tuple[float, ...], ...]
    measured: bool
    missing: tuple[str, ...]


class PhysicsCost:
    """Cost of migrations by the simulated pre-copy; implements ``interface.CostModel``. Post-copy is given no credit."""

    basis = "physics"

    def __init__(self, settings: PredictSettings) -> None:
        self._settings = settings

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> tuple[MigrationCost, ...]:
        """One cost per candidate, in their order.

        What is missing is named in ``inputs_missing`` and widens the bounds: ``dirty`` (no curve: non-convergence .10,
        upper .30; time bounded by five copies of the memory), ``dirty_second_period``, ``memory`` (all configured
        memory is taken for non-zero), ``link`` (1 Gbit/s, upper bound at a tenth), ``vm`` (nothing is known: no bound).
        """
        guests: dict[str, _Guest] = {}
        for c in candidates:
            vm = snapshot.vm_by_uuid.get(c.vm_uuid)
            if vm is not None and c.vm_uuid not in guests:
                guests[c.vm_uuid] = _guest(vm)
        known = [i for i, c in enumerate(candidates) if c.vm_uuid in guests]
        found: list[MigrationCost | None] = [None] * len(candidates)
        if known:
            batch = _Batch(self._settings, snapshot, [candidates[i] for i in known], guests)
            for i, cost in zip(known, batch.costs(), strict=True):
                found[i] = cost
        return tuple(cost or self._nothing_known() for cost in found)

    def _nothing_known(self) -> MigrationCost:
        unbounded = Estimate(value=self._settings.deadline_seconds, upper=float("inf"))
        return MigrationCost(
            seconds=unbounded,
            downtime_seconds=Estimate(value=0.0, upper=float("inf")),
            bytes=Estimate(value=0.0, upper=float("inf")),
            slowdown=Estimate(value=1.0, upper=1.0),
            non_convergence=Estimate(value=1.0, upper=1.0),
            basis=self.basis,
            inputs_missing=("vm",),
        )


class _Batch:
    """All candidates of one question, as arrays: rows are candidates, simulated once per level."""

    def __init__(
        self, settings: PredictSettings, snapshot: Snapshot, candidates: list[Candidate], guests: dict[str, _Guest]
    ) -> None:
        self.settings, self.candidates = settings, candidates
        place = {uuid: i for i, uuid in enumerate(guests)}
        self.guests, self.row = list(guests.values()), np.array([place[c.vm_uuid] for c in candidates], dtype=np.intp)
        links = [_link(snapshot, c) for c in candidates]
        share = np.array([min(1.0, max(1e-3, c.link_share)) for c in candidates])
        self.link_known = np.array([link is not None for link in links])
        link = np.array([UNKNOWN_LINK_BYTES_PER_SECOND if link is None else link for link in links])
        self.link = link * settings.link_efficiency * share
        # None and 0 both mean no cap, as in libvirt; a smaller cap than a byte a second is one byte a second
        self.cap = np.array([max(1.0, c.options.bandwidth_bytes_per_second or np.inf) for c in candidates])
        self.downtime = np.array([max(0.0, c.options.max_downtime_seconds) for c in candidates])
        self.auto = np.array([c.options.auto_converge for c in candidates], dtype=np.bool_)
        self.resident = np.array([g.resident for g in self.guests])[self.row]
        self.zero = np.array([g.zero for g in self.guests])[self.row]

    def costs(self) -> list[MigrationCost]:
        """The cost of every candidate."""
        runs = [self._run(level) for level in range(len(LEVELS))]
        failed = np.array([~r.converged for r in runs], dtype=np.float64)
        expected, upper = runs[EXPECTED], runs[UPPER]
        measured = np.array([g.measured for g in self.guests])[self.row]
        overhead, switchover = self.settings.overhead_seconds, self.settings.switchover_seconds
        low_link = self._link(UPPER)
        low_rate = np.minimum(self.cap, low_link)
        copy = wire_bytes(self.resident, self.zero)
        bounded = measured | (copy / low_rate <= self.downtime)
        # with no readings: five copies, unless the allowed time is shorter; the remainder is what the switch-over allows
        five = np.minimum(COPIES_UPPER * copy / low_rate, self.settings.deadline_seconds)
        seconds_upper = np.where(bounded, upper.seconds, np.maximum(five, expected.seconds))
        bytes_upper = np.where(bounded, upper.bytes, np.maximum(COPIES_UPPER * copy, expected.bytes))
        # luck adds a round where the remainder passes what is allowed, so between two round counts lies that very worst
        allowed = np.minimum(self.cap, self.link) * self.downtime / low_link
        likely = runs[VALUE_LEVELS]
        steady = np.ptp([r.rounds for r in likely], axis=0) == 0
        downtime_upper = np.max([r.downtime_seconds for r in likely], axis=0)
        downtime_upper = np.where(bounded & steady, downtime_upper, np.maximum(allowed, downtime_upper))
        never = failed[VALUE_LEVELS].mean(axis=0), failed[UPPER_LEVELS].mean(axis=0)
        value, bound = _clipped(never[0], SURE[0]), _clipped(never[1], SURE[1])
        value = np.where(bounded, value, np.maximum(value, NOT_MEASURED[0]))
        bound = np.where(bounded, bound, np.maximum(bound, NOT_MEASURED[1]))
        columns = (
            _pairs(expected.seconds + overhead, seconds_upper + overhead * OVERHEAD_UPPER),
            _pairs(expected.downtime_seconds + switchover, downtime_upper + switchover * SWITCHOVER_UPPER),
            _pairs(expected.bytes, bytes_upper),
            _pairs(*(np.minimum(1.0, s + r.throttle) for s, r in zip(SLOWDOWN, (expected, upper), strict=True))),
            _pairs(value, bound),
        )
        return [
            MigrationCost(
                seconds=seconds,
                downtime_seconds=downtime,
                bytes=sent,
                slowdown=slowdown,
                non_convergence=never_ends,
                basis=PhysicsCost.basis,
                inputs_missing=self.guests[row].missing if link else (*self.guests[row].missing, "link"),
            )
            for row, link, seconds, downtime, sent, slowdown, never_ends in zip(
                self.row.tolist(), self.link_known.tolist(), *columns, strict=True
            )
        ]

    def _run(self, level: int) -> Precopy:
        """Every candidate at one level."""
        z = LEVELS[level]
        points = max(2, *(len(g.seconds) for g in self.guests))
        rows = [_padded(g.seconds, g.unique[level], points) for g in self.guests]
        curves = DirtyCurves.of(
            np.array([r[0] for r in rows]),
            np.array([r[1] for r in rows]),
            np.array([g.resident for g in self.guests]),
            left_weight=min(1.0, max(0.0, 1 + z / -LEVELS[0])),
            lone=np.array([len(g.seconds) == 1 for g in self.guests]),
        )
        link = self._link(level)
        return simulate(
            PrecopyInputs(
                resident_bytes=self.resident,
                zero_bytes=self.zero,
                rate_bytes_per_second=np.minimum(self.cap, link),
                link_bytes_per_second=link,
                max_downtime_seconds=self.downtime,
                deadline_seconds=np.full(len(self.row), self.settings.deadline_seconds),
                auto_converge=self.auto,
                curves=curves.take(self.row),
            )
        )

    def _link(self, level: int) -> Floats:
        """Link rate at a level: bad luck makes it slower, and much slower where it is not known."""
        z = LEVELS[level]
        rate: Floats = self.link * np.where(self.link_known | (z <= 0), 1 - RATE_SPREAD * z, UNKNOWN_LINK_UPPER)
        return rate


def _guest(vm: Vm) -> _Guest:
    """RAM and dirty curve of a VM, with what is unknown replaced by the cautious side and named."""
    configured = float(max(1, vm.facts.memory_bytes))
    held = memory_demand_bytes(vm)
    missing: tuple[str, ...] = () if held is not None else ("memory",)
    resident = configured if held is None else min(configured, held)
    curve = _usable(vm.dirty)
    if curve is None:
        # only for the expected value: a tenth of the memory within 4 s, as an interactive guest; the bounds ignore it
        assumed = ((0.04 * resident, 0.10 * resident),) * len(LEVELS)
        return _Guest(resident, configured - resident, (1.0, 4.0), assumed, False, (*missing, "dirty"))
    if len(curve.points) == 1:
        missing = (*missing, "dirty_second_period")
    seconds = tuple(p.period_seconds for p in curve.points)
    unique = np.array([p.unique_bytes for p in curve.points])
    spread = _spread(curve)
    levels = tuple(tuple(float(u) for u in np.maximum(0.0, unique + z * spread)) for z in LEVELS)
    return _Guest(resident, configured - resident, seconds, levels, True, missing)


def _usable(curve: DirtyCurve | None) -> DirtyCurve | None:
    """The curve, or None if it holds figures that are no measurement."""
    sound = curve is not None and all(0 <= p.unique_bytes <= ABSURD for p in curve.points)
    return curve if sound else None


def _spread(curve: DirtyCurve) -> NDArray[np.float64]:
    """Standard deviation of each point: its standard error, the model's error and the curve's age, in quadrature."""
    unique = np.array([p.unique_bytes for p in curve.points])
    told = [0 <= p.standard_error_bytes <= ABSURD for p in curve.points]
    few = np.array([p.readings < 2 or not ok for p, ok in zip(curve.points, told, strict=True)])
    error = np.array([p.standard_error_bytes if ok else 0.0 for p, ok in zip(curve.points, told, strict=True)])
    error = np.where(few, np.maximum(error, SINGLE_READING_SPREAD * unique), error)
    single = SINGLE_READING_SPREAD if len(curve.points) == 1 else 0.0
    age = curve.age_seconds if isfinite(curve.age_seconds) else np.inf
    stale = min(AGE_SPREAD_MAX, AGE_SPREAD_PER_HOUR * max(0.0, age) / 3600)
    relative = np.sqrt(MODEL_SPREAD**2 + single**2 + stale**2)
    spread: NDArray[np.float64] = np.hypot(error, relative * unique)
    return spread


def _padded(seconds: tuple[float, ...], unique: tuple[float, ...], points: int) -> tuple[list[float], list[float]]:
    """The curve prolonged to ``points`` points, which leaves its meaning as it is."""
    t, u = list(seconds), list(np.maximum.accumulate(unique))
    slope = u[0] / t[0] if len(t) == 1 else (u[-1] - u[-2]) / (t[-1] - t[-2])
    while len(t) < points:
        t.append(t[-1] + 1.0)
        u.append(u[-1] + slope)
    return t, u


def _link(snapshot: Snapshot, candidate: Candidate) -> float | None:
    """Bytes per second of the slower end; None where an end or its figure is unknown."""
    ends: list[Host | None] = [snapshot.host_by_name.get(n) for n in (candidate.source, candidate.destination)]
    rates = [h.link_bytes_per_second for h in ends if h is not None]
    return min(rates) if len(rates) == 2 and all(1 <= r <= ABSURD for r in rates) else None


def _clipped(probability: Floats, margin: float) -> Floats:
    return np.clip(probability, margin, 1.0)


def _pairs(value: Floats, upper: Floats) -> list[Estimate]:
    """Estimates, an upper bound never below its value."""
    above = np.maximum(value, upper)
    return [Estimate(value=v, upper=u) for v, u in zip(value.tolist(), above.tolist(), strict=True)]
