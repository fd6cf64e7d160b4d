"""Seeded synthetic migrations: a world in which physics is right but for a factor, and a little chance."""

import math
from dataclasses import replace

import numpy as np

from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.cluster.units import MIB
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.settings import PredictSettings

FAMILIES = ("calm", "writer", "bursty", "hot")
SETTINGS = PredictSettings()


COARSE, FINE = (1.0, 4.0), (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)


def facts(random: np.random.Generator, periods: tuple[float, ...] = COARSE) -> MigrationFacts:
    memory = int(random.choice([256, 512, 1024])) * MIB
    resident = int(memory * random.uniform(0.3, 0.9))
    link = float(random.choice([25e6, 60e6, 125e6]))
    rate = link * float(np.exp(random.uniform(np.log(0.02), np.log(4.0))))
    working_set = resident * random.uniform(0.2, 0.9)
    points = tuple(
        DirtyPoint(
            period_seconds=t,
            unique_bytes=working_set * (1 - math.exp(-rate * t / working_set)),
            standard_error_bytes=0.05 * rate,
            readings=4,
        )
        for t in periods
    )
    return MigrationFacts(
        memory_bytes=memory,
        resident_bytes=resident,
        vm_cpu_cores=float(random.uniform(0, 1)),
        vm_steal_cores=0.0,
        dirty=DirtyCurve(points=points, age_seconds=5.0),
        link_bytes_per_second=link,
        options=MigrationOptions(max_downtime_seconds=float(random.uniform(0.05, 0.5))),
        source_cores=2.0,
        source_cpu_cores=0.5,
        destination_cores=2.0,
        destination_cpu_cores=0.2,
    )


def synthetic(
    count: int,
    *,
    seed: int = 1,
    factor: float = 0.7,
    noise: float = 0.05,
    periods: tuple[float, ...] = COARSE,
) -> list[LabelledMigration]:
    """Rows whose every figure is ``factor`` times physics, by chance a little more or less."""
    random = np.random.default_rng(seed)
    known = [facts(random, periods) for _ in range(count)]
    told = PhysicsCost(SETTINGS).predict_facts(known, [60.0] * count)
    rows = []
    for i, (fact, cost) in enumerate(zip(known, told, strict=True)):

        def drawn(value: float) -> float:
            return value * factor * math.exp(random.normal(0, noise))

        succeeded = cost.non_convergence.value < 0.5
        seconds = drawn(cost.seconds.value)
        rows.append(
            LabelledMigration(
                id=f"r{seed}-{i}",
                at=1e9 + 60.0 * i,
                facts=fact,
                succeeded=succeeded,
                deadline_seconds=60.0,
                seconds=seconds if succeeded else 61.0,
                downtime_seconds=min(seconds, drawn(cost.downtime_seconds.value)) if succeeded else None,
                bytes=drawn(cost.bytes.value) if succeeded else None,
                slowdown=float(random.uniform(0, 0.1)),
                family=FAMILIES[i % len(FAMILIES)],
                setting=f"s{i // 2}",
                repeat=1 + i % 2,
            )
        )
    return rows


def without(row: LabelledMigration, *names: str) -> LabelledMigration:
    """The row with those facts unknown."""
    return replace(row, facts=replace(row.facts, **dict.fromkeys(names)))
