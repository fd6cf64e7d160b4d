"""How long scenarios for a large cluster take: from recorded load to joint paths, everything a cycle needs."""

import threading
import time
from pathlib import Path
from typing import Self

import numpy as np

from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.paths import joint_paths
from rebalancerd.predict.demand.synthetic import synthetic_series
from rebalancerd.predict.demand.training import train_demand
from rebalancerd.predict.settings import PredictSettings
from tests.bench.report import Report, kernel_seconds

VMS, HISTORY, STEPS = 20_000, 288, 12
KINDS_OF_VMS = 700  # drawn once and repeated with noise: to draw 20,000 takes longer than to forecast them
SAMPLE_SECONDS = 0.005


def speed(report: Report) -> None:
    """Figures ``speed.*``. The model is trained before the clock starts; the best of three runs counts, the highest peak."""
    settings = PredictSettings()
    model = train_demand([synthetic_series(140, 900, seed=1)], seed=1, windows=20_000)
    panel = _panel()
    steps = tuple(range(1, STEPS + 1))
    best, forecasting, peak = float("inf"), 0.0, 0.0
    for _ in range(3):
        with _Peak() as seen:
            begun = time.perf_counter()
            forecast = model.forecast(panel, steps)
            between = time.perf_counter()
            paths = joint_paths(forecast, panel, paths=settings.paths, seed=settings.seed)
            ended = time.perf_counter()
        peak = max(peak, seen.bytes / 2**20)
        if ended - begun < best:
            best, forecasting = ended - begun, between - begun
        if paths.shape != (VMS, settings.paths * STEPS) or not np.isfinite(paths).all():
            raise RuntimeError(f"scenarios of shape {paths.shape}")
        del forecast, paths
    report.figure("speed.seconds", best)
    report.figure("speed.forecast_seconds", forecasting)
    report.figure("speed.paths_seconds", best - forecasting)
    report.figure("speed.kernels", best / kernel_seconds())
    report.figure("speed.peak_mib", peak)


def _panel() -> Panel:
    rng = np.random.default_rng(2)
    kinds = synthetic_series(KINDS_OF_VMS, HISTORY, seed=2).values
    load = np.resize(kinds, (VMS, HISTORY)) * rng.uniform(0.7, 1.0, (VMS, 1)) + rng.normal(0, 0.002, (VMS, HISTORY))
    values = np.clip(load, 0.0, 1.0).astype(np.float32)
    values[rng.random(values.shape) < 0.01] = np.nan
    return Panel(values=values, step_seconds=300.0, end=HISTORY * 300.0, siblings=rng.integers(0, 1000, VMS))


class _Peak:
    """Peak of the process's resident memory above what it held at the start, sampled while it runs."""

    bytes = 0.0

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._start = _resident()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.bytes = max(self.bytes, _resident() - self._start)
            time.sleep(SAMPLE_SECONDS)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096.0
