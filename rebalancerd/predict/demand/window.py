"""Demand over a whole window, hours ahead: what the same hours of past days asked for, and how the present differs.

Path k of a VM is one past day: the hourly means recorded at the same times of that day, all VMs of a path the same day, so
that what peaked together peaks together. On top comes the short-term noise of the near forecast's path k (hourly means
hide it) and what the VM asks for now beyond what it asked for at this hour of that day, halved every ``HALF_LIFE_SECONDS``.
The near forecast itself stands wherever it reaches. A VM without records for that day and hour keeps its near forecast.
"""

from dataclasses import replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.demand.persistence import GONE, columns_of

MOST_STEPS = 24
HALF_LIFE_SECONDS = 7200.0
DAY = 86_400.0

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def over_window(near: Scenarios, snapshot: Snapshot, cpu: Series, memory: Series, seconds: float) -> Scenarios:
    """The scenarios for the next ``seconds``, at most ``MOST_STEPS`` steps of equal length and as many paths as ``near``.

    ``cpu`` in reference cores and ``memory`` in bytes: hourly means of as many days as are kept. ``near`` itself where it
    reaches as far.
    """
    if seconds <= near.horizon_seconds or not len(near.vm_uuids):
        return near
    steps = min(MOST_STEPS, ceil(seconds / near.step_seconds))
    step_seconds = seconds / steps
    speed = np.array([snapshot.host(vm.host).speed_factor for vm in snapshot.vms], dtype=np.float32)
    vcpus = np.array([max(1, vm.facts.vcpus) for vm in snapshot.vms], dtype=np.float32)
    told = near.known & np.array([vm.state not in GONE for vm in snapshot.vms], dtype=np.bool_)
    cores = _Days(cpu, near, snapshot.taken_at, steps, step_seconds).paths(near.cpu_cores, noise=True)
    held = _Days(memory, near, snapshot.taken_at, steps, step_seconds).paths(near.memory_bytes, noise=False)
    top = np.maximum(vcpus * speed, near.cpu_cores.max(axis=1))
    np.clip(cores, 0.0, top[:, None, None], out=cores)
    held = np.maximum(held, _stretched(near, near.memory_bytes, steps, step_seconds))
    for out, rows in ((cores, near.cpu_cores), (held, near.memory_bytes)):
        out[~told] = _stretched(near, rows[~told], steps, step_seconds)
    shape = (len(near.vm_uuids), near.paths * steps)
    return replace(
        near,
        steps=steps,
        step_seconds=step_seconds,
        cpu_cores=cores.reshape(shape),
        memory_bytes=held.reshape(shape),
        basis=f"{near.basis} and the same hours of past days",
    )


class _Days:
    """The past days of one resource, laid over the window."""

    def __init__(self, series: Series, near: Scenarios, at: float, steps: int, step_seconds: float) -> None:
        self._near, self._steps, self._step_seconds = near, steps, step_seconds
        width = len(series.values)
        self._recent = columns_of(series, near.vm_uuids, width) if width else np.empty((len(near.vm_uuids), 0))
        behind = (at - series.end) / series.step_seconds
        # the hour that holds an instant is the row that ends at or after it
        ends = np.ceil(((np.arange(steps) + 1) * step_seconds) / series.step_seconds + behind - 1e-9)
        day = DAY / series.step_seconds
        most = int((width - 1 + behind) // day) if width else 0
        days = [d for d in range(1, most + 1) if ceil(behind - d * day) <= 0]
        self.days = np.array(days, dtype=np.intp)
        self._columns = [(width - 1 + ends - round(d * day)).astype(np.intp) for d in days]
        self._now = [int(width - 1 + ceil(behind - 1e-9) - round(d * day)) for d in days]
        self._width = width

    def paths(self, rows: Floats, *, noise: bool) -> Floats:
        """(V, K, H): the days in turn, with the near forecast where nothing is recorded and where it reaches."""
        near, steps = self._near, self._steps
        near_paths = rows.reshape(len(rows), near.paths, near.steps)
        stretched = _stretched(near, rows, steps, self._step_seconds)
        if not len(self.days):
            return stretched
        out = np.empty_like(stretched)
        present = near_paths[:, :, 0].mean(axis=1)
        fading = 0.5 ** ((np.arange(steps) + 1) * self._step_seconds / HALF_LIFE_SECONDS)
        for k in range(near.paths):
            which = k % len(self.days)
            past = self._of(self._columns[which])
            then = self._of(np.array([self._now[which]], dtype=np.intp))[:, 0]
            beyond = np.nan_to_num(np.maximum(0.0, present - then))
            out[:, k] = past + beyond[:, None] * fading[None, :]
        if noise:
            out += np.take(near_paths - near_paths.mean(axis=1, keepdims=True), np.arange(steps) % near.steps, axis=2)
        np.copyto(out, stretched, where=np.isnan(out))
        reached = ceil(near.horizon_seconds / self._step_seconds - 1e-9)
        np.maximum(out[..., :reached], stretched[..., :reached], out=out[..., :reached])
        return out

    def _of(self, columns: Indices) -> Floats:
        """(V, H) of those columns, NaN where a column lies outside of what is kept."""
        inside = (columns >= 0) & (columns < self._width)
        found: Floats = np.where(inside[None, :], self._recent[:, np.clip(columns, 0, self._width - 1)], np.nan)
        return found.astype(np.float32)


def _stretched(near: Scenarios, rows: Floats, steps: int, step_seconds: float) -> Floats:
    """(V, K, H) the near forecast on the window's steps: its highest within each step, beyond it over and over."""
    paths = rows.reshape(len(rows), near.paths, near.steps)
    wide = max(1, ceil(step_seconds / near.step_seconds - 1e-9))
    columns = (np.arange(steps)[:, None] * wide + np.arange(wide)[None, :]) % near.steps
    return np.ascontiguousarray(paths[:, :, columns].max(axis=3), dtype=np.float32)
