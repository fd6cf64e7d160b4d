"""How long a migration may take before it is aborted."""

import math

from rebalancerd.act.settings import ActSettings
from rebalancerd.cluster.cost import MigrationCost
from rebalancerd.cluster.units import GIB

SECONDS_PER_GIB = 150.0  # KubeVirt's completion timeout


def deadline_seconds(settings: ActSettings, predicted: MigrationCost | None, memory_bytes: int | None) -> float:
    """Seconds from hand-over to the abort; see ActSettings. What is unknown or infinite sets no bound of its own."""
    bounds = []
    if predicted is not None and math.isfinite(predicted.seconds.upper):
        bounds.append(settings.deadline_factor * predicted.seconds.upper)
    if memory_bytes is not None:
        bounds.append(SECONDS_PER_GIB * memory_bytes / GIB)
    least = max(settings.deadline_floor_seconds, min(bounds)) if bounds else settings.deadline_seconds
    return min(settings.deadline_seconds, least)
