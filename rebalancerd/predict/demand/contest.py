"""Contest: forecasters held against the part of a recording that none of them has seen, and who wins. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.champion import Verdict
from rebalancerd.predict.demand.forecast import Forecaster
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.skill import HIGH, REFERENCES, SCORED_STEPS, missed

TEST_SHARE = 1 / 3  # of the time, the newest
ORIGINS = 24  # instants of it at which everybody is asked
LEAST_FORECASTS = 300
MARGIN = 0.01  # an error that is lower by less than this share is not lower
COVERAGE_MIN, COVERAGE_MAX = 0.8, 0.99  # of a central 90 %
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class DemandScore:
    """How forecasts fared, in shares of a VM's size; the mean over the scored steps. None where nothing tells.

    ``rows``: forecasts that were held against a value. ``rmse``, ``mae``: of the mean and of the median. ``pinball95``:
    pinball loss of the 95 % quantile. ``coverage90``: share of values within the central 90 %, ties in the mean.
    """

    rows: int = 0
    rmse: float | None = None
    mae: float | None = None
    pinball95: float | None = None
    coverage90: float | None = None


def cut(load: Panel, column: int) -> Panel:
    """The load as it was known when that column was the newest."""
    behind = (load.values.shape[1] - 1 - column) * load.step_seconds
    end = load.end - behind
    hourly = load.hourly
    if hourly is not None:
        gone = int(load.end // HOUR - end // HOUR)
        hourly = hourly[:, : max(0, hourly.shape[1] - gone)]
        hourly = hourly if hourly.shape[1] else None
    return replace(load, values=load.values[:, : column + 1], end=end, hourly=hourly)


def split_column(load: Panel) -> int:
    """The newest column that may be learned from."""
    return int(load.values.shape[1] * (1 - TEST_SHARE)) - 1


def measure(forecaster: Forecaster, load: Panel, steps: Sequence[int] = SCORED_STEPS) -> DemandScore:
    """Ask at instants of the newest third, each time with what was known then."""
    first, last = split_column(load), load.values.shape[1] - 1 - max(steps)
    if last < first:
        return DemandScore()
    origins = np.unique(np.linspace(first, last, ORIGINS).astype(int))
    sums = np.zeros((len(steps), 5))  # count, squared, absolute, pinball, missed
    for origin in origins:
        told = forecaster.forecast(cut(load, int(origin)), steps)
        middle, high = told.at(0.5), told.at(HIGH)
        for k, step in enumerate(steps):
            came = load.values[:, origin + step]
            known = np.isfinite(came)
            y = came[known]
            above = y - high[known, k]
            sums[k] += (
                len(y),
                np.square(y - told.mean[known, k], dtype=np.float64).sum(),
                np.abs(y - middle[known, k]).sum(dtype=np.float64),
                np.maximum(HIGH * above, (HIGH - 1) * above).sum(dtype=np.float64),
                missed(told.levels, told.quantiles[known, k], y).sum(),
            )
    return _score(sums)


def _score(sums: NDArray[np.float64]) -> DemandScore:
    count = sums[:, 0]
    if not count.all():
        return DemandScore()
    squared, absolute, pinball, out = (sums[:, i] / count for i in range(1, 5))
    return DemandScore(
        rows=int(count.sum()),
        rmse=float(np.sqrt(squared).mean()),
        mae=float(absolute.mean()),
        pinball95=float(pinball.mean()),
        coverage90=float(1.0 - out.mean()),
    )


def decide(challenger: DemandScore, champion: DemandScore | None, naive: Mapping[str, DemandScore]) -> Verdict:
    """Judge a challenger by scores on the same forecasts; the best naive way is taken figure by figure.

    It is promoted only where neither its RMSE nor its pinball loss is above those of champion and best naive way, their
    geometric mean is clearly below, and its coverage is sane. Whatever cannot be measured keeps the champion.
    """
    if challenger.rows < LEAST_FORECASTS:
        return Verdict(False, f"tested on {challenger.rows} forecasts only, {LEAST_FORECASTS} are needed")
    coverage = challenger.coverage90
    if coverage is None or not COVERAGE_MIN <= coverage <= COVERAGE_MAX:
        told = "nothing" if coverage is None else f"{coverage:.0%}"
        return Verdict(False, f"its central 90 % held {told}, {COVERAGE_MIN:.0%} to {COVERAGE_MAX:.0%} is sane")
    opponents = {} if champion is None else {"the champion": champion}
    opponents["the best naive way"] = _best(naive)
    for name, other in opponents.items():
        found = [_ratio(challenger.rmse, other.rmse), _ratio(challenger.pinball95, other.pinball95)]
        if other.rows != challenger.rows:
            return Verdict(False, f"{name} was tested on {other.rows} other forecasts")
        for what, ratio in zip(("RMSE", "pinball loss"), found, strict=True):
            if not ratio <= 1:
                return Verdict(False, f"its {what} is {ratio:.3f} of that of {name}")
        if not sqrt(found[0] * found[1]) < 1 - MARGIN:
            return Verdict(
                False, f"its errors are {sqrt(found[0] * found[1]):.3f} of those of {name}, not clearly below"
            )
    beaten = _best(naive)
    first, second = _ratio(challenger.rmse, beaten.rmse), _ratio(challenger.pinball95, beaten.pinball95)
    return Verdict(
        True, f"RMSE {first:.3f} and pinball loss {second:.3f} of the best naive way, coverage {coverage:.0%}"
    )


def _best(naive: Mapping[str, DemandScore]) -> DemandScore:
    """The lowest of each figure over the naive ways; none where one of them could not be measured."""
    found = [naive[name] for name in REFERENCES if name in naive]
    rmse, pinball = (
        [s.rmse for s in found if s.rmse is not None],
        [s.pinball95 for s in found if s.pinball95 is not None],
    )
    if not found or len(rmse) < len(found) or len(pinball) < len(found):
        return DemandScore()
    return DemandScore(rows=found[0].rows, rmse=min(rmse), pinball95=min(pinball))


def _ratio(mine: float | None, theirs: float | None) -> float:
    """NaN where there is nothing to compare; nothing is below or above NaN."""
    if mine is None or theirs is None:
        return float("nan")
    return mine / theirs if theirs > 0 else (1.0 if mine == 0 else float("inf"))
