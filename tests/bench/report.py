"""What a benchmark writes: flat, dot-separated keys; null for a figure that cannot be had; the machine's own speed."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np


def kernel_seconds() -> float:
    """Best of five of the reference kernel: limits on time are stated as multiples (K) of it."""
    best = float("inf")
    data = np.random.default_rng(0).random((20000, 288), dtype=np.float32)
    for _ in range(5):
        begun = time.perf_counter()
        np.quantile(data, 0.95, axis=0)
        best = min(best, time.perf_counter() - begun)
    return best


def commit() -> str:
    """The commit the figures belong to, "unknown" outside a checkout."""
    root = Path(__file__).parents[2]
    found = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(root), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


class Report:
    """Collects figures; prints and writes them at the end."""

    def __init__(self, bench: str, options: dict[str, Any]) -> None:
        self.bench, self.options = bench, {k: _plain(v) for k, v in options.items()}
        self.figures: dict[str, float | int | None] = {}
        self.failures: list[str] = []

    def figure(self, key: str, value: float | None) -> None:
        """Keep one figure."""
        self.figures[key] = value

    def check(self, what: str, held: bool) -> None:
        """Say whether something that is asked of the figures holds; the benchmark fails if it does not."""
        print(f"{'ok  ' if held else 'FAIL'} {what}", flush=True)
        if not held:
            self.failures.append(what)

    def finish(self, path: Path | None) -> None:
        """Add the machine's speed, print the table, write the JSON."""
        self.figures["machine.kernel_seconds"] = kernel_seconds()
        width = max(len(key) for key in self.figures)
        for key, value in self.figures.items():
            print(f"{key:<{width}}  {'null' if value is None else f'{value:.6g}'}")
        for what in self.failures:
            print(f"FAILED: {what}")
        if path is not None:
            document = {"bench": self.bench, "commit": commit(), "options": self.options, "figures": self.figures}
            if self.failures:
                document["failures"] = self.failures
            path.write_text(json.dumps(document, indent=1) + "\n")


def _plain(value: Any) -> Any:
    """An option as JSON can hold it."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
