"""What this host's processor packages draw, by RAPL: energy counters of the kernel's powercap tree, summed, wraps undone.

Only package domains are read: core, uncore and dram lie inside or beside them and psys around them, so that a sum over all
would count twice. A package is not the whole host: memory, fans, disks and the losses of the power supply are not in it.
"""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rebalancerd.observe.agent import PREFIX

log = structlog.get_logger(__name__)

POWERCAP_DIR = Path("/sys/class/powercap")
_ZONE = re.compile(r"intel-rapl:\d+")  # top level; the mmio tree tells of the same packages once more
_PACKAGE = re.compile(r"package-\d+")
MICRO = 1e-6
ROOT_ONLY = "the kernel lets only root read it since CVE-2020-8694"


class RaplCollector(Collector):
    """Exports ``package_joules_total`` while every package can be read, and ``package_energy_readable`` 1 or 0.

    Nothing where there is no RAPL. The counter begins anew with the agent; it must be scraped more often than a package's
    own counter wraps, which takes ten minutes at the least.
    """

    def __init__(self, directory: Path = POWERCAP_DIR) -> None:
        self._directory = directory
        self._lock = threading.Lock()  # two scrapes at once must not count one difference twice
        self._last: dict[str, int] = {}
        self._joules = 0.0
        self._told: str | None = None

    def collect(self) -> Iterator[Metric]:
        """Reads the counters anew."""
        zones = packages(self._directory)
        if not zones:
            return
        with self._lock:
            fault, joules = self._read(zones), self._joules
            told, self._told = self._told, fault
        if fault != told and fault is not None:
            log.warning("agent_rapl_unreadable", reason=fault, instead="the power of this host is not measured here")
        text = "Whether the energy counter of every processor package can be read, 1 or 0."
        yield GaugeMetricFamily(f"{PREFIX}_package_energy_readable", text, float(fault is None))
        if fault is None:
            text = "Joules that the processor packages drew since the agent began."
            yield CounterMetricFamily(f"{PREFIX}_package_joules", text, joules)

    def _read(self, zones: list[Path]) -> str | None:
        """Take over what was drawn since the last look; or why that cannot be known, and the next look begins anew."""
        readings: dict[str, tuple[int, int]] = {}
        for zone in zones:
            path = zone / "energy_uj"
            try:
                counter = int(path.read_text(encoding="ascii"))
                most = int((zone / "max_energy_range_uj").read_text(encoding="ascii"))
            except PermissionError:
                self._last = {}
                return f"{path}: {ROOT_ONLY}"
            except (OSError, ValueError) as error:
                self._last = {}
                return f"{path}: {error}"
            if not 0 <= counter <= most:
                self._last = {}
                return f"{path}: {counter} is not from 0 to {most}"
            readings[zone.name] = (counter, most)
        for name, (counter, most) in readings.items():
            if name in self._last:
                self._joules += drawn(self._last[name], counter, most) * MICRO
        self._last = {name: counter for name, (counter, _) in readings.items()}
        return None


def packages(directory: Path = POWERCAP_DIR) -> list[Path]:
    """The RAPL zones of whole processor packages, by name."""
    found = []
    try:
        zones = sorted(zone for zone in directory.iterdir() if _ZONE.fullmatch(zone.name))
    except OSError:
        return []
    for zone in zones:
        try:
            name = (zone / "name").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if _PACKAGE.fullmatch(name):
            found.append(zone)
    return found


def drawn(before: int, now: int, most: int) -> int:
    """Microjoules between two looks at a counter that begins at 0 again after ``most``."""
    return now - before if now >= before else most - before + now + 1
