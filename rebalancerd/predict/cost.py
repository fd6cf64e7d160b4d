"""PhysicsCost: the cost of migrations from physics alone, with bounds that widen for whatever was not measured.

Every candidate is simulated at seven levels of bad luck at once (``LEVELS``, standard deviations). A level moves the
dirty curve by its standard errors and by a model error, the rate the other way, and picks the shape of the curve left
of its first measured point: the chord from the origin for good luck, the prolonged first segment from level 0 on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rebalancerd.cluster.cost import Candidate
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.alike import Alike
from rebalancerd.predict.cost_columns import Bools, Column, CostColumns, Floats
from rebalancerd.predict.cost_inputs import SINGLE_READING_SPREAD, CostInputs
from rebalancerd.predict.physics import DirtyCurves, Precopy, PrecopyInputs, simulate, wire_bytes
from rebalancerd.predict.settings import PredictSettings

# Standard normal quantiles .1 .3 .5 .7 .9, and the same five seen from the pessimist's side (level 1.28 is its median).
LEVELS = (-1.2816, -0.5244, 0.0, 0.5244, 1.2816, 1.8060, 2.5631)
STACKED = 2048  # kinds of candidates up to which all levels are simulated in one call
EXPECTED, UPPER = 2, 4  # columns of LEVELS: median, 90 %
VALUE_LEVELS, UPPER_LEVELS = slice(0, 5), slice(2, 7)

MODEL_SPREAD = 0.10  # Gudkov 2023 reports typical errors of 6-7 % for this model with good curves
AGE_SPREAD_PER_HOUR, AGE_SPREAD_MAX = 0.30, 0.60
RATE_SPREAD = 0.05
SURE = (0.01, 0.02)  # never quite sure, even where every level converges
NOT_MEASURED = (0.10, 0.30)  # non-convergence where no dirty curve is known
# Akoush et al., MASCOTS 2010: a pre-copy that ends has sent at most about five times the memory
COPIES_UPPER = 5.0
SLOWDOWN = (0.02, 0.10)  # dirty logging write-protects pages; assumed, until measured
OVERHEAD_UPPER = 1.5
SWITCHOVER_UPPER = 2.5
UNKNOWN_LINK_BYTES_PER_SECOND, UNKNOWN_LINK_UPPER = 125_000_000.0, 0.1
# only for the expected value: a tenth of the memory within 4 s, as an interactive guest; the bounds ignore it
ASSUMED_SECONDS, ASSUMED_SHARES = (1.0, 4.0), (0.04, 0.10)
MISSING = ("vm", "memory", "dirty", "dirty_second_period", "link")


class PhysicsCost:
    """Cost of migrations by the simulated pre-copy; implements ``interface.CostModel``. Post-copy is given no credit."""

    basis = "physics"

    def __init__(self, settings: PredictSettings) -> None:
        self._settings = settings

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> CostColumns:
        """One cost per candidate, in their order.

        What is missing is named in ``inputs_missing`` and widens the bounds: ``dirty`` (no curve: non-convergence .10,
        upper .30; time bounded by five copies of the memory), ``dirty_second_period``, ``memory`` (all configured
        memory is taken for non-zero), ``link`` (1 Gbit/s, upper bound at a tenth), ``vm`` (nothing is known: no bound).
        """
        inputs = CostInputs.of_snapshot(snapshot, candidates, self._settings.deadline_seconds)
        return Physics(inputs, self._settings).columns()

    def predict_facts(self, facts: Sequence[MigrationFacts], deadline_seconds: Sequence[float]) -> CostColumns:
        """The same of migrations on record, each with its own deadline (seconds)."""
        return Physics(CostInputs.of_facts(facts, deadline_seconds), self._settings).columns()


@dataclass(frozen=True, slots=True)
class _Guests:
    """RAM and measured dirty curves of the guests with what is unknown replaced by the cautious side, (G,) and (G, P)."""

    resident: Floats
    zero: Floats
    seconds: Floats
    unique: Floats
    spread: Floats
    points: Floats
    measured: Bools


class Physics:
    """All candidates of one question, simulated once per level; candidates alike but for their hosts share a run.

    ``kind[i]`` is the kind of candidate i. Of the kinds, shape (K,): ``first`` (one candidate of it), ``row`` (its
    guest), ``resident``, ``zero`` (bytes), ``downtime`` (seconds allowed), ``lone`` (one period measured), ``runs``
    (one simulation per level, made when it is first asked for).
    """

    def __init__(self, inputs: CostInputs, settings: PredictSettings) -> None:
        self.inputs, self.settings = inputs, settings
        self._guests = _guests(inputs)
        alike = Alike.of(
            inputs.row, inputs.link, inputs.share, inputs.cap, inputs.downtime, inputs.deadline, inputs.auto
        )
        self.kind, self.first = alike.kind, alike.first
        first = self.first
        self.row = inputs.row[first]
        rated = inputs.link[first]
        self._link_known = np.isfinite(rated)
        rated = np.where(self._link_known, rated, UNKNOWN_LINK_BYTES_PER_SECOND)
        self._rated = rated * settings.link_efficiency * inputs.share[first]
        self._cap, self.downtime = inputs.cap[first], inputs.downtime[first]
        self._deadline, self._auto = inputs.deadline[first], inputs.auto[first]
        self.resident, self.zero = self._guests.resident[self.row], self._guests.zero[self.row]
        self.lone = self._guests.points[self.row] == 1

    @cached_property
    def runs(self) -> list[Precopy]:
        """One simulation per level; of few kinds all levels together, as a call costs more than what is in it."""
        if len(self.row) > STACKED:
            return [self._run([level])[0] for level in range(len(LEVELS))]
        return self._run(range(len(LEVELS)))

    def columns(self) -> CostColumns:
        """The cost of every candidate."""
        runs = self.runs
        failed = np.array([~r.converged for r in runs], dtype=np.float64)
        expected, upper = runs[EXPECTED], runs[UPPER]
        overhead, switchover = self.settings.overhead_seconds, self.settings.switchover_seconds
        low_link = self._link(UPPER)
        low_rate = np.minimum(self._cap, low_link)
        copy = wire_bytes(self.resident, self.zero)
        bounded = self._guests.measured[self.row] | (copy / low_rate <= self.downtime)
        # with no readings: five copies, unless the allowed time is shorter; the remainder is what the switch-over allows
        five = np.minimum(COPIES_UPPER * copy / low_rate, self._deadline)
        seconds_upper = np.where(bounded, upper.seconds, np.maximum(five, expected.seconds))
        bytes_upper = np.where(bounded, upper.bytes, np.maximum(COPIES_UPPER * copy, expected.bytes))
        # luck adds a round where the remainder passes what is allowed, so between two round counts lies that very worst
        allowed = np.minimum(self._cap, self._rated) * self.downtime / low_link
        likely = runs[VALUE_LEVELS]
        steady = np.ptp([r.rounds for r in likely], axis=0) == 0
        downtime_upper = np.max([r.downtime_seconds for r in likely], axis=0)
        downtime_upper = np.where(bounded & steady, downtime_upper, np.maximum(allowed, downtime_upper))
        value = np.clip(failed[VALUE_LEVELS].mean(axis=0), SURE[0], 1.0)
        bound = np.clip(failed[UPPER_LEVELS].mean(axis=0), SURE[1], 1.0)
        return self._spread_out(
            seconds=(expected.seconds + overhead, seconds_upper + overhead * OVERHEAD_UPPER),
            downtime=(expected.downtime_seconds + switchover, downtime_upper + switchover * SWITCHOVER_UPPER),
            sent=(expected.bytes, bytes_upper),
            slowdown=(
                np.minimum(1.0, SLOWDOWN[0] + expected.throttle),
                np.minimum(1.0, SLOWDOWN[1] + upper.throttle),
            ),
            never=(
                np.where(bounded, value, np.maximum(value, NOT_MEASURED[0])),
                np.where(bounded, bound, np.maximum(bound, NOT_MEASURED[1])),
            ),
        )

    def _spread_out(
        self,
        *,
        seconds: tuple[Floats, Floats],
        downtime: tuple[Floats, Floats],
        sent: tuple[Floats, Floats],
        slowdown: tuple[Floats, Floats],
        never: tuple[Floats, Floats],
    ) -> CostColumns:
        """From kinds to candidates; of a VM that is not there nothing is known."""
        there, deadline = self.inputs.known, self.inputs.deadline

        def column(pair: tuple[Floats, Floats], value: Floats | float, upper: float) -> Column:
            at = self.kind
            return Column.of(np.where(there, pair[0][at], value), np.where(there, pair[1][at], upper))

        return CostColumns(
            seconds=column(seconds, deadline, np.inf),
            downtime_seconds=column(downtime, 0.0, np.inf),
            bytes=column(sent, 0.0, np.inf),
            slowdown=column(slowdown, 1.0, 1.0),
            non_convergence=column(never, 1.0, 1.0),
            basis=np.zeros(len(there), dtype=np.int8),
            bases=(PhysicsCost.basis,),
            missing=self.missing(),
            missing_names=MISSING,
        )

    def missing(self) -> Bools:
        """Which inputs of each candidate were unknown, shape (N, 5), in the order of ``MISSING``."""
        inputs, row, there = self.inputs, self.inputs.row, self.inputs.known
        found = np.column_stack(
            (
                ~there,
                there & ~np.isfinite(inputs.resident[row]),
                there & (inputs.points[row] == 0),
                there & (inputs.points[row] == 1),
                there & ~np.isfinite(inputs.link),
            )
        )
        return np.asarray(found, dtype=np.bool_)

    def _run(self, levels: Sequence[int]) -> list[Precopy]:
        """Every kind of candidate at some levels."""
        count, guests = len(levels), len(self._guests.resident)
        links = [self._link(level) for level in levels]
        whole = simulate(
            PrecopyInputs(
                resident_bytes=np.tile(self.resident, count),
                zero_bytes=np.tile(self.zero, count),
                rate_bytes_per_second=np.concatenate([np.minimum(self._cap, link) for link in links]),
                link_bytes_per_second=np.concatenate(links),
                max_downtime_seconds=np.tile(self.downtime, count),
                deadline_seconds=np.tile(self._deadline, count),
                auto_converge=np.tile(self._auto, count),
                curves=self._curves(levels).take(np.concatenate([self.row + i * guests for i in range(count)])),
            )
        )
        kinds = len(self.row)
        return [whole.part(slice(i * kinds, (i + 1) * kinds)) for i in range(count)]

    def curves(self, level: int) -> DirtyCurves:
        """The guests' dirty curves at a level."""
        return self._curves([level])

    def _curves(self, levels: Sequence[int]) -> DirtyCurves:
        """The guests' dirty curves at some levels, level by level."""
        guests, z = self._guests, np.array([LEVELS[level] for level in levels])
        count, (rows, width) = len(levels), guests.unique.shape
        moved = np.maximum(0.0, guests.unique + z[:, None, None] * guests.spread).reshape(count * rows, width)
        points = np.tile(guests.points, count)
        seconds, unique = _prolonged(np.tile(guests.seconds, (count, 1)), np.maximum.accumulate(moved, axis=1), points)
        return DirtyCurves.of(
            seconds,
            unique,
            np.tile(guests.resident, count),
            left_weight=np.repeat(np.minimum(1.0, np.maximum(0.0, 1 + z / -LEVELS[0])), rows),
            lone=points == 1,
        )

    def rate(self, level: int) -> Floats:
        """Bytes per second of the pre-copy of every kind at a level."""
        found: Floats = np.minimum(self._cap, self._link(level))
        return found

    def _link(self, level: int) -> Floats:
        """Link rate at a level: bad luck makes it slower, and much slower where it is not known."""
        z = LEVELS[level]
        rate: Floats = self._rated * np.where(self._link_known | (z <= 0), 1 - RATE_SPREAD * z, UNKNOWN_LINK_UPPER)
        return rate


