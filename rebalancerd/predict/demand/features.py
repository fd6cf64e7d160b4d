"""Features of demand: each VM's own past, told in units of its own spread, so that one model serves every kind of load.

Everything is counted in steps and in shares of the VM's size. ``base`` is where a VM would be without anything learned:
its present value, or its value a season ago as far as that has lately been the better guide for this very VM. Deviations
are from ``base``'s present part and divided by ``scale``, how far such a guess is usually off.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.past import Past
from rebalancerd.predict.demand.recorded import DAY_STEPS, present, season_ago

Floats = NDArray[np.float32]

KNOTS = (1, 6, 12)  # steps ahead that are learned; those between are interpolated
MEANS = (3, 6, 12, 24, 72, 288)
ALPHAS = (0.5, 0.3, 0.1)
LAGS = (1, 2, 3, 5, 8, 11)
SPREADS = (6, 24, 288)
MOVES = (24, 288)
RANGES = ((24, (0.05, 0.5, 0.95)), (288, (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)))
IDLE = 0.005
LATELY = 6  # steps ahead at which naive ways are tried on the past
NEIGHBOURS = 2
AHEAD = 12
LEAST_SCALE = 0.002
BELIEVED, DOUBTED = (
    0.3,
    0.7,
)  # the season's error as a share of persistence's: below the first it is the guide, above the second not

COMMON = (
    *(f"mean_{n}" for n in MEANS),
    *(f"ewma_{a}" for a in ALPHAS),
    *(f"lag_{n}" for n in LAGS),
    *(f"spread_{n}" for n in SPREADS),
    *(f"move_{n}" for n in MOVES),
    *(f"q{int(100 * p):02d}_{n}" for n, levels in RANGES for p in levels),
    "now",
    "level",
    "scale",
    "idle_24",
    "idle_288",
    "season_error",
    "mean_error",
    "season_weight",
    "known_24",
    "known_288",
    "clock_sin",
    "clock_cos",
    "siblings",
    "siblings_change",
    "starved",
)
OF_KNOT = ("season", "season_around", "season_twice", "season_high", "hour_of_yesterday", "hour_of_last_week", "linear")
FEATURES = (*COMMON, *OF_KNOT)
# differences from the present in shares, for the linear part; of each knot the season's come on top
LINEAR = (*(f"mean_{n}" for n in MEANS), *(f"ewma_{a}" for a in ALPHAS), *(f"lag_{n}" for n in LAGS))
LINEAR_OF_KNOT = ("season", "season_around", "season_twice")


@dataclass(frozen=True, slots=True)
class Features:
    """Of N VMs at K knots. ``now``, ``scale``: float32 (N,), NaN where nothing is known; ``base``: (N, K).

    ``common``: (N, len(COMMON)). ``of_knot``: (N, K, len(OF_KNOT)), the last one empty until the linear part is known.
    ``linear``: (N, len(LINEAR)), ``linear_of_knot``: (N, K, len(LINEAR_OF_KNOT)), without NaN. ``season_weight``: (N,).
    """

    now: Floats
    scale: Floats
    base: Floats
    common: Floats
    of_knot: Floats
    linear: Floats
    linear_of_knot: Floats
    season_weight: Floats


def features(past: Past, knots: tuple[int, ...] = KNOTS, *, clock: bool = True) -> Features:
    """Features of every row. Whatever is missing of a past is NaN, never an error."""
    now = present(past.values)
    lately = _lately(past.values)
    away = lately - now[:, None]
    known = np.isfinite(away)
    away = np.nan_to_num(away)
    share = known.astype(np.float32)
    means = _averaged(away, share, _windows(MEANS))
    smooth = _averaged(away, share, _decays())
    spreads = np.sqrt(
        np.maximum(_averaged(away * away, share, _windows(SPREADS)) - _means_of(means, SPREADS) ** 2, 0.0)
    )
    moved = np.abs(np.diff(away, axis=1))
    both = share[:, 1:] * share[:, :-1]
    moves = _averaged(moved * both, both, _windows(MOVES)[1:])
    season_error, persistence_error, mean_error = _tried(past, away, share)
    weight = _season_weight(season_error, persistence_error)
    wide = np.nan_to_num(0.5 * (spreads[:, 1] + spreads[:, 2]))
    scale = (1 - weight) * wide + weight * np.nan_to_num(season_error) + np.float32(LEAST_SCALE)
    scale = np.where(np.isfinite(now), scale, np.nan).astype(np.float32)
    unit = scale[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        lags = lately[:, [-1 - n for n in LAGS]] - now[:, None]
        idle = share * (lately < IDLE)
        common = np.concatenate(
            [
                means / unit,
                smooth / unit,
                lags / unit,
                spreads / unit,
                moves / unit,
                *(_ranks(lately, n, levels, now) / unit for n, levels in RANGES),
                now[:, None],
                (now + means[:, -1])[:, None],
                np.log(unit),
                _averaged(idle, share, _windows((24, 288))),
                (season_error / persistence_error)[:, None],
                (mean_error / persistence_error)[:, None],
                weight[:, None],
                share @ _windows((24, 288)) / np.array([24, 288], dtype=np.float32),
                _clock(past, clock),
                past.siblings,
                past.starved[:, None],
            ],
            axis=1,
        )
    common[~np.isfinite(common)] = np.nan
    seasonal = _seasonal(past, knots, now)
    high = np.repeat(_season_high(past, now)[:, None, None], len(knots), axis=1)
    line = np.full_like(high, np.nan)  # not known yet
    of_knot = np.concatenate([seasonal, high, past.hours, line], axis=2) / unit[..., None]
    base = now[:, None] + weight[:, None] * np.nan_to_num(seasonal[..., 0])
    return Features(
        now=now,
        scale=scale,
        base=base.astype(np.float32),
        common=common.astype(np.float32),
        of_knot=of_knot.astype(np.float32),
        linear=np.nan_to_num(np.concatenate([means, smooth, lags], axis=1)),
        linear_of_knot=np.nan_to_num(seasonal),
        season_weight=weight,
    )


def base_at(past: Past, now: Floats, weight: Floats, steps: tuple[int, ...]) -> Floats:
    """``base`` at any steps ahead: (N, H)."""
    out = np.repeat(now[:, None], len(steps), axis=1)
    chosen = np.flatnonzero(weight > 0)
    for i, step in enumerate(steps):
        ago = _column(past.values, season_ago(step, past.season))[chosen]
        out[chosen, i] += weight[chosen] * np.nan_to_num(ago - now[chosen])
    return out


def _lately(values: Floats) -> Floats:
    """The last day of steps, NaN in front where the history is shorter: (N, DAY_STEPS)."""
    out = np.full((len(values), DAY_STEPS), np.nan, dtype=np.float32)
    width = min(values.shape[1], DAY_STEPS)
    if width:
        out[:, -width:] = values[:, -width:]
    return out


def _windows(lengths: tuple[int, ...]) -> Floats:
    return np.stack([np.arange(DAY_STEPS)[::-1] < n for n in lengths], axis=1).astype(np.float32)


def _decays() -> Floats:
    return np.stack([(1 - a) ** np.arange(DAY_STEPS)[::-1] for a in ALPHAS], axis=1).astype(np.float32)


def _averaged(values: Floats, share: Floats, weights: Floats) -> Floats:
    """Weighted means (N, J) of what is known, NaN where that weighs nothing."""
    weighed = share @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(weighed > 1e-6, (values @ weights) / weighed, np.nan).astype(np.float32)
    return found


def _means_of(means: Floats, lengths: tuple[int, ...]) -> Floats:
    return means[:, [MEANS.index(n) for n in lengths]]


def _tried(past: Past, away: Floats, share: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean absolute errors lately of the value a season ago, of persistence and of the 2-h mean, each (N,), NaN unknown."""
    values = past.values
    before = np.full_like(away, np.nan)
    width = min(DAY_STEPS, values.shape[1] - past.season)
    if width > 0:
        end = values.shape[1] - past.season
        before[:, -width:] = values[:, end - width : end]
    lately = np.where(share > 0, away, np.nan)
    season = _mean_abs(_lately(values) - before)
    persistence = _mean_abs(lately[:, LATELY:] - lately[:, :-LATELY])
    total, count = np.cumsum(away, axis=1), np.cumsum(share, axis=1)
    span = MEANS[3]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (total[:, span:] - total[:, :-span]) / (count[:, span:] - count[:, :-span])
    return season, persistence, _mean_abs(lately[:, span + LATELY :] - mean[:, :-LATELY])


