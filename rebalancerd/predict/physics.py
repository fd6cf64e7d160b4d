"""Pre-copy live migration simulated on the measured dirty curve, for many candidates at once.

Sources. The loop and the piecewise linear dirty curve with extrapolation: A. Gudkov, "migration: dirty rate / precopy
prediction", qemu-devel 2023. For a linear curve it is the geometric series of H. Liu et al., "Performance and energy
modeling for live migration of virtual machines", HPDC 2011. QEMU decides to switch over with the capped rate but lifts
the cap for the switch-over itself (migration/migration.c); auto-converge throttles the guest after two rounds that
dirtied more than half of what was sent, by 20 % and then 10 % more each time, up to 99 % (migration/ram.c).
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.units import PAGE_BYTES

PAGE_HEADER_BYTES = 8
PAGE_OVERHEAD = (PAGE_BYTES + PAGE_HEADER_BYTES) / PAGE_BYTES
THROTTLE_FIRST, THROTTLE_STEP, THROTTLE_MAX = 0.20, 0.10, 0.99
DIRTY_SHARE_THROTTLE = 0.5
STALL_TOLERANCE = 1e-6
LEAST_CPU_SHARE = 0.02
MAX_ROUNDS = 10_000

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirtyCurves:
    """Unique bytes dirtied against time: N curves of P points each.

    ``seconds``: shape (N, P), positive and increasing along each row. ``unique_bytes``: shape (N, P); made monotone, as
    unique pages never become fewer. Left of the first point the curve lies between the chord from the origin
    (``left_weight`` 0) and the first segment prolonged to the left (1, which allows a jump at t = 0 and is the cautious
    side of a concave curve; ``left_slope`` is that segment's). Right of the last point the last segment goes on. One
    point alone is prolonged flat to the left and along the chord to the right: no concave curve through it lies higher.
    ``limit_bytes``: shape (N,), the resident memory no curve exceeds.
    """

    seconds: Floats
    unique_bytes: Floats
    limit_bytes: Floats
    left_weight: Floats
    left_slope: Floats

    @classmethod
    def of(
        cls,
        seconds: Floats,
        unique_bytes: Floats,
        limit_bytes: Floats,
        left_weight: float | Floats = 1.0,
        lone: Bools | None = None,
    ) -> "DirtyCurves":
        """Curves with one left weight for all, or one of each; ``lone`` marks rows of one point that were padded along their chord.

        Raises ValueError for shapes or periods that make no curve.
        """
        t = np.asarray(seconds, dtype=np.float64)
        u = np.asarray(unique_bytes, dtype=np.float64)
        limit = np.asarray(limit_bytes, dtype=np.float64)
        if t.ndim != 2 or t.shape != u.shape or t.shape[1] == 0 or limit.shape != t.shape[:1]:
            raise ValueError(f"dirty curves: shapes {t.shape}, {u.shape}, {limit.shape} do not match")
        if t.size and (t[:, 0].min() <= 0 or (np.diff(t, axis=1) <= 0).any()):
            raise ValueError("dirty curves: periods must be positive and increasing")
        if t.size and not (np.isfinite(u).all() and u.min() >= 0):
            raise ValueError("dirty curves: unique bytes must be finite and not negative")
        alone = np.full(t.shape[0], t.shape[1] == 1) if lone is None else lone
        if t.shape[1] == 1:
            t, u = np.hstack([t, 2 * t]), np.hstack([u, 2 * u])
        u = np.maximum.accumulate(u, axis=1)
        return cls(
            seconds=t,
            unique_bytes=u,
            limit_bytes=limit,
            left_weight=np.full(t.shape[0], left_weight),
            left_slope=np.where(alone, 0.0, (u[:, 1] - u[:, 0]) / (t[:, 1] - t[:, 0])),
        )

    def take(self, rows: NDArray[np.intp]) -> "DirtyCurves":
        """The curves of those rows, in that order, repeats allowed."""
        return DirtyCurves(
            seconds=self.seconds[rows],
            unique_bytes=self.unique_bytes[rows],
            limit_bytes=self.limit_bytes[rows],
            left_weight=self.left_weight[rows],
            left_slope=self.left_slope[rows],
        )

    def at(self, seconds: Floats) -> Floats:
        """Unique bytes dirtied in ``seconds`` (shape (N,)) after a clean start."""
        t, u = self.seconds, self.unique_bytes
        slopes = np.diff(u, axis=1) / np.diff(t, axis=1)
        chord = u[:, 0] * seconds / t[:, 0]
        # a noisy curve may be convex; a chord below which no concave curve can lie keeps its left end honest
        prolonged = np.maximum(u[:, 0] + self.left_slope * (seconds - t[:, 0]), chord)
        value = chord + self.left_weight * (prolonged - chord)
        last = slopes.shape[1] - 1
        for j in range(t.shape[1]):
            inside = u[:, j] + slopes[:, min(j, last)] * (seconds - t[:, j])
            value = np.where(seconds >= t[:, j], inside, value)
        return np.minimum(value, self.limit_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecopyInputs:
    """N migrations; every array has shape (N,) and float64 but for ``auto_converge`` (bool).

    ``resident_bytes``: RAM that is not zero. ``zero_bytes``: RAM that is (8 bytes a page on the wire).
    ``rate_bytes_per_second``: what pre-copy runs at, after cap and share; ``link_bytes_per_second``: what the
    switch-over runs at, no smaller. ``max_downtime_seconds``: the allowed downtime. ``deadline_seconds``: a pre-copy
    longer than this does not converge. ``cpu_share``: share of its vCPUs that the guest keeps busy, None for all of them:
    a throttled guest dirties less only once what is left of its vCPUs is less than it needs.
    """

    resident_bytes: Floats
    zero_bytes: Floats
    rate_bytes_per_second: Floats
    link_bytes_per_second: Floats
    max_downtime_seconds: Floats
    deadline_seconds: Floats
    auto_converge: Bools
    curves: DirtyCurves
    cpu_share: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Precopy:
    """What the simulation came to, arrays of shape (N,).

    ``seconds``: from the first byte to the end of the switch-over; the deadline where it does not converge.
    ``switch_bytes``: what was left for the switch-over (``downtime_seconds`` of it at link rate). ``bytes``: all that
    was sent. ``throttle``: time-weighted mean of the guest's throttling.
    """

    seconds: Floats
    downtime_seconds: Floats
    bytes: Floats
    switch_bytes: Floats
    rounds: NDArray[np.int64]
    converged: Bools
    throttle: Floats

    def part(self, rows: slice) -> "Precopy":
        """Those of some of the migrations."""
        return Precopy(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def wire_bytes(resident_bytes: Floats, zero_bytes: Floats) -> Floats:
    """Bytes that one full copy puts on the wire: pages with their headers, zero pages as headers alone."""
    return resident_bytes * PAGE_OVERHEAD + zero_bytes / PAGE_BYTES * PAGE_HEADER_BYTES


def simulate(inputs: PrecopyInputs) -> Precopy:
    """Run every migration's rounds until the remainder fits the allowed downtime, or it is clear that it never will.

    Round 0 sends all of RAM; each later round what the last one let the guest dirty. Without throttling the map from
    one round's bytes to the next's is monotone, so a round that is not smaller than the one before it ends the case.
    """
    n = inputs.resident_bytes.shape[0]
    first = wire_bytes(inputs.resident_bytes, inputs.zero_bytes)
    run = _Run(inputs, first)
    live = np.arange(n)
    for _ in range(MAX_ROUNDS):
        if not live.size:
            break
        live = run.round(live)
    return run.result()


class _Run:
    """The state of all migrations of one simulation, advanced a round at a time for those still live."""

    def __init__(self, inputs: PrecopyInputs, first: Floats) -> None:
        n = first.shape[0]
        self.inputs, self.first = inputs, first
        self.left = first.copy()
        self.seconds, self.sent, self.throttled = np.zeros(n), np.zeros(n), np.zeros(n)
        self.throttle, self.strikes = np.zeros(n), np.zeros(n, dtype=np.int64)
        self.rounds, self.converged = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)

    def round(self, live: NDArray[np.intp]) -> NDArray[np.intp]:
        """One round of the live migrations; returns those that go on."""
        i = self.inputs
        left = self.left[live]
        took = left / i.rate_bytes_per_second[live]
        self.rounds[live] += 1
        fits = took <= i.max_downtime_seconds[live]
        done = live[fits]
        self.sent[done] += left[fits]
        self.seconds[done] += left[fits] / i.link_bytes_per_second[done]
        self.converged[done] = self.seconds[done] <= i.deadline_seconds[done]
        live, left, took = live[~fits], left[~fits], took[~fits]
        self.sent[live] += left
        self.seconds[live] += took
        self.throttled[live] += took * self.throttle[live]
        dirtied = i.curves.take(live).at(took) * PAGE_OVERHEAD * self._pace(live)
        rising = self._throttle(live, left, dirtied)
        self.left[live] = dirtied
        stalled = (dirtied >= left * (1 - STALL_TOLERANCE)) & ~rising
        return live[~stalled & (self.seconds[live] <= i.deadline_seconds[live])]

    def _pace(self, live: NDArray[np.intp]) -> Floats:
        """Share of its unthrottled dirtying that the throttled guest goes on with."""
        left = 1 - self.throttle[live]
        if self.inputs.cpu_share is None:
            return left
        pace: Floats = np.minimum(1.0, left / np.maximum(self.inputs.cpu_share[live], LEAST_CPU_SHARE))
        return pace

    def _throttle(self, live: NDArray[np.intp], sent: Floats, dirtied: Floats) -> Bools:
        """Auto-converge after a round: raise the throttle at every second strike. True where it can still rise."""
        auto = self.inputs.auto_converge[live]
        self.strikes[live] += auto & (dirtied > DIRTY_SHARE_THROTTLE * sent)
        due = live[auto & (self.strikes[live] >= 2)]
        self.strikes[due] = 0
        now = self.throttle[due]
        self.throttle[due] = np.where(now == 0, THROTTLE_FIRST, np.minimum(now + THROTTLE_STEP, THROTTLE_MAX))
        rising: Bools = auto & (self.throttle[live] < THROTTLE_MAX)
        return rising

    def result(self) -> Precopy:
        """Figures of all, those that never converged set to their deadline."""
        i, ok = self.inputs, self.converged
        seconds = np.where(ok, self.seconds, i.deadline_seconds)
        cut_off = np.maximum(self.first, i.rate_bytes_per_second * i.deadline_seconds)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_throttle = np.where(self.seconds > 0, self.throttled / self.seconds, 0.0)
        return Precopy(
            seconds=seconds,
            downtime_seconds=self.left / i.link_bytes_per_second,
            bytes=np.where(ok, self.sent, cut_off),
            switch_bytes=self.left,
            rounds=self.rounds,
            converged=ok,
            throttle=np.where(ok, mean_throttle, np.maximum(mean_throttle, self.throttle)),
        )
