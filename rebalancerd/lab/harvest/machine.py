"""What else ran on this machine during a migration: read before and after, the difference told."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from rebalancerd.lab.cgroup import Cgroup

# above these a row is marked as disturbed
OTHER_CORES_MOST = 0.6
STOLEN_CORES_MOST = 0.1
PRESSURE_MOST = 0.8


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of the machine at one instant, all in seconds; ``pressure`` None where the kernel does not tell."""

    at: float
    busy: float
    stolen: float
    lab: float
    pressure: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Means between two readings: CPU used by others than the lab, CPU taken by the machine's own host, share of time
    in which some task waited for a CPU, and the load average of the last minute."""

    other_cpu_cores: float
    stolen_cores: float
    pressure: float | None
    load1: float

    @property
    def disturbed(self) -> bool:
        """Whether figures taken meanwhile are in doubt."""
        waited = self.pressure is not None and self.pressure > PRESSURE_MOST
        return self.other_cpu_cores > OTHER_CORES_MOST or self.stolen_cores > STOLEN_CORES_MOST or waited


def read_machine(lab: Cgroup) -> Reading:
    """Read the counters now."""
    ticks = os.sysconf("SC_CLK_TCK")
    fields = [int(word) / ticks for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, stolen = fields
    return Reading(
        at=time.monotonic(),
        busy=user + nice + system + irq + softirq,
        stolen=stolen,
        lab=lab.cpu_seconds(),
        pressure=_pressure(),
    )


def between(before: Reading, after: Reading) -> Surroundings:
    """What happened between two readings."""
    seconds = max(1e-3, after.at - before.at)
    other = max(0.0, (after.busy - before.busy) - (after.lab - before.lab))
    waited = None
    if before.pressure is not None and after.pressure is not None:
        waited = min(1.0, max(0.0, after.pressure - before.pressure) / seconds)
    return Surroundings(
        other_cpu_cores=other / seconds,
        stolen_cores=max(0.0, after.stolen - before.stolen) / seconds,
        pressure=waited,
        load1=os.getloadavg()[0],
    )


def _pressure() -> float | None:
    try:
        lines = Path("/proc/pressure/cpu").read_text().splitlines()
    except OSError:
        return None
    total = next((word for word in lines[0].split() if word.startswith("total=")), None)
    return None if total is None else int(total.removeprefix("total=")) / 1e6
