"""What demand forecasts are measured against: each way as its literature has it, what it has to choose chosen on training data.

A window is the past of one VM at one instant: the last ``PAST`` values, oldest first, NaN where unknown, the last one known.
Point forecasts are shares of the VM's size, shape (M, H); upper ones are 95 % quantiles.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.trace import Trace
from rebalancerd.predict.demand.naive import ewma, mean_2h, persistence

Floats = NDArray[np.float32]
Forecasts = Callable[["Cases"], Floats]

PAST = 288
LAGS = 24
TRAINING_CASES = 60_000
CHOOSING_CASES = 20_000
LEVEL = 0.95
ROLLING = (6, 12, 24, 48, 96, 144, 288)
SIGMAS = (0.5, 1.0, 1.28, 1.645, 2.0, 2.5, 3.0, 5.0)
PERCENTILES = (80, 90, 95, 98, 99, 100)
SMOOTHING = tuple((a, b) for a in (0.2, 0.35, 0.5, 0.7, 0.9) for b in (0.02, 0.1, 0.3))
AR_PENALTY = 1.0


@dataclass(frozen=True)
class Cases:
    """M windows: ``past`` (M, PAST), ``truth`` (M, H), ``seconds`` of the day (M,), ``day_ago`` (M, H): a day before each truth."""

    past: Floats
    truth: Floats
    seconds: NDArray[np.float64]
    day_ago: Floats

    @property
    def now(self) -> Floats:
        return self.past[:, -1]

    def whole(self) -> Floats:
        """The past with the present for what is unknown."""
        return np.where(np.isfinite(self.past), self.past, self.now[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Baselines:
    """Fitted ways by name; ``points`` for mean and median alike, ``rmse`` and ``mae`` of those that have one for each."""

    points: Mapping[str, Forecasts]
    split: Mapping[str, tuple[Forecasts, Forecasts]]
    upper: Mapping[str, Forecasts]
    chosen: Mapping[str, str] = field(default_factory=dict)


def cases_at(trace: Trace, steps: Sequence[int], rows: NDArray[np.intp], vms: NDArray[np.intp]) -> Cases:
    """Windows whose present is that row of that VM."""
    load = trace.cpu
    at = rows[:, None] - np.arange(PAST)[::-1]
    past = np.where(at >= 0, load[np.maximum(at, 0), vms[:, None]], np.nan)
    ahead = rows[:, None] + np.asarray(steps)
    day = ahead - round(86_400 / trace.step_seconds)
    return Cases(
        past=past.astype(np.float32),
        truth=load[ahead, vms[:, None]],
        seconds=np.asarray((trace.start + rows * trace.step_seconds) % 86_400, dtype=np.float64),
        day_ago=np.where(day >= 0, load[np.maximum(day, 0), vms[:, None]], np.nan).astype(np.float32),
    )


def random_cases(traces: Sequence[Trace], steps: Sequence[int], count: int, seed: int) -> Cases:
    """Windows with a known present and future, at random over all traces."""
    rng = np.random.default_rng(seed)
    places = [usable(trace, steps) for trace in traces]
    total = sum(len(rows) for rows, _ in places)
    parts = []
    for trace, (rows, vms) in zip(traces, places, strict=True):
        size = min(len(rows), round(count * len(rows) / max(1, total)))
        picked = rng.choice(len(rows), size=size, replace=False)
        parts.append(cases_at(trace, steps, rows[picked], vms[picked]))
    return Cases(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("past", "truth", "seconds", "day_ago"))
    )


def usable(trace: Trace, steps: Sequence[int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and VMs with at least LAGS rows before them, a known present and a known value at every step ahead."""
    known = np.isfinite(trace.cpu)
    last = len(known) - max(steps)
    if last <= LAGS:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    good = known[LAGS:last].copy()
    for step in steps:
        good &= known[LAGS + step : last + step]
    rows, vms = np.nonzero(good)
    return rows + LAGS, vms


