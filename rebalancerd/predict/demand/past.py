"""Past: what is known of each of N VMs at its own instant, the one shape that training and forecasting read features from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.recorded import DAY_STEPS, recorded, season_steps

Floats = NDArray[np.float32]

HOUR = 3600.0
DAY, WEEK = 24, 168  # hours
SIBLING_CHANGE_STEPS = 12
HISTORY_STEPS = 2 * DAY_STEPS  # what the fine history holds; nothing older is looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """``values``: float32 (N, T), shares, believable or NaN, the last column is the present. ``season``: in steps.

    ``end``: float64 (N,), epoch seconds of the present. ``hours``: float32 (N, K, 2), how much the hour of each step
    ahead differed from the present hour a day ago and a week ago. ``siblings``: float32 (N, 2), mean load of the other
    VMs on the host and its change within the hour. ``starved``: float32 (N,). NaN wherever it is not known.
    """

    values: Floats
    season: int
    end: NDArray[np.float64]
    hours: Floats
    siblings: Floats
    starved: Floats

    def __len__(self) -> int:
        return len(self.values)

    def part(self, rows: slice) -> "Past":
        """Some of the rows."""
        return Past(
            values=self.values[rows],
            season=self.season,
            end=self.end[rows],
            hours=self.hours[rows],
            siblings=self.siblings[rows],
            starved=self.starved[rows],
        )


def past_of(panel: Panel, ahead: tuple[int, ...]) -> Past:
    """The past that a panel holds; ``ahead``: the steps whose hours are looked up."""
    rows = panel.values.shape[0]
    season = season_steps(panel)
    values = recorded(panel.values[:, -max(HISTORY_STEPS, min(2 * season, panel.values.shape[1])) :])
    hours = np.full((rows, len(ahead), 2), np.nan, dtype=np.float32)
    if panel.hourly is not None and panel.season_seconds == DAY * HOUR:
        hourly = recorded(panel.hourly)
        newest = np.full(rows, hourly.shape[1] - 1)
        hours = hour_changes(hourly, np.arange(rows), newest, hours_ahead(panel.end, panel.step_seconds, ahead))
    unknown = np.full(rows, np.nan, dtype=np.float32)
    return Past(
        values=values,
        season=season,
        end=np.full(rows, panel.end),
        hours=hours,
        siblings=np.full((rows, 2), np.nan, np.float32) if panel.siblings is None else _now(values, panel.siblings),
        starved=unknown if panel.starved is None else np.asarray(panel.starved, dtype=np.float32),
    )


def hours_ahead(end: float | NDArray[np.float64], step_seconds: float, ahead: tuple[int, ...]) -> NDArray[np.intp]:
    """How many hours after the last complete hour lies the hour of each step ahead, 1 the one that runs: (..., K)."""
    at = np.asarray(end)[..., None]
    return (np.floor((at + np.asarray(ahead) * step_seconds) / HOUR) - np.floor(at / HOUR)).astype(np.intp) + 1


def hour_changes(hourly: Floats, rows: NDArray[np.intp], newest: NDArray[np.intp], ahead: NDArray[np.intp]) -> Floats:
    """Load of the hour to come less that of the present hour, a day and a week ago: (M, K, 2), NaN where not recorded.

    ``hourly`` (N, T2); ``rows``, ``newest`` (M,): whose, and the column of the last complete hour; ``ahead`` (K,) or
    (M, K) of ``hours_ahead``.
    """
    ahead = np.broadcast_to(ahead, (len(rows), ahead.shape[-1]))
    out = np.empty((*ahead.shape, 2), dtype=np.float32)
    for i, back in enumerate((DAY, WEEK)):
        then = _looked_up(hourly, rows[:, None], newest[:, None] + ahead - back)
        now = _looked_up(hourly, rows[:, None], newest[:, None] + 1 - back)
        out[..., i] = then - now
    return out


def siblings_of(values: Floats, host: NDArray[np.intp]) -> Floats:
    """Mean load of the other VMs on each VM's host, at every step: (N, T), NaN where there is none."""
    _, number = np.unique(host, return_inverse=True)
    known = np.isfinite(values)
    hosts = int(number.max(initial=-1)) + 1
    total = np.zeros((hosts, values.shape[1]), dtype=np.float64)
    count = np.zeros((hosts, values.shape[1]), dtype=np.int32)
    np.add.at(total, number, np.nan_to_num(values))
    np.add.at(count, number, known)
    others = count[number] - known
    rest = total[number] - np.nan_to_num(values)
    return np.where(others > 0, rest / np.maximum(others, 1), np.nan).astype(np.float32)


def _now(values: Floats, host: NDArray[np.intp]) -> Floats:
    mean = siblings_of(values[:, -SIBLING_CHANGE_STEPS - 1 :], host)
    if not mean.shape[1]:
        return np.full((len(values), 2), np.nan, dtype=np.float32)
    return np.stack([mean[:, -1], mean[:, -1] - mean[:, 0]], axis=1)


def _looked_up(hourly: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Floats:
    inside = (columns >= 0) & (columns < hourly.shape[1])
    if not hourly.shape[1]:
        return np.full(columns.shape, np.nan, dtype=np.float32)
    found = hourly[rows, np.clip(columns, 0, hourly.shape[1] - 1)]
    return np.where(inside, found, np.nan).astype(np.float32)
