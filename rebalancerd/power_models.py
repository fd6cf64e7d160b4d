"""PowerModels: readings of what hosts draw, kept and fitted, so that each host is planned and accounted by its own figures.

Which source a host is modelled by: the first meter whose readings make a model (its controller before RAPL), else what
the configuration declares, else what is assumed of any host. Nothing here acts on a host.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path

import structlog

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.power import PowerFault
from rebalancerd.cluster.power_curve import PowerDefaults
from rebalancerd.cluster.power_fit import PowerFit, WattsReading, fit, odd, told
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.ports import Clock, PowerError, PowerMeter
from rebalancerd.record.jsonfile import JsonFileError, read_tree, write_whole

log = structlog.get_logger(__name__)

KEPT = 500  # readings by host and meter
EVERY_SECONDS = 300.0  # between two readings of one host
UNTOLD_SECONDS = 6 * 3600.0  # before a controller is asked again that gave none
SAVE_SECONDS = 3600.0
SAME = 0.03  # a new line that differs by less does not take the place of the old: plans must not follow noise
MOST_BYTES = 64 * 1024 * 1024
FORMAT = 1
Key = tuple[str, str]  # host, meter


class PowerModels:
    """``tick`` is called by one thread; everything else by any. ``path``: where readings outlive the process."""

    def __init__(
        self,
        meters: Sequence[PowerMeter],
        clock: Clock,
        snapshot: Callable[[], Snapshot | None],
        defaults: Callable[[], PowerDefaults],
        path: Path | None = None,
    ) -> None:
        self._meters, self._clock, self._snapshot = tuple(meters), clock, snapshot
        self._defaults, self._path = defaults, path
        self._readings: dict[Key, deque[WattsReading]] = {}
        self._not_before: dict[Key, float] = {}  # monotonic
        self._dropped: dict[str, Counter[str]] = {}
        self._faults: dict[Key, str] = {}
        self._models: dict[str, PowerFit] = {}
        self._why_none: dict[Key, str] = {}
        self._saved_at = clock.monotonic()
        self._load()

    def models(self) -> Mapping[str, PowerFit]:
        """Fitted models by host, of the hosts that have one."""
        return dict(self._models)

    def applied(self, host: Host) -> Host:
        """The host with its measured model in the place of what is declared of it."""
        found = self._models.get(host.name)
        if found is None:
            return host
        return replace(host, idle_watts=found.idle_watts, max_watts=found.busy_watts, power_watts=None)

    def told(self, host: Host) -> str:
        """Which model of that host's power is used, why not a measured one, and which readings were dropped."""
        parts = [told(host, self._models.get(host.name), self._defaults())]
        found = self._models.get(host.name)
        for meter in self._meters:
            if found is not None and found.source == meter.name:
                break
            key = (host.name, meter.name)
            why = self._faults.get(key) or self._why_none.get(key)
            if why is not None:
                parts.append(f"none by {meter.name}: {why}")
        dropped = dict(self._dropped.get(host.name, {}))
        if dropped:
            reasons = ", ".join(f"{count} {why}" for why, count in sorted(dropped.items()))
            parts.append(f"{sum(dropped.values())} readings dropped: {reasons}")
        return "; ".join(parts)

    # readings

    def tick(self) -> None:
        """Take the readings that are due, one at most of those that cost a call, and fit anew where there is one."""
        seen = self._snapshot()
        if seen is None:
            return
        for meter in self._meters:
            hosts = meter.hosts()
            due = sorted((h for h in seen.hosts if h.usable and h.name in hosts), key=lambda h: self._since(h, meter))
            for host in due[:1] if meter.asks else due:
                if self._since(host, meter) <= self._clock.monotonic():
                    self._read(host, meter)
        if self._clock.monotonic() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def _since(self, host: Host, meter: PowerMeter) -> float:
        return self._not_before.get((host.name, meter.name), float("-inf"))

    def _read(self, host: Host, meter: PowerMeter) -> None:
        key, wait = (host.name, meter.name), EVERY_SECONDS
        try:
            watts = meter.watts(host.name)
        except PowerError as error:
            if key not in self._faults:
                log.warning("power_not_measured", host=host.name, meter=meter.name, reason=str(error))
            self._faults[key] = f"{error.fault}: {error}"
            wait = UNTOLD_SECONDS if error.fault is PowerFault.REFUSED else EVERY_SECONDS
            watts = None
        else:
            self._faults.pop(key, None)
        self._not_before[key] = self._clock.monotonic() + wait
        busy = host.load.cpu_cores
        if watts is not None and busy is not None and host.cores:
            self._note(key, WattsReading(self._clock.wall(), watts, busy / host.cores))

    def _note(self, key: Key, reading: WattsReading) -> None:
        if (why := odd(reading)) is not None:
            self._dropped.setdefault(key[0], Counter())[why] += 1
            log.info("power_reading_dropped", host=key[0], meter=key[1], watts=str(reading.watts), reason=why)
            return
        self._readings.setdefault(key, deque(maxlen=KEPT)).append(reading)
        self._fit(key[0])

    def _fit(self, host: str) -> None:
        for meter in self._meters:
            rows = self._readings.get((host, meter.name))
            if not rows:
                continue
            found = fit(rows, meter.name)
            if isinstance(found, str):
                self._why_none[host, meter.name] = found
                continue
            self._why_none.pop((host, meter.name), None)
            old = self._models.get(host)
            if old is None or old.source != found.source or _differ(old, found):
                log.info("power_model", host=host, source=found.source, idle=found.idle_watts, busy=found.busy_watts)
                self._models[host] = found
            else:
                self._models[host] = replace(old, readings=found.readings)
            return
        self._models.pop(host, None)

    # the file

    def save(self) -> None:
        """Write the readings down; for the thread that calls ``tick``. A file that cannot be written costs readings, nothing else."""
        self._saved_at = self._clock.monotonic()
        if self._path is None or not self._readings:
            return
        rows = [
            {"host": host, "meter": meter, "readings": [(r.at, r.watts, r.utilisation) for r in kept]}
            for (host, meter), kept in sorted(self._readings.items())
        ]
        try:
            write_whole(self._path, json.dumps({"format": FORMAT, "rows": rows}), 0o600)
        except OSError as error:
            log.warning("power_readings_not_kept", path=str(self._path), reason=str(error))

    def _load(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            tree = read_tree(self._path, MOST_BYTES)
            if tree.get("format") != FORMAT:
                raise ValueError(f"format {tree.get('format')!r:.40}")
            for row in tree["rows"]:
                readings = [WattsReading(float(at), float(w), float(u)) for at, w, u in row["readings"]]
                good = [r for r in readings if odd(r) is None and isfinite(r.at)]
                self._readings[str(row["host"]), str(row["meter"])] = deque(good, maxlen=KEPT)
        except (JsonFileError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._readings.clear()
            log.warning("power_readings_unreadable", path=str(self._path), reason=str(error), instead="begun anew")
        for host in sorted({host for host, _ in self._readings}):
            self._fit(host)


def _differ(old: PowerFit, new: PowerFit) -> bool:
    pairs = ((old.idle_watts, new.idle_watts), (old.busy_watts, new.busy_watts))
    return any(abs(after - before) > SAME * before for before, after in pairs)
