"""Seeded synthetic load: the shapes that public traces show too little of, for the base model, tests and benchmarks."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.windows import TrainingSeries

Numbers = NDArray[np.floating[Any]]
Draw = Callable[[np.random.Generator, Numbers], Numbers]

DAY, WEEK = 86_400.0, 604_800.0


def synthetic_series(
    vms: int, steps: int, *, step_seconds: float = 300.0, start: float = 0.0, seed: int
) -> TrainingSeries:
    """Load of ``vms`` VMs over ``steps`` steps, every kind of ``KINDS`` in turn. Equal arguments give equal load."""
    time = start + np.arange(steps) * step_seconds
    rows = [KINDS[i % len(KINDS)](np.random.default_rng((seed, i)), time) for i in range(vms)]
    values = np.clip(np.stack(rows) if rows else np.empty((0, steps)), 0.0, 1.0).astype(np.float32)
    return TrainingSeries(values=values, step_seconds=step_seconds, start=start, clock=False, name="synthetic")


def daily_wave(rng: np.random.Generator, time: Numbers) -> Numbers:
    """A smooth day, with noise that remembers."""
    level, swing = rng.uniform(0.05, 0.5), rng.uniform(0.3, 0.9)
    angle = 2 * np.pi * (time / DAY + rng.random())
    wave = 1 + swing * np.sin(angle) + 0.3 * swing * np.sin(2 * angle + rng.uniform(0, 6))
    told: Numbers = (
        level * wave * np.exp(rng.uniform(0.02, 0.25) * _remembering(rng, len(time), rng.uniform(0.5, 0.97)))
    )
    return told


def schedule(rng: np.random.Generator, time: Numbers) -> Numbers:
    """On and off at the same times of every day, the same spells once or several times."""
    period = DAY / rng.choice([1, 1, 1, 2, 4])
    phase = ((time + rng.random() * period) % period) / period
    on = phase < rng.uniform(0.05, 0.5)
    low, high = rng.uniform(0.0, 0.15), rng.uniform(0.3, 0.95)
    told: Numbers = np.where(on, high, low) + rng.uniform(0.0, 0.03) * rng.normal(size=len(time))
    return told


def bursts(rng: np.random.Generator, time: Numbers) -> Numbers:
    """Idle, with spells of work at random that last for minutes to hours."""
    start, stop = rng.uniform(0.003, 0.05), 1 / rng.uniform(2, 40)
    draws = rng.random(len(time))
    state, on = False, np.empty(len(time), dtype=np.bool_)
    for i, draw in enumerate(draws):
        state = draw >= stop if state else draw < start
        on[i] = state
    height = rng.uniform(0.2, 0.9) * np.exp(0.2 * _remembering(rng, len(time), 0.9))
    told: Numbers = rng.uniform(0.0, 0.08) * np.exp(0.3 * rng.normal(size=len(time))) + on * height
    return told


def noise(rng: np.random.Generator, time: Numbers) -> Numbers:
    """White noise about a level that wanders."""
    level = np.exp(rng.uniform(-4, -0.7) + 0.4 * _remembering(rng, len(time), rng.uniform(0.98, 0.999)))
    told: Numbers = level * np.exp(rng.uniform(0.1, 0.7) * rng.normal(size=len(time)))
    return told


def growing(rng: np.random.Generator, time: Numbers) -> Numbers:
    """Grows for days, and is set back now and then, as memory that leaks."""
    span = rng.uniform(0.3, 6) * DAY
    phase = ((time + rng.random() * span) % span) / span
    told: Numbers = (
        rng.uniform(0.05, 0.4) + rng.uniform(0.1, 0.5) * phase + rng.uniform(0.0, 0.01) * rng.normal(size=len(time))
    )
    return told


def constant(rng: np.random.Generator, time: Numbers) -> Numbers:
    """The same all the time, but for rare steps to another level."""
    level = np.full(len(time), rng.choice([0.0, rng.uniform(0.0, 0.1), rng.uniform(0.1, 0.9)]))
    for at in np.flatnonzero(rng.random(len(time)) < 0.002):
        level[at:] = rng.uniform(0.0, 0.6)
    level += rng.choice([0.0, 0.002]) * rng.normal(size=len(time))
    return level


def working_week(rng: np.random.Generator, time: Numbers) -> Numbers:
    """Busy in the day on five days of seven."""
    shifted = time + rng.random() * WEEK
    working = (shifted % WEEK) < 5 * DAY
    hour = (shifted % DAY) / DAY
    busy = np.exp(-0.5 * ((hour - 0.5) / rng.uniform(0.08, 0.2)) ** 2)
    load = rng.uniform(0.02, 0.1) + working * rng.uniform(0.2, 0.7) * busy
    told: Numbers = load * np.exp(rng.uniform(0.03, 0.3) * _remembering(rng, len(time), rng.uniform(0.3, 0.95)))
    return told


KINDS: tuple[Draw, ...] = (daily_wave, schedule, bursts, noise, growing, constant, working_week)


def _remembering(rng: np.random.Generator, count: int, memory: float) -> Numbers:
    """A stationary AR(1) of unit variance."""
    shocks = rng.normal(size=count) * np.sqrt(1 - memory**2)
    out = np.empty(count)
    value = rng.normal()
    for i, shock in enumerate(shocks):
        value = memory * value + shock
        out[i] = value
    return out
