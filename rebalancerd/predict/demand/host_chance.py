"""HostChance: P(a host's demand passes a level within the horizon), learned on top of the scenarios.

The share of paths whose peak passes is granular in their number and trusts them blindly. Here what the paths say of the
host, as a whole and step by step, stands beside what its present VMs asked for lately as one sum, and a logistic
regression and boosted trees (of 0 and 1, by squared error), fitted to random groups of VMs and averaged, weigh both. Everything is a ratio to the
level, so that hosts of any size and any level are alike.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.threads import one_thread

Floats = NDArray[np.float32]

LAGS = (1, 2, 3, 5)
MEANS = (3, 6, 12, 24, 72, 288)
SPREADS = (6, 24, 72)
HIGHS = (6, 24)
ALPHAS = (0.3, 0.1)
QUANTILES = (0.25, 0.5, 0.75, 0.95)
STEPS = (0.0, 0.5, 1.0)  # of the horizon
LEAST_SPREAD = 0.01
MOST = 8.0  # times the level; more tells nothing more
FEATURES = (
    "now",
    *(f"lag_{n}" for n in LAGS),
    *(f"mean_{n}" for n in MEANS),
    *(f"ewma_{a}" for a in ALPHAS),
    *(f"spread_{n}" for n in SPREADS),
    *(f"high_{n}" for n in HIGHS),
    "peak_mean",
    "peak_spread",
    *(f"peak_q{int(100 * q)}" for q in QUANTILES),
    *(f"step_{int(100 * s)}" for s in STEPS),
    "passing",
    "distance",
    "vms",
    "largest",
)


class HostChance:
    """A fitted model of P(hot). ``state``: estimators of scikit-learn and texts, as saved."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = dict(state)

    @classmethod
    def of_state(cls, state: Any) -> "HostChance":
        """A model from what was read from a file. Raises ValueError naming what is wrong with it."""
        if not isinstance(state, Mapping) or list(state.get("features", ())) != list(FEATURES):
            raise ValueError("the model of hosts was trained on other features than this version computes")
        for name, ask in (("line", "predict_proba"), ("trees", "predict")):
            if not hasattr(state.get(name), ask):
                raise ValueError(f"the model of hosts has no {name} that can be asked")
        return cls(state)

    def chances(self, found: Floats) -> NDArray[np.float64]:
        """P(hot) of hosts with those ``host_features`` (N, F), shape (N,)."""
        if not len(found):
            return np.empty(0)
        table = found.astype(np.float64)
        with one_thread():
            told = [self.state["line"].predict_proba(table)[:, 1], self.state["trees"].predict(table)]
        mean: NDArray[np.float64] = np.clip(np.mean(told, axis=0), 0.0, 1.0)
        return mean


def smoothed_share(paths: Floats) -> NDArray[np.float64]:
    """P(hot) without a model: the share of paths (N, K, H) that pass 1, each peak blurred by what K paths can tell."""
    peaks = paths.max(axis=2)
    return _passing(peaks).astype(np.float64)


def host_features(paths: Floats, past: Floats, vms: NDArray[np.floating], largest: NDArray[np.floating]) -> Floats:
    """Features (N, F) of N hosts.

    ``paths``: (N, K, H), load of the host in each path and step ÷ the level. ``past``: (N, T), summed load of the VMs
    that are on it now ÷ the level, oldest first, NaN unknown. ``vms``: how many there are, ``largest``: share of the
    host's expected load that is the largest one's.
    """
    paths, past = np.minimum(paths, MOST), np.minimum(past, MOST)
    peaks = paths.max(axis=2)
    now = _present(past)
    steps = paths.shape[2]
    mean_of_step = paths.mean(axis=1)
    at = [min(steps - 1, round(s * (steps - 1))) for s in STEPS]
    spread = peaks.std(axis=1)
    columns = [
        now,
        *(_column(past, n) for n in LAGS),
        *(_mean(past, n) for n in MEANS),
        *(_ewma(past, a) for a in ALPHAS),
        *(_spread(past, n) for n in SPREADS),
        *(_high(past, n) for n in HIGHS),
        peaks.mean(axis=1),
        spread,
        *np.quantile(peaks, QUANTILES, axis=1),
        *(mean_of_step[:, i] for i in at),
        _passing(peaks),
        np.clip((1.0 - peaks.mean(axis=1)) / np.maximum(spread, LEAST_SPREAD), -6.0, 6.0),
        np.log1p(vms),
        largest,
    ]
    found: Floats = np.column_stack(columns).astype(np.float32)
    found[~np.isfinite(found)] = np.nan
    return found


def _passing(peaks: Floats) -> Floats:
    """Share of peaks (N, K) above 1, each blurred by a normal kernel of Silverman's width."""
    from scipy.special import ndtr

    width = np.maximum(0.9 * peaks.std(axis=1) * peaks.shape[1] ** -0.2, LEAST_SPREAD)
    share: Floats = ndtr((peaks - 1.0) / width[:, None]).mean(axis=1)
    return share


def _present(past: Floats) -> Floats:
    return past[:, -1] if past.shape[1] else np.full(len(past), np.nan, dtype=np.float32)


def _column(past: Floats, back: int) -> Floats:
    return past[:, -1 - back] if past.shape[1] > back else np.full(len(past), np.nan, dtype=np.float32)


def _mean(past: Floats, length: int) -> Floats:
    part = past[:, -length:]
    count = np.isfinite(part).sum(axis=1)
    mean: Floats = np.where(count > 0, np.nansum(part, axis=1) / np.maximum(count, 1), np.nan)
    return mean


def _spread(past: Floats, length: int) -> Floats:
    part = past[:, -length:]
    square = _mean(past * past, length) - _mean(past, length) ** 2 if part.shape[1] else np.full(len(past), np.nan)
    spread: Floats = np.sqrt(np.maximum(square, 0.0))
    return spread


def _high(past: Floats, length: int) -> Floats:
    if not past.shape[1]:
        return np.full(len(past), np.nan, dtype=np.float32)
    high: Floats = np.fmax.reduce(past[:, -length:], axis=1)
    return high


def _ewma(past: Floats, alpha: float) -> Floats:
    part = past[:, -288:]
    weights = (1 - alpha) ** np.arange(part.shape[1])[::-1]
    weighed = np.isfinite(part) @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        told: Floats = np.where(weighed > 0, (np.nan_to_num(part) @ weights) / weighed, np.nan)
    return told
