"""What a host draws at a given utilisation: a table where one is declared, else a line from idle to busy.

The table has watts at 0, 10, … 100 % of the host's cores, as SPECpower_ssj2008 reports give them, linear in between (so
does CloudSim's PowerModelSpecPower). The line is Fan, Weber and Barroso's linear model (ISCA 2007).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rebalancerd.cluster.host import Host

POINTS = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerDefaults:
    """Watts of a host that declares none: idle, and for every reference core that is busy."""

    idle_watts: float
    watts_per_core: float


def idle_watts(host: Host, default: float) -> float:
    """Watts the host draws when it is on and idle; ``default`` where nobody said."""
    if host.power_watts:
        return host.power_watts[0]
    return default if host.idle_watts is None else host.idle_watts


def host_watts(host: Host, busy_cores: float, defaults: PowerDefaults) -> float:
    """Watts the host draws while guests keep ``busy_cores`` reference cores busy beside its reserved ones.

    More than it has counts as all of them. Without known cores: what it draws when idle.
    """
    idle = idle_watts(host, defaults.idle_watts)
    if not host.cores:
        return idle
    utilisation = (busy_cores / host.speed_factor + host.reserved_cores) / host.cores
    utilisation = min(1.0, max(0.0, utilisation))
    if host.power_watts:
        return interpolated(host.power_watts, utilisation)
    most = host.max_watts
    if most is None:
        most = idle + defaults.watts_per_core * host.cores * host.speed_factor
    return idle + (most - idle) * utilisation


def interpolated(watts: Sequence[float], utilisation: float) -> float:
    """Linear between the points of a table of equal distances from 0 to 1."""
    place = utilisation * (len(watts) - 1)
    low = min(int(place), len(watts) - 2)
    return watts[low] + (watts[low + 1] - watts[low]) * (place - low)


def table_fault(watts: Sequence[float]) -> str | None:
    """What is wrong with a table of watts, in words; None if nothing."""
    if len(watts) != POINTS:
        return f"{len(watts)} figures, not {POINTS}: watts at 0, 10, … 100 %"
    if any(later < sooner for sooner, later in pairwise(watts)):
        return "a host that is busier does not draw less: figures must not fall"
    return None
