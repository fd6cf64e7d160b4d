"""Joint demand paths from marginal forecasts: the Schaake shuffle.

Every VM and step gets K values at evenly spread levels of its own forecast distribution, so means, medians and quantiles
are the forecast's, without sampling noise. Which value belongs to which path is copied from history: path k stands for one
historic row, the same for all VMs, and takes the value of the rank that the VM's recorded change after that row has among
the K rows. What moved together then moves together now, over VMs and over steps (Clark et al. 2004, "The Schaake shuffle",
J. Hydrometeorology 5). Values come at the resolution that the history was recorded with. Rows are chosen by a hash of their absolute time, as in ``persistence``.
"""

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.forecast import Forecast
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.persistence import _mix
from rebalancerd.predict.demand.quantile_function import stratified
from rebalancerd.predict.demand.recorded import DAY_STEPS, limit
from rebalancerd.predict.demand.resolution import on_grid, resolution

Floats = NDArray[np.float32]

LEVEL_STEPS = 12  # a row's change is counted from the mean of so many steps up to it: a single value is mostly noise
KNOWN_SHARE = 0.5  # of a VM's historic changes that must be known; else it moves with the common order
CHUNK = 2048  # VMs at a time: what is worked on stays in the cache
CHANGE_RANGE = 2.0  # larger changes count as this


def joint_paths(
    forecast: Forecast, panel: Panel, *, paths: int, seed: int, window_steps: int = DAY_STEPS, top: Floats | None = None
) -> Floats:
    """``paths`` joint paths over the forecast's steps, shape (N, paths·H), path-major; shares of the VM's size.

    ``panel``: the history that joint changes are read from; rows of VMs as in the forecast. ``window_steps``: how far
    back. ``top`` (N,): the most each VM can ask for; by default its size, or what it was seen to use beyond it. VMs
    without history all move alike, which is the cautious side for the sum on a host. Raises ValueError if forecast and
    panel are of different VMs.
    """
    rows, width = forecast.mean.shape
    if panel.values.shape[0] != rows:
        raise ValueError(f"joint paths: a forecast of {rows} VMs, a history of {panel.values.shape[0]}")
    out = np.empty((rows, paths, width), dtype=np.float32)
    chosen = _rows(panel, max(forecast.steps, default=0), window_steps, paths, seed)
    common = np.argsort(_mix(np.arange(paths), seed), kind="stable").astype(np.int32)
    highest = limit(panel.values) if top is None else top
    grid = resolution(panel.values)
    for start in range(0, rows, CHUNK):
        part = slice(start, start + CHUNK)
        values = stratified(
            forecast.mean[part].reshape(-1),
            forecast.levels,
            forecast.quantiles[part].reshape(-1, len(forecast.levels)),
            np.repeat(highest[part], width),
            paths,
        ).reshape(-1, width, paths)
        values = on_grid(values, grid)
        order = _order(panel.values[part], chosen, forecast.steps, common)
        shuffled = np.empty_like(values)
        np.put_along_axis(shuffled, order, values, axis=2)
        out[part] = shuffled.transpose(0, 2, 1)
    return out.reshape(rows, paths * width)


def _rows(panel: Panel, longest: int, window_steps: int, paths: int, seed: int) -> NDArray[np.intp]:
    """Columns of the panel that paths stand for, (paths,): fewer than ``paths`` repeat in turn, none is empty."""
    width = panel.values.shape[1]
    newest = width - 1 - longest
    oldest = max(0, width - window_steps)
    starts = np.arange(oldest, newest + 1)
    if not len(starts):
        return np.empty(0, dtype=np.intp)
    absolute = starts + round(panel.end / panel.step_seconds) - (width - 1)
    order = starts[np.argsort(_mix(absolute, seed), kind="stable")]
    return np.resize(order, paths).astype(np.intp)


def _order(
    values: Floats, chosen: NDArray[np.intp], steps: tuple[int, ...], common: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Which path has the r-th smallest value: (N, H, K). Ties, and all of a VM without history, follow ``common``."""
    rows, paths = len(values), len(common)
    alike = np.broadcast_to(common.astype(np.int64), (rows, len(steps), paths))
    if not len(chosen):
        return alike.copy()
    place = np.empty(paths, dtype=np.int32)
    place[common] = np.arange(paths, dtype=np.int32)
    bits = max(1, (paths - 1).bit_length())
    level = _levels(values, chosen)
    after = chosen[None, :] + np.asarray(steps)[:, None]
    change = np.take(values, after.ravel(), axis=1).reshape(rows, len(steps), paths) - level[:, None, :]
    known = np.isfinite(change)
    enough = known.mean(axis=(1, 2)) >= KNOWN_SHARE
    unit = np.float32((2 ** (30 - bits)) / CHANGE_RANGE)
    np.copyto(change, 0.0, where=~known)
    key = (np.clip(change, -CHANGE_RANGE, CHANGE_RANGE) * unit).astype(np.int32) << bits
    key |= place
    key.sort(axis=2)
    order: NDArray[np.int64] = common[key & ((1 << bits) - 1)].astype(np.int64)
    order[~enough] = alike[~enough]
    return order


def _levels(values: Floats, chosen: NDArray[np.intp]) -> Floats:
    """Mean of the steps up to each chosen row, (N, K), NaN where nothing of them is known."""
    total = np.cumsum(np.nan_to_num(values), axis=1, dtype=np.float64)
    count = np.cumsum(np.isfinite(values), axis=1, dtype=np.int32)
    before = chosen - LEVEL_STEPS
    inside = before >= 0
    earlier = np.maximum(before, 0)
    summed = total[:, chosen] - np.where(inside, total[:, earlier], 0.0)
    known = count[:, chosen] - np.where(inside, count[:, earlier], 0)
    return np.where(known > 0, summed / np.maximum(known, 1), np.nan).astype(np.float32)
