"""Seeded files of the formats the public trace sets come in: daily waves, bursts and noise, nothing of the originals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS_PER_DAY = 288
T0 = 1_372_629_600
MISSING = 65535

Arrays = dict[str, NDArray[Any]]


def load(vms: int, rows: int, seed: int, *, mean: float = 0.25) -> NDArray[np.float64]:
    """Shares of (vms, rows): a level, a daily wave, a burst now and then, noise that remembers itself."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(2.0, mean / 2.0, size=(vms, 1))
    wave = 0.4 * level * np.sin(2 * np.pi * (np.arange(rows) / ROWS_PER_DAY - rng.random((vms, 1))))
    noise = np.zeros((vms, rows))
    shocks = rng.normal(0.0, 0.1, size=(vms, rows)) * level
    for row in range(1, rows):
        noise[:, row] = 0.8 * noise[:, row - 1] + shocks[:, row]
    bursts = np.repeat(rng.random((vms, rows // 12 + 1)) < 0.03, 12, axis=1)[:, :rows] * rng.random((vms, 1)) * 0.6
    return np.clip(level + wave + noise + bursts, 0.0, 0.99)


def planetlab(*, vms: int = 8, days: tuple[str, ...] = ("20110303",), seed: int = 1) -> Arrays:
    """Days of per cent."""
    arrays: Arrays = {}
    for number, day in enumerate(days):
        arrays[f"cpu_{day}"] = (load(vms, ROWS_PER_DAY, seed + number) * 100).astype(np.uint8)
        arrays[f"name_{day}"] = np.array([f"node{i:03d}_slice" for i in range(vms)])
    return arrays


def google(*, vms: int = 6, seed: int = 2) -> Arrays:
    """One day of per cent × 100; the first VM holds more memory than it asked for."""
    memory = np.tile(np.linspace(1.2, 0.1, vms)[:, None], (1, ROWS_PER_DAY))
    return {
        "cpu_pct100": (load(vms, ROWS_PER_DAY, seed) * 10_000).astype(np.uint16),
        "mem_pct100": (memory * 10_000).astype(np.uint16),
        "name": np.array([f"vm_{1000 + i}_1" for i in range(vms)]),
    }


def bitbrains(*, vms: int = 5, rows: int = 600, seed: int = 3) -> Arrays:
    """Per mille of what is provisioned."""
    rng = np.random.default_rng(seed)
    cores = rng.choice((1, 2, 4, 8), size=vms)
    meta = np.stack([2 * np.arange(vms) + 1, cores, cores * 2600.0, cores * 4_194_304.0], axis=1)
    return {
        "cpu_permille": (load(vms, rows, seed) * 1000).astype(np.uint16),
        "mem_permille": (load(vms, rows, seed + 1) * 1000).astype(np.uint16),
        "meta": meta.astype(np.float64),
        "t0": np.array(T0),
    }


def azure(*, vms: int = 4, days: int = 2, seed: int = 4) -> Arrays:
    """Per cent × 100, rows of time."""
    mean = load(vms, days * ROWS_PER_DAY, seed).T
    return {"avg": (mean * 10_000).astype(np.uint16), "max": (np.minimum(mean * 1.5, 1.0) * 10_000).astype(np.uint16)}


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Path:
    """Write them, compressed."""
    np.savez_compressed(path, allow_pickle=True, **arrays)
    return path


def write_all(directory: Path, *, vms: int = 8, seed: int = 1) -> Path:
    """A directory with one file of each set."""
    directory.mkdir(parents=True, exist_ok=True)
    write(directory / "planetlab_days.npz", planetlab(vms=vms, days=("20110303", "20110306"), seed=seed))
    write(directory / "google2011_some.npz", google(vms=vms, seed=seed + 10))
    write(directory / "bitbrains_rnd.npz", bitbrains(vms=vms, seed=seed + 20))
    write(directory / "azure_v1.npz", azure(vms=vms, seed=seed + 30))
    return directory
