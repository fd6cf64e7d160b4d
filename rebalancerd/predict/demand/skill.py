"""Skill: how the forecasts that were made fare against what came, per step ahead, beside those of the naive ways. Pure.

Forecasts are noted when they are made and scored when their time has come, never from hindsight. The skill score of Murphy
(1988, "Skill scores based on the mean square error and their relationships to the correlation coefficient", Mon. Weather
Rev. 116) is 1 − MSE(model) ÷ MSE(reference): 1 is perfect, 0 is as good as the reference, below it is worse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.series import Series
from rebalancerd.predict.demand.forecast import Forecast, Forecaster
from rebalancerd.predict.demand.watched import WatchedPanel

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]

SCORED_STEPS = (1, 6, 12)  # 5, 30 and 60 minutes at the usual step of history
MODEL = "model"
REFERENCES = ("persistence", "mean_2h", "ewma", "ar")
WAYS = (MODEL, *REFERENCES)
LOW, HIGH = 0.05, 0.95
TIE = 1e-6
LEAST_MSE = 1e-9  # in squared shares of a VM's size; where nothing moves no way is better than another


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Forecasts of N VMs for one instant. ``column``: which of the scored steps; ``made_at``, ``due``: epoch seconds.

    ``sizes``: float64 (N,), cores of each VM then; ``hosts``: where it was. ``means``, ``high``: float32 (W, N), mean and
    95 % quantile by ``WAYS``, in shares; ``quantiles``: float32 (N, Q), the model's, at ``levels``.
    """

    column: int
    made_at: float
    due: float
    ids: tuple[str, ...]
    hosts: tuple[str, ...]
    sizes: Numbers
    means: Floats
    high: Floats
    levels: tuple[float, ...]
    quantiles: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Sums over forecasts that came due, by scored step (H) and way (W). ``squared``, ``pinball``: (H, W); ``count``: (H,).

    ``missed``: (H, 2), how many values lay below the model's 5 % and above its 95 % quantile.
    """

    count: Numbers
    squared: Numbers
    pinball: Numbers
    missed: Numbers

    @classmethod
    def none(cls, width: int = len(SCORED_STEPS)) -> "Tally":
        """Of nothing."""
        ways = (width, len(WAYS))
        return cls(count=np.zeros(width), squared=np.zeros(ways), pinball=np.zeros(ways), missed=np.zeros((width, 2)))

    def plus(self, other: "Tally") -> "Tally":
        """Both together."""
        return Tally(
            count=self.count + other.count,
            squared=self.squared + other.squared,
            pinball=self.pinball + other.pinball,
            missed=self.missed + other.missed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """What a tally says. ``by_step``: per scored step the skill against each reference, NaN where nothing was scored.

    ``errors``: per reference the geometric mean over the steps of its mean squared errors, in squared shares of a VM's
    size. ``best``: the one with the lowest, ``overall``: the skill against it, 1 less the geometric
    mean over the steps of the ratios of mean squared errors. ``coverage``: per step the share of values within the
    central 90 %; ``pinball``: per step the model's pinball loss at 95 % ÷ that of the best reference. ``judged``: whether it rests on a whole trial.
    """

    count: int = 0
    steps: tuple[int, ...] = SCORED_STEPS
    by_step: tuple[Mapping[str, float], ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict)
    best: str | None = None
    overall: float | None = None
    coverage: tuple[float, ...] = ()
    pinball: tuple[float, ...] = ()
    judged: bool = False


def note(
    seen: WatchedPanel, model: Forecaster, references: Mapping[str, Forecaster], steps: Sequence[int] = SCORED_STEPS
) -> list[Due]:
    """Ask everyone about the VMs of a panel, and keep the answers until they are due: one ``Due`` per step."""
    panel = seen.panel
    told = model.forecast(panel, steps)
    asked: list[Forecast] = [told, *(references[name].forecast(panel, steps) for name in REFERENCES)]
    means = np.stack([f.mean for f in asked])
    high = np.stack([f.at(HIGH) for f in asked])
    return [
        Due(
            column=column,
            made_at=panel.end,
            due=panel.end + step * panel.step_seconds,
            ids=seen.ids,
            hosts=seen.hosts,
            sizes=seen.sizes,
            means=means[:, :, column],
            high=high[:, :, column],
            levels=told.levels,
            quantiles=told.quantiles[:, column],
        )
        for column, step in enumerate(steps)
    ]


def row_of(series: Series, at: float) -> int | None:
    """The row that was taken at that instant; None where there is none (yet, any more, or at another step)."""
    behind = (series.end - at) / series.step_seconds
    row = len(series.values) - 1 - round(behind)
    return row if abs(behind - round(behind)) < 0.01 and 0 <= row < len(series.values) else None


def score(due: Due, series: Series, now_on: Mapping[str, tuple[str, float]], width: int = len(SCORED_STEPS)) -> Tally:
    """Hold forecasts against what was recorded at their instant (cores of the VM's host).

    ``now_on``: host and size of each VM there is. What was not recorded, or is of a VM that was moved or resized since,
    is not scored.
    """
    row = row_of(series, due.due)
    if row is None:
        return Tally.none(width)
    column = {vm: i for i, vm in enumerate(series.ids)}
    same = np.array(
        [
            vm in column and now_on.get(vm) == (host, size)
            for vm, host, size in zip(due.ids, due.hosts, due.sizes, strict=True)
        ],
        dtype=np.bool_,
    )
    places = [column[vm] for vm, kept in zip(due.ids, same, strict=True) if kept]
    actual = series.values[row, places] / due.sizes[same]
    known = np.isfinite(actual) & (actual >= 0)
    if not known.any():
        return Tally.none(width)
    actual = actual[known]
    chosen = np.flatnonzero(same)[known]
    tally = Tally.none(width)
    error = actual[None, :] - due.means[:, chosen]
    above = actual[None, :] - due.high[:, chosen]
    tally.count[due.column] = len(actual)
    tally.squared[due.column] = np.square(error, dtype=np.float64).sum(axis=1)
    tally.pinball[due.column] = np.maximum(HIGH * above, (HIGH - 1) * above).sum(axis=1, dtype=np.float64)
    tally.missed[due.column] = missed(due.levels, due.quantiles[chosen], actual).sum(axis=0)
    return tally


def missed(levels: Sequence[float], quantiles: Floats, actual: NDArray[np.floating]) -> Numbers:
    """How far each value lies outside the central 90 %, below and above: (N, 2), 0 or 1, and between them at ties.

    A value that equals quantiles counts as its probability integral transform would in the mean, drawn evenly from the
    levels it spans (randomised PIT: Czado, Gneiting, Held 2009, "Predictive model assessment for count data").
    """
    rows = np.arange(len(actual))
    edges = np.array([0.0, *levels, 1.0])
    away = actual[:, None] - quantiles
    below = edges[(away > TIE).sum(axis=1)]
    upto = edges[len(levels) + 1 - (away < -TIE).sum(axis=1)]
    span = upto - below
    out = np.zeros((len(rows), 2))
    out[:, 0] = np.maximum(0.0, np.minimum(upto, LOW) - below) / span
    out[:, 1] = np.maximum(0.0, upto - np.maximum(below, HIGH)) / span
    return out


def skill_of(tally: Tally, steps: Sequence[int] = SCORED_STEPS) -> Skill:
    """The figures of a tally."""
    scored = np.flatnonzero(tally.count > 0)
    if not len(scored):
        return Skill(steps=tuple(steps))
    with np.errstate(invalid="ignore", divide="ignore"):
        mse = tally.squared / tally.count[:, None] + LEAST_MSE
        ratio = mse[:, :1] / mse[:, 1:]
        error = np.exp(np.log(mse[scored, 1:]).mean(axis=0))
        best = int(np.argmin(error))
        overall = 1.0 - float(np.exp(np.log(ratio[scored, best]).mean()))
        coverage = 1.0 - tally.missed.sum(axis=1) / tally.count
        pinball = (tally.pinball[:, 0] / tally.count + LEAST_MSE) / (
            tally.pinball[:, 1 + best] / tally.count + LEAST_MSE
        )
    return Skill(
        count=int(tally.count.sum()),
        steps=tuple(steps),
        by_step=tuple(dict(zip(REFERENCES, (1.0 - row).tolist(), strict=True)) for row in ratio),
        errors=dict(zip(REFERENCES, error.tolist(), strict=True)),
        best=REFERENCES[best],
        overall=overall,
        coverage=tuple(coverage.tolist()),
        pinball=tuple(pinball.tolist()),
    )
