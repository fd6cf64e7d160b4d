"""One day under one policy: the world's clock, the decisions, the figures."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tests.bench.consolidation_ours import CONFIGURATION, Configuration, Ours
from tests.bench.consolidation_policies import POLICIES, first_placement, optimise
from tests.bench.consolidation_world import FIRST_STEP, HOSTS, STEP_SECONDS, Variant, World

OURS = "ours"
SILENCE_SECONDS = 30.0  # a day may take many minutes: so often it says how far it is
Decide = Callable[[], list[tuple[int, int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What a run came to. ``shortage`` and ``slav`` are shares; ``seconds_per_step``: real time of a decision, mean."""

    energy_kwh: float
    migrations: int
    slav: float
    shortage: float
    seconds_per_step: float
    killed: int


def run_day(
    percent: NDArray[np.int64],
    variant: Variant,
    policy: str,
    *,
    hosts: int = HOSTS,
    configuration: Configuration = CONFIGURATION,
) -> Day:
    """Run a day of (N, T) CPU per cents under a policy: one of CloudSim's, or ``ours``."""
    world = World(percent, variant, hosts)
    if policy == OURS:
        first_placement(world, first_fit=False)
        ours = Ours(world, configuration)
        try:
            seconds = drive(world, ours.decide)
        finally:
            ours.close()
    else:
        detector = POLICIES[policy]
        first_placement(world, first_fit=detector is None)
        seconds = drive(world, (list) if detector is None else partial(optimise, world, detector))
    tally = world.tally
    return Day(
        energy_kwh=tally.energy_kwh,
        migrations=tally.migrations,
        slav=tally.slav,
        shortage=tally.shortage,
        seconds_per_step=seconds / world.steps,
        killed=tally.killed,
    )


def drive(world: World, decide: Decide) -> float:
    """Let the day pass; returns the real seconds that decisions took."""
    seconds, at = 0.0, FIRST_STEP
    said = time.monotonic()
    for step in range(world.steps):
        world.land(at)
        world.update(at)
        begun = time.perf_counter()
        moves = decide()
        seconds += time.perf_counter() - begun
        world.start(moves)
        if time.monotonic() - said > SILENCE_SECONDS:
            tally, said = world.tally, time.monotonic()
            so_far = f"{tally.energy_kwh:.1f} kWh, {tally.migrations} migrations, shortage {tally.shortage:.4%}"
            print(f"decision {step + 1} of {world.steps}: {so_far}", file=sys.stderr, flush=True)
        at += (
            STEP_SECONDS  # summed up step by step, as the original's clock: its rounding decides what is recorded when
        )
    world.land((world.steps + 1) * STEP_SECONDS)
    return seconds