def _mean_abs(error: Floats) -> Floats:
    known = np.isfinite(error)
    count = known.sum(axis=1)
    total = np.abs(np.where(known, error, 0.0)).sum(axis=1)
    return np.where(count >= 12, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _season_weight(season: Floats, persistence: Floats) -> Floats:
    """How far the season is believed, 0 to 1 (N,); 0 where it could not be tried."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = season / persistence
    weight: Floats = np.clip((DOUBTED - ratio) / (DOUBTED - BELIEVED), 0.0, 1.0)
    return np.nan_to_num(weight).astype(np.float32)


def _ranks(lately: Floats, length: int, levels: tuple[float, ...], now: Floats) -> Floats:
    """Quantiles of the last steps, from the present: (N, levels)."""
    ordered = np.sort(lately[:, -length:], axis=1)  # NaN last
    count = np.isfinite(ordered).sum(axis=1)
    places = [np.clip(np.floor(p * count), 0, np.maximum(count - 1, 0)).astype(np.intp) for p in levels]
    found: Floats = np.take_along_axis(ordered, np.stack(places, axis=1), axis=1) - now[:, None]
    return found


def _column(values: Floats, back: int) -> Floats:
    """The column ``back`` before the last, NaN where there is none."""
    if back < 0 or back >= values.shape[1]:
        return np.full(len(values), np.nan, dtype=np.float32)
    column: Floats = values[:, values.shape[1] - 1 - back]
    return column


def _seasonal(past: Past, knots: tuple[int, ...], now: Floats) -> Floats:
    """One season before each knot, the mean around it, and two seasons before, all from the present: (N, K, 3)."""
    out = np.empty((len(past), len(knots), 3), dtype=np.float32)
    for i, knot in enumerate(knots):
        back = season_ago(knot, past.season)
        around = np.stack([_column(past.values, back + d) for d in range(-NEIGHBOURS, NEIGHBOURS + 1)])
        count = np.isfinite(around).sum(axis=0)
        mean = np.where(count > 0, np.nansum(around, axis=0) / np.maximum(count, 1), np.nan)
        twice = _column(past.values, season_ago(knot, past.season, 2))
        out[:, i] = np.stack([around[NEIGHBOURS] - now, mean - now, twice - now], axis=1)
    return out


def _season_high(past: Past, now: Floats) -> Floats:
    """The highest value of a season ago within the steps that lie ahead, from the present: (N,)."""
    columns = [_column(past.values, season_ago(step, past.season)) for step in range(1, AHEAD + 1)]
    highest: Floats = np.fmax.reduce(columns) - now
    return highest


def _clock(past: Past, wanted: bool) -> Floats:
    """Sine and cosine of the time of day, NaN where the history is shorter than a day: it could only tell one VM from another."""
    out = np.full((len(past), 2), np.nan, dtype=np.float32)
    if wanted and past.values.shape[1] >= past.season:
        angle = 2 * np.pi * (past.end % 86_400.0) / 86_400.0
        out[:, 0], out[:, 1] = np.sin(angle), np.cos(angle)
        out[~np.isfinite(past.values[:, -past.season])] = np.nan
    return out