def _guests(inputs: CostInputs) -> _Guests:
    """RAM and dirty curves: what is not known is replaced by the cautious side."""
    held = np.isfinite(inputs.resident)
    resident = np.where(held, np.minimum(inputs.memory, inputs.resident), inputs.memory)
    measured = inputs.points > 0
    width = inputs.periods.shape[1]
    column = np.arange(width)
    points = np.where(measured, inputs.points, len(ASSUMED_SECONDS)).astype(np.float64)
    inside = column[None, :] < points[:, None]
    assumed_seconds = np.array([*ASSUMED_SECONDS, *(np.nan,) * (width - 2)])
    assumed_unique = resident[:, None] * np.array([*ASSUMED_SHARES, *(np.nan,) * (width - 2)])
    seconds = np.where(measured[:, None], inputs.periods, assumed_seconds)
    unique = np.where(measured[:, None], inputs.unique, assumed_unique)
    # in quadrature: the standard error of a point, the model's error and the curve's age
    age = np.where(np.isnan(inputs.age), 0.0, np.maximum(0.0, inputs.age))
    stale = np.minimum(AGE_SPREAD_MAX, AGE_SPREAD_PER_HOUR * age / 3600)
    single = np.where(points == 1, SINGLE_READING_SPREAD, 0.0)
    relative = np.sqrt(MODEL_SPREAD**2 + single**2 + stale**2)
    spread = np.where(measured[:, None], np.hypot(inputs.error, relative[:, None] * inputs.unique), 0.0)
    return _Guests(
        resident=resident,
        zero=inputs.memory - resident,
        seconds=np.where(inside, seconds, np.nan),
        unique=np.where(inside, unique, 0.0),
        spread=np.where(inside, spread, 0.0),
        points=points,
        measured=measured,
    )


def _prolonged(seconds: Floats, unique: Floats, points: Floats) -> tuple[Floats, Floats]:
    """The curves prolonged to all columns along their last segment (their chord, of one point): the same curves."""
    t, u = seconds.copy(), unique.copy()
    rows = np.arange(t.shape[0])
    last = points.astype(np.intp) - 1
    before = np.maximum(last - 1, 0)
    t_last, u_last = t[rows, last], u[rows, last]
    lone = last == 0
    step = np.where(lone, t_last, t_last - np.where(lone, 0.0, t[rows, before]))
    slope = np.where(lone, u_last, u_last - u[rows, before]) / step
    for column in range(1, t.shape[1]):
        beyond = column > last
        t[beyond, column] = t[beyond, column - 1] + 1.0
        u[beyond, column] = u[beyond, column - 1] + slope[beyond]
    return t, u
