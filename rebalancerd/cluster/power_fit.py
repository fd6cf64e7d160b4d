"""A host's power model from readings: watts against the share of its cores that is busy, as a line that outliers do not bend.

The line is that of Theil (1950) and Sen (1968): its slope the median of the slopes between all pairs of readings, its
height the median of what is left. Up to 29 % of the readings may be anything. What is no line is no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.power_curve import PowerDefaults, idle_watts

MOST_WATTS = 20_000.0
READINGS_MIN = 24
SPREAD_MIN = 0.15  # of utilisation, between the 5th and 95th percentile: with less the slope is guesswork
PAIR_MIN = 0.05  # two readings nearer to each other than that say nothing of the slope
SCATTER_MAX = 0.25  # median distance from the line, as a share of the median reading


@dataclass(frozen=True, slots=True)
class WattsReading:
    """One reading. ``at``: epoch seconds; ``utilisation``: busy share of the host's cores at that time, 0 to 1."""

    at: float
    watts: float
    utilisation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerFit:
    """Watts when idle and with every core busy, as fitted to so many ``readings`` of that ``source``."""

    idle_watts: float
    busy_watts: float
    readings: int
    source: str


def odd(reading: WattsReading) -> str | None:
    """Why a reading cannot be true, None if it can."""
    if not isfinite(reading.watts) or not isfinite(reading.utilisation):
        return "no number"
    if reading.watts <= 0:
        return "not above 0 W"
    if reading.watts > MOST_WATTS:
        return f"above {MOST_WATTS:.0f} W"
    return None if 0 <= reading.utilisation <= 1.1 else "utilisation not from 0 to 1"


def fit(readings: Sequence[WattsReading], source: str) -> PowerFit | str:
    """The model, or in words why there is none yet. Readings that ``odd`` refuses are no readings."""
    rows = [(min(r.utilisation, 1.0), r.watts) for r in readings if odd(r) is None]
    if len(rows) < READINGS_MIN:
        return f"{len(rows)} of {READINGS_MIN} readings"
    use, watts = np.array(rows).T
    low, high = np.quantile(use, (0.05, 0.95))
    if high - low < SPREAD_MIN:
        return f"its use was only seen from {low * 100:.0f} to {high * 100:.0f} %"
    first, second = np.triu_indices(len(use), 1)
    apart = use[second] - use[first]
    told = np.abs(apart) >= PAIR_MIN
    slope = float(np.median((watts[second] - watts[first])[told] / apart[told]))
    if slope < 0:
        return "it draws less the busier it is"
    idle = float(np.median(watts - slope * use))
    scatter = float(np.median(np.abs(watts - idle - slope * use)))
    if scatter > SCATTER_MAX * float(np.median(watts)):
        return f"readings are {scatter:.0f} W off any line"
    # below what was seen the line is only a guess: no host draws nothing, nor more when idle than it ever did
    idle = min(max(idle, 0.2 * float(watts.min())), float(np.quantile(watts, 0.25)))
    busy = min(max(idle + slope, idle), MOST_WATTS)
    return PowerFit(idle_watts=round(idle, 1), busy_watts=round(busy, 1), readings=len(rows), source=source)


def told(host: Host, found: PowerFit | None, defaults: PowerDefaults) -> str:
    """Which model of a host's power is used, in words; ``host`` as declared."""
    if found is not None:
        model = f"{found.idle_watts:g} W idle, {found.busy_watts:g} W busy"
        return f"measured by {found.source} ({found.readings} readings): {model}"
    if host.power_watts:
        return f"declared table: {host.power_watts[0]:g} W idle, {host.power_watts[-1]:g} W busy"
    idle = idle_watts(host, defaults.idle_watts)
    if host.max_watts is not None:
        return f"declared: {idle:g} W idle, {host.max_watts:g} W busy"
    slope = f"{defaults.watts_per_core:g} W per busy core"
    return f"{'assumed' if host.idle_watts is None else 'declared'}: {idle:g} W idle, {slope} assumed"
