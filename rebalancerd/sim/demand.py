"""True CPU demand of simulated guests as a function of virtual time, evaluated for all of them at once.

Demand is constant within a cell of the simulator's grid (its value at the cell's middle), so that counters are
integrals without error and a run gives the same numbers however it is sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# rows of guests, their values (time, guests), seconds between them, virtual second of the first
_Traces = tuple[NDArray[np.intp], NDArray[np.float64], float, float]

NOISE_SECONDS = 60.0  # the noise of a guest is redrawn once a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Demand in reference cores: ``base + amplitude·sin(2π(t − phase)/period) + noise``, never negative.

    ``steps``: (virtual second, new base), in increasing order. ``noise`` is the standard deviation of a seeded normal
    term. ``trace`` (values every ``trace_step_seconds``, repeated for ever, the first one from ``trace_start_seconds`` on
    and before) is added where it is given. Raises ValueError for negative figures or steps out of order.
    """

    base: float = 0.0
    amplitude: float = 0.0
    period_seconds: float = 86_400.0
    phase_seconds: float = 0.0
    noise: float = 0.0
    steps: tuple[tuple[float, float], ...] = ()
    trace: tuple[float, ...] = ()
    trace_step_seconds: float = 300.0
    trace_start_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Reject what cannot be a demand."""
        if min(self.base, self.noise, *(value for _, value in self.steps), *self.trace) < 0:
            raise ValueError("demand, noise and steps must not be negative")
        if self.period_seconds <= 0 or self.trace_step_seconds <= 0:
            raise ValueError("periods must be positive")
        if list(self.steps) != sorted(self.steps, key=lambda s: s[0]):
            raise ValueError("steps must be in order of time")


class DemandTable:
    """The demands of all guests, one row each."""

    def __init__(self, demands: Sequence[Demand], seed: int) -> None:
        self.seed = seed
        self.base = np.array([d.base for d in demands], dtype=np.float64)
        self._amplitude = np.array([d.amplitude for d in demands], dtype=np.float64)
        self._omega = np.array([2 * np.pi / d.period_seconds for d in demands], dtype=np.float64)
        self._phase = np.array([d.phase_seconds for d in demands], dtype=np.float64)
        self._noise = np.array([d.noise for d in demands], dtype=np.float64)
        self._steps = sorted((at, row, value) for row, d in enumerate(demands) for at, value in d.steps)
        self._traces = _traces(demands)
        self._has_waves, self._has_noise = bool(self._amplitude.any()), bool(self._noise.any())
        self._drawn: tuple[int, NDArray[np.float64]] = (-1, np.zeros(len(demands)))

    def next_step(self) -> float:
        """Virtual second of the next scripted step, infinite if there is none."""
        return self._steps[0][0] if self._steps else float("inf")

    def take_steps(self, now: float) -> bool:
        """Apply the steps that are due; whether there were any."""
        due = 0
        while due < len(self._steps) and self._steps[due][0] <= now:
            _, row, value = self._steps[due]
            self.base[row] = value
            due += 1
        del self._steps[:due]
        return due > 0

    def at(self, second: float) -> NDArray[np.float64]:
        """Demand of every guest at that virtual second, reference cores."""
        total = self.base.copy()
        if self._has_waves:
            total += self._amplitude * np.sin(self._omega * (second - self._phase))
        for rows, traces, step, start in self._traces:
            total[rows] += traces[max(0, int((second - start) // step)) % len(traces)]
        if self._has_noise:
            total += self._noise * self._draw(int(second // NOISE_SECONDS))
        return np.maximum(total, 0.0, out=total)

    def _draw(self, bucket: int) -> NDArray[np.float64]:
        if self._drawn[0] != bucket:
            # a generator per bucket: the value at an instant does not depend on how the run got there
            self._drawn = (bucket, np.random.default_rng((self.seed, bucket)).standard_normal(len(self.base)))
        return self._drawn[1]


def _traces(demands: Sequence[Demand]) -> list[_Traces]:
    """Traces of one length, step and start as one matrix, a column for each guest, so that an instant is one row of it."""
    alike: dict[tuple[int, float, float], list[int]] = {}
    for row, d in enumerate(demands):
        if d.trace:
            alike.setdefault((len(d.trace), d.trace_step_seconds, d.trace_start_seconds), []).append(row)
    found = []
    for (_, step, start), rows in alike.items():
        matrix = np.array([demands[row].trace for row in rows], dtype=np.float64).T.copy()
        found.append((np.array(rows, dtype=np.intp), matrix, step, start))
    return found
