"""The hour of day in which a VM usually dirties little memory, read from its recorded dirty rates.

Every (day, hour) gives one figure: the hour's mean. Where fewer than ``FEW_DAYS`` days are on record, a day that the fine
series covers counts with the highest of its means within the hour instead, for a mean of an hour hides a busy spell. An
hour is typical with the ``QUANTILE`` over its days, never interpolated downwards. What is missing, negative or absurd is
no figure: an hour that was not seen on ``MIN_DAYS`` days is not judged, and no gap reads as quiet. Days of the week are
not told apart.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.quiet import NoQuietHour, QuietHour
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.units import MIB

MIN_DAYS = 3
FEW_DAYS = 7
QUANTILE = 0.75
CLEARLY_BELOW = 0.5  # of the present rate
SEEN_SHARE = 0.5  # of an hour's fine steps that must be known
ABSURD = 1e13  # bytes per second: no machine dirties as much
HOUR, DAY_HOURS = 3600.0, 24

Floats = NDArray[np.float64]


def quiet_hours(
    hourly: Series, fine: Callable[[], Series], now: Mapping[str, float | None], at: float
) -> tuple[QuietHour | NoQuietHour, ...]:
    """One outlook per VM, in the order of ``now``, which gives present dirty rates (bytes per second) by UUID.

    ``hourly`` and ``fine``: recorded dirty rates in steps of at most an hour, bytes per second; ``fine`` is asked only
    where days are few. ``at``: epoch seconds; of hours that are equally quiet the next to come is taken.
    """
    uuids = tuple(now)
    recorded = _by_hour(hourly, uuids)
    few = np.isfinite(recorded[1]).any(axis=1).sum(axis=0) < FEW_DAYS  # days of each VM
    if few.any():
        recorded = _merged(recorded, _by_hour(fine(), uuids), few)
    days, typical = _typical(recorded[1])
    order = (np.arange(DAY_HOURS) + int(at // HOUR) + 1) % DAY_HOURS
    judged = np.where(days >= MIN_DAYS, typical, np.inf)[order]
    best = order[np.argmin(judged, axis=0)]
    return tuple(
        _outlook(uuid, now[uuid], int(best[i]), float(typical[best[i], i]), days[:, i]) for i, uuid in enumerate(uuids)
    )


def _outlook(
    vm_uuid: str, now: float | None, hour: int, rate: float, days: NDArray[np.intp]
) -> QuietHour | NoQuietHour:
    if not days.any():
        return NoQuietHour(vm_uuid=vm_uuid, reason="no dirty rate of it is on record")
    if days[hour] < MIN_DAYS:
        seen = f"no hour of the day was measured on {MIN_DAYS} days, at most on {int(days.max())}"
        return NoQuietHour(vm_uuid=vm_uuid, reason=seen)
    if now is None:
        return NoQuietHour(vm_uuid=vm_uuid, reason="its present dirty rate is not known")
    if rate > CLEARLY_BELOW * now:
        least = f"{rate / MIB:.0f} MiB/s around {hour:02d}:00 UTC (p75 of {int(days[hour])} days)"
        return NoQuietHour(vm_uuid=vm_uuid, reason=f"no hour of the day is clearly quieter than now, the least {least}")
    return QuietHour(vm_uuid=vm_uuid, hour_utc=hour, rate_bytes_per_second=rate, seen_days=int(days[hour]))


def _by_hour(series: Series, uuids: Sequence[str]) -> tuple[int, Floats]:
    """Number of the first day and one figure per day and hour, shape (D, 24, N), NaN where it is not known.

    The figure is the highest mean of the hour's steps, unknown where less than a share of them is.
    """
    rows = series.values.shape[0]
    place = {uuid: i for i, uuid in enumerate(series.ids)}
    columns = np.array([place.get(uuid, -1) for uuid in uuids], dtype=np.intp)
    if not rows or series.step_seconds > HOUR or not (columns >= 0).any():
        return 0, np.full((0, DAY_HOURS, len(uuids)), np.nan)
    values = np.full((rows, len(uuids)), np.nan)
    values[:, columns >= 0] = series.values[:, columns[columns >= 0]]
    values[~((values >= 0) & (values <= ABSURD))] = np.nan
    # a row stands for the step that ends at its instant
    middle = series.end - (np.arange(rows)[::-1] + 0.5) * series.step_seconds
    hours = np.floor(middle / HOUR).astype(np.int64)
    start = np.flatnonzero(np.diff(hours, prepend=hours[0] - 1))
    highest = np.fmax.reduceat(values, start, axis=0)
    known = np.add.reduceat(np.isfinite(values), start, axis=0)
    highest[known < SEEN_SHARE * HOUR / series.step_seconds] = np.nan
    first = int(hours[0] // DAY_HOURS)
    grid = np.full((int(hours[-1] // DAY_HOURS) - first + 1, DAY_HOURS, len(uuids)), np.nan)
    grid[hours[start] // DAY_HOURS - first, hours[start] % DAY_HOURS] = highest
    return first, grid


def _merged(one: tuple[int, Floats], other: tuple[int, Floats], chosen: NDArray[np.bool_]) -> tuple[int, Floats]:
    """The higher figure of both grids for the chosen VMs, of the first grid for the rest."""
    (begin, mine), (second, theirs) = one, other
    if not len(theirs):
        return one
    if not len(mine):
        begin = second
    first = min(begin, second)
    last = max(begin + len(mine), second + len(theirs))
    grid = np.full((last - first, *theirs.shape[1:]), np.nan)
    grid[begin - first : begin - first + len(mine)] = mine
    part = grid[second - first : second - first + len(theirs)]
    part[..., chosen] = np.fmax(part[..., chosen], theirs[..., chosen])
    return first, grid


def _typical(grid: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Days seen and the upper quantile over them, both of shape (24, N); NaN where an hour was never seen."""
    days: NDArray[np.intp] = np.isfinite(grid).sum(axis=0)
    if not len(grid):
        return days, np.full(grid.shape[1:], np.nan)
    ordered = np.sort(grid, axis=0)  # NaN last
    rank = np.array([ceil(QUANTILE * max(0, n - 1)) for n in range(len(grid) + 1)], dtype=np.intp)[days]
    typical: Floats = np.take_along_axis(ordered, rank[None], axis=0)[0]
    return days, typical