def fit_baselines(traces: Sequence[Trace], steps: Sequence[int], seed: int) -> Baselines:
    """Everything that is learned or chosen, from the training directory alone."""
    training = random_cases(traces, steps, TRAINING_CASES, seed)
    choosing = random_cases(traces, steps, CHOOSING_CASES, seed + 1)
    coefficients = _ar(training)
    smoothing = min(SMOOTHING, key=lambda c: _squared(_holt(choosing, steps, *c), choosing.truth))
    window = min(ROLLING, key=lambda w: _pinball(_rolling(choosing, w), choosing.truth))
    sigma = min(SIGMAS, key=lambda n: _pinball(_n_sigma(choosing, n), choosing.truth))
    percentile = min(PERCENTILES, key=lambda p: _pinball(_rc_like(choosing, p), choosing.truth))
    return Baselines(
        points={
            "persistence": lambda c: persistence(c.past, steps),
            "mean_2h": lambda c: mean_2h(c.past, steps),
            "ewma": lambda c: ewma(c.past, steps),
            "ar": lambda c: _ar_forecast(c, coefficients),
            "holt": lambda c: _holt(c, steps, *smoothing),
            "seasonal": lambda c: np.where(np.isfinite(c.day_ago), c.day_ago, c.now[:, None]),
        },
        split={"hgb": _hgb(training, seed)},
        upper={
            "rolling_quantile": lambda c: _rolling(c, window),
            "n_sigma": lambda c: _n_sigma(c, sigma),
            "rc_like": lambda c: _rc_like(c, percentile),
        },
        chosen={
            "holt": f"alpha {smoothing[0]}, beta {smoothing[1]}",
            "rolling_quantile": f"{window} steps",
            "n_sigma": f"{sigma} sd over 24 steps",
            "rc_like": f"p{percentile} over {PAST} steps",
        },
    )


def pinball(forecast: Floats, truth: Floats, level: float = LEVEL) -> Floats:
    """Quantile loss of every forecast."""
    off = truth - forecast
    loss: Floats = np.maximum(level * off, (level - 1) * off)
    return loss


def _pinball(forecast: Floats, truth: Floats) -> float:
    return float(pinball(forecast, truth).mean())


def _squared(forecast: Floats, truth: Floats) -> float:
    return float(((forecast - truth) ** 2).mean())


def _ar(training: Cases) -> NDArray[np.float64]:
    """AR(24) by ridge with an intercept, direct for each horizon: (LAGS + 1, H)."""
    lags = training.whole()[:, -LAGS:].astype(np.float64)
    x = np.column_stack([lags, np.ones(len(lags))])
    penalty = AR_PENALTY * np.eye(LAGS + 1)
    penalty[-1, -1] = 0.0
    solved: NDArray[np.float64] = np.linalg.solve(x.T @ x + penalty, x.T @ training.truth.astype(np.float64))
    return solved


def _ar_forecast(cases: Cases, coefficients: NDArray[np.float64]) -> Floats:
    lags = cases.whole()[:, -LAGS:]
    told: Floats = (lags @ coefficients[:-1] + coefficients[-1]).clip(0.0).astype(np.float32)
    return told


def _holt(cases: Cases, steps: Sequence[int], alpha: float, beta: float) -> Floats:
    """Holt's linear trend over the last LAGS values."""
    past = cases.whole()[:, -LAGS:]
    level, trend = past[:, 0], np.zeros(len(past), dtype=np.float32)
    for value in past.T[1:]:
        before = level
        level = alpha * value + (1 - alpha) * (level + trend)
        trend = beta * (level - before) + (1 - beta) * trend
    return (level[:, None] + trend[:, None] * np.asarray(steps, dtype=np.float32)).clip(0.0).astype(np.float32)


def _repeated(point: Any, cases: Cases) -> Floats:
    return np.repeat(np.asarray(point, dtype=np.float32)[:, None], cases.truth.shape[1], axis=1)


def _rolling(cases: Cases, window: int) -> Floats:
    return _repeated(np.nanquantile(cases.past[:, -window:], LEVEL, axis=1), cases)


def _n_sigma(cases: Cases, sigmas: float) -> Floats:
    """Mean plus N standard deviations over 2 h (Bashir et al., EuroSys 2021)."""
    recent = cases.past[:, -LAGS:]
    return _repeated(np.nanmean(recent, axis=1) + sigmas * np.nanstd(recent, axis=1), cases)


def _rc_like(cases: Cases, percentile: float) -> Floats:
    """A high percentile of all that is on record, as Resource Central's buckets and Borg's RC-like predictor have it."""
    return _repeated(np.nanpercentile(cases.past, percentile, axis=1), cases)


def _hgb(training: Cases, seed: int) -> tuple[Forecasts, Forecasts]:
    """Plain boosting on 24 lags, their statistics and the time of day: one for squared, one for absolute error."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    table = _table(training)

    def fitted(loss: str) -> Forecasts:
        models = [
            HistGradientBoostingRegressor(loss=loss, max_iter=200, random_state=seed).fit(table, truth)
            for truth in training.truth.T
        ]
        return lambda cases: np.stack([m.predict(_table(cases)) for m in models], axis=1).astype(np.float32)

    return fitted("squared_error"), fitted("absolute_error")


def _table(cases: Cases) -> Floats:
    lags = cases.past[:, -LAGS:]
    angle = 2 * np.pi * cases.seconds / 86_400
    filled = cases.whole()[:, -LAGS:]
    statistics = [filled.mean(axis=1), filled.std(axis=1), filled.min(axis=1), filled.max(axis=1)]
    return np.column_stack([lags, *statistics, np.sin(angle), np.cos(angle)])
