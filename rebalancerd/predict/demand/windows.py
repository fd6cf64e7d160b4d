"""Windows of recorded load to learn demand from: each a VM's past at some instant, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.features import KNOTS, Features, features
from rebalancerd.predict.demand.past import (
    HISTORY_STEPS,
    HOUR,
    SIBLING_CHANGE_STEPS,
    Past,
    hour_changes,
    hours_ahead,
    siblings_of,
)
from rebalancerd.predict.demand.recorded import DAY_STEPS, recorded

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

LEAST_PAST_STEPS = 6
SHORTENED = 0.15  # of windows learned from, whose past is cut so that new VMs are learned as well
KEPT_BACK = 0.25  # of VMs, or of the time where that is long
LONG_SEASONS = 4
CHUNK_VALUES = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSeries:
    """Recorded load of N VMs to learn from, of one resource and one uninterrupted stretch.

    ``values``: float32 (N, T), shares of each VM's size, oldest column first, NaN unknown; column t taken at ``start`` +
    t·``step_seconds`` (epoch seconds). ``hourly``: float32 (N, T2), hourly means that end with the last complete hour
    before the last column; worked out of ``values`` if None. ``siblings``: int (N,), the number of each VM's host.
    ``starved``: float32 (N, T), what each VM waited for. ``clock``: whether the time of day may be learned from it; by
    default where it spans ``LONG_SEASONS`` seasons. Raises ValueError for shapes that disagree.
    """

    values: Floats
    step_seconds: float
    start: float = 0.0
    season_seconds: float = 86_400.0
    hourly: Floats | None = None
    siblings: NDArray[np.intp] | None = None
    starved: Floats | None = None
    clock: bool | None = None
    name: str = ""

    def __post_init__(self) -> None:
        shape = self.values.shape
        if len(shape) != 2 or self.step_seconds <= 0 or self.season_seconds <= 0:
            raise ValueError(f"training series {self.name}: shape {shape}, step {self.step_seconds} s")
        for label, part in (("hourly", self.hourly), ("siblings", self.siblings)):
            if part is not None and part.shape[0] != shape[0]:
                raise ValueError(f"training series {self.name}: {label} of {part.shape[0]} VMs, values of {shape[0]}")
        if self.starved is not None and self.starved.shape != shape:
            raise ValueError(f"training series {self.name}: starved of shape {self.starved.shape}, values of {shape}")

    @property
    def season(self) -> int:
        """Steps of a season."""
        return max(1, round(self.season_seconds / self.step_seconds))

    @property
    def long(self) -> bool:
        """Whether it spans enough seasons to be parted by time and to tell times of day apart."""
        return bool(self.values.shape[1] >= LONG_SEASONS * self.season)


@dataclass(frozen=True, slots=True)
class Windows:
    """M windows: features, what came at each knot (M, K), NaN where not recorded, and which are kept back (M,)."""

    found: Features
    came: Floats
    kept_back: Bools

    def __len__(self) -> int:
        return len(self.came)


def windows_of(series: Sequence[TrainingSeries], count: int, seed: int) -> Windows:
    """About ``count`` windows, parted among the series by the root of what each holds, so that none drowns the others."""
    rng = np.random.default_rng(seed)
    drawn = [_candidates(s, recorded(s.values)) for s in series]
    wanted = _parted([len(rows) for rows, _, _ in drawn], count)
    parts: list[Windows] = []
    for one, (rows, columns, kept_back), size in zip(series, drawn, wanted, strict=True):
        picked = np.sort(rng.choice(len(rows), size=size, replace=False)) if size else np.empty(0, dtype=np.intp)
        if size:
            parts.append(_windows(one, rows[picked], columns[picked], kept_back[picked], rng))
    if not parts:
        raise ValueError("no stretch of recorded load is long enough to learn from")
    return _joined(parts)


def _candidates(series: TrainingSeries, values: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Bools]:
    """Rows, columns and whether kept back of every instant with a known present and a known future at the last knot or before."""
    rows, width = values.shape
    last = width - max(KNOTS)
    if last <= LEAST_PAST_STEPS or not rows:
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.bool_)
    known = np.isfinite(values)
    usable = known[:, LEAST_PAST_STEPS:last].copy()
    usable &= np.any([known[:, LEAST_PAST_STEPS + k : last + k] for k in KNOTS], axis=0)
    row, column = np.nonzero(usable)
    column += LEAST_PAST_STEPS
    if series.long or rows < 4:
        cut = int((1 - KEPT_BACK) * width)
        between = (column < cut) & (column + max(KNOTS) >= cut)  # its future is what is kept back
        row, column = row[~between], column[~between]
        return row, column, column >= cut
    every = round(1 / KEPT_BACK)
    return row, column, row % every == every - 1


def _parted(sizes: Sequence[int], count: int) -> list[int]:
    """How many windows of each: in proportion to √size, never more than there are."""
    left, open_, wanted = count, dict(enumerate(sizes)), [0] * len(sizes)
    while open_ and left > 0:
        unit = left / max(1e-9, sum(size**0.5 for size in open_.values()))
        full = [i for i, size in open_.items() if size <= unit * size**0.5]
        for i in full or list(open_):
            wanted[i] = open_[i] if full else int(unit * open_[i] ** 0.5)
            left -= wanted[i]
            del open_[i]
    return wanted


def _windows(
    series: TrainingSeries,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    kept_back: Bools,
    rng: np.random.Generator,
) -> Windows:
    values = recorded(series.values)
    depth = max(HISTORY_STEPS, min(2 * series.season, values.shape[1]))
    shortened = (rng.random(len(rows)) < SHORTENED) & ~kept_back
    cut = np.where(shortened, rng.integers(LEAST_PAST_STEPS, DAY_STEPS, len(rows)), depth)
    others = None if series.siblings is None else siblings_of(values, series.siblings)
    clock = series.long if series.clock is None else series.clock
    hourly = _hourly(series, values)
    chunk = max(1, CHUNK_VALUES // depth)
    parts = []
    for start in range(0, len(rows), chunk):
        part = slice(start, start + chunk)
        past = _past(
            series,
            values,
            others=others,
            hourly=hourly,
            rows=rows[part],
            columns=columns[part],
            cut=cut[part],
            depth=depth,
        )
        parts.append(features(past, KNOTS, clock=clock))
    ahead = columns[:, None] + np.asarray(KNOTS)
    came = np.where(ahead < values.shape[1], values[rows[:, None], np.minimum(ahead, values.shape[1] - 1)], np.nan)
    return Windows(joined_features(parts), came.astype(np.float32), kept_back)


def _past(
    series: TrainingSeries,
    values: Floats,
    *,
    others: Floats | None,
    hourly: Floats | None,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    cut: NDArray[np.intp],
    depth: int,
) -> Past:
    back = np.arange(depth)[::-1]
    at = columns[:, None] - back
    seen = np.where((at >= 0) & (back < cut[:, None]), values[rows[:, None], np.maximum(at, 0)], np.nan)
    end = np.asarray(series.start + columns * series.step_seconds, dtype=np.float64)
    hours = np.full((len(rows), len(KNOTS), 2), np.nan, dtype=np.float32)
    if hourly is not None:
        last = series.start + (values.shape[1] - 1) * series.step_seconds
        newest = hourly.shape[1] - 1 - (np.floor(last / HOUR) - np.floor(end / HOUR)).astype(np.intp)
        hours = hour_changes(hourly, rows, newest, hours_ahead(end, series.step_seconds, KNOTS))
        hours[cut < depth] = np.nan
    siblings = np.full((len(rows), 2), np.nan, dtype=np.float32)
    if others is not None:
        now = others[rows, columns]
        siblings = np.stack([now, now - others[rows, np.maximum(columns - SIBLING_CHANGE_STEPS, 0)]], axis=1)
    starved = np.full(len(rows), np.nan) if series.starved is None else series.starved[rows, columns]
    return Past(
        values=seen.astype(np.float32),
        season=series.season,
        end=end,
        hours=hours,
        siblings=siblings,
        starved=starved.astype(np.float32),
    )


def _hourly(series: TrainingSeries, values: Floats) -> Floats | None:
    """Hourly means up to the last complete hour, (N, T2); None where seasons are no days or hours are not whole steps."""
    if series.hourly is not None:
        return recorded(series.hourly)
    if series.season_seconds != 86_400.0 or series.step_seconds > HOUR:
        return None
    hour = np.floor((series.start + np.arange(values.shape[1]) * series.step_seconds) / HOUR).astype(np.int64)
    begins = np.flatnonzero(np.diff(hour, prepend=hour[0] - 1))
    if len(begins) < 2:
        return None
    count = np.add.reduceat(np.isfinite(values), begins, axis=1, dtype=np.int32)
    total = np.add.reduceat(np.nan_to_num(values), begins, axis=1)
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    # the hour that the last column is in is not complete
    return means[:, :-1]


def joined_features(parts: Sequence[Features]) -> Features:
    """Features of all rows, one after the other."""
    return Features(*(np.concatenate([getattr(p, name) for p in parts]) for name in Features.__slots__))


def _joined(parts: Sequence[Windows]) -> Windows:
    return Windows(
        joined_features([p.found for p in parts]),
        np.concatenate([p.came for p in parts]),
        np.concatenate([p.kept_back for p in parts]),
    )
