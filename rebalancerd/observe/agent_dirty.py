"""Dirty curves of the guests on this host, measured by the agent in turn and served as JSON on ``/dirty``.

The answer: ``{"format": 1, "every_seconds": s, "vms": [{"uuid", "memory_bytes", "age_seconds", "points": [{"period_seconds",
"unique_bytes", "standard_error_bytes", "readings"}], "reason"}]}``. ``reason``: why the last look gave nothing, null if
it did; ``points`` are empty and ``age_seconds`` null where there is no curve. A guest not looked at yet is left out.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rebalancerd.cluster.dirty import DirtyCurve, DirtyReading
from rebalancerd.observe.agent import PREFIX
from rebalancerd.observe.dirty_pool import DirtyPool
from rebalancerd.observe.memory_pages import BY_PAGES, MemoryUnreadableError, measure
from rebalancerd.observe.qemu_processes import PROC, QemuProcess, running, started_at, vcpu_nanoseconds

log = structlog.get_logger(__name__)

DIRTY_FORMAT = 1
DIRTY_PATH = "/dirty"
EVERY_SECONDS = 10.0
LEAST_EVERY_SECONDS = 5.0  # a look takes 4 s
KEEP_SECONDS = 1800.0
Look = Callable[[QemuProcess, int], tuple[DirtyReading, ...]]


@dataclass(slots=True)
class _Guest:
    process: QemuProcess
    looked_at: float = float("-inf")  # monotonic
    reason: str | None = None


class DirtyMeter(Collector):
    """Measures one guest after the other, the longest unmeasured first. Thread-safe."""

    def __init__(
        self,
        every_seconds: float = EVERY_SECONDS,
        *,
        proc: Path = PROC,
        look: Look | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``look`` measures a process with a seed (default: its memory). Raises ValueError if a look would not end in time."""
        if not LEAST_EVERY_SECONDS <= every_seconds <= KEEP_SECONDS:
            raise ValueError(f"a guest is measured every {LEAST_EVERY_SECONDS:g} to {KEEP_SECONDS:g} s")
        self._every, self._proc, self._monotonic = every_seconds, proc, monotonic
        self._look = look if look is not None else self._read_memory
        self._lock = threading.Lock()
        self._guests: dict[str, _Guest] = {}
        self._pool = DirtyPool(KEEP_SECONDS, BY_PAGES)  # on the monotonic clock: the host's may step
        self._turns = 0
        self._told: set[str] = set()

    def start(self) -> None:
        """Measure from a thread of its own until the program ends."""
        threading.Thread(target=self._keep_measuring, name="dirty", daemon=True).start()

    def turn(self) -> None:
        """Look for guests and measure one. Nothing is raised: what cannot be measured has its reason in the answer."""
        try:
            process = self._next(running(self._proc))
            if process is not None:
                self._measure(process)
        except Exception:  # the figures of the host go on
            log.exception("agent_dirty_failed", bug=True)

    def page(self) -> bytes:
        """What is served."""
        vms = []
        with self._lock:
            now = self._monotonic()
            for uuid, guest in sorted(self._guests.items()):
                curve = self._pool.curve(uuid, now, guest.process.memory_bytes) if guest.process.memory_bytes else None
                if curve is not None or guest.reason is not None:
                    vms.append(_told(guest, curve))
        return json.dumps({"format": DIRTY_FORMAT, "every_seconds": self._every, "vms": vms}, allow_nan=False).encode()

    def collect(self) -> Iterator[Metric]:
        """How many guests have a curve: by this figure a daemon knows that ``/dirty`` is served."""
        with self._lock:
            now = self._monotonic()
            count = sum(
                guest.process.memory_bytes > 0 and self._pool.curve(uuid, now, guest.process.memory_bytes) is not None
                for uuid, guest in self._guests.items()
            )
        yield GaugeMetricFamily(f"{PREFIX}_dirty_curves", "Guests whose dirty curve is served.", count)

    def _keep_measuring(self) -> None:
        while True:
            begun = self._monotonic()
            self.turn()
            time.sleep(max(0.0, begun + self._every - self._monotonic()))

    def _next(self, processes: tuple[QemuProcess, ...]) -> QemuProcess | None:
        """Take over who runs now; the one to measure. Another process of a UUID is another guest as far as we know."""
        with self._lock:
            known = self._guests
            here = {p.uuid: known[p.uuid] for p in processes if p.uuid in known and known[p.uuid].process == p}
            self._pool.keep(frozenset(here))
            self._guests = {p.uuid: here.get(p.uuid) or _Guest(p, reason=p.fault) for p in processes}
            fit = [guest for guest in self._guests.values() if guest.process.fault is None]
            chosen = min(fit, key=lambda g: (g.looked_at, g.process.uuid), default=None)
            if chosen is not None:
                chosen.looked_at = self._monotonic()
        for process in processes:
            self._tell(process.uuid, process.fault)
        return None if chosen is None else chosen.process

    def _measure(self, process: QemuProcess) -> None:
        self._turns += 1
        readings: tuple[DirtyReading, ...] = ()
        ran = vcpu_nanoseconds(process.pid, self._proc)
        try:
            readings = self._look(process, self._turns)
            reason = self._doubt(process, ran) or (None if readings else "the host was too busy")
        except MemoryUnreadableError as error:
            reason = str(error)
        with self._lock:
            guest = self._guests[process.uuid]
            guest.reason = reason
            for reading in readings if reason is None else ():
                self._pool.add(process.uuid, reading)
        self._tell(process.uuid, reason)

    def _doubt(self, process: QemuProcess, ran_before: int | None) -> str | None:
        """Why the readings are not of that guest at work, None if they are."""
        if started_at(process.pid, self._proc) != process.started:
            return "its process ended"
        ran = vcpu_nanoseconds(process.pid, self._proc)
        if ran is None or ran_before is None:
            return "whether its vCPUs ran cannot be told"
        return "its vCPUs did not run" if ran <= ran_before else None

    def _read_memory(self, process: QemuProcess, seed: int) -> tuple[DirtyReading, ...]:
        return measure(
            process.pid,
            process.memory_bytes,
            monotonic=self._monotonic,
            wall=self._monotonic,
            sleep=time.sleep,
            seed=seed,
            proc=self._proc,
        )

    def _tell(self, uuid: str, reason: str | None) -> None:
        """Log a reason once, however many guests have it."""
        kind = None if reason is None else re.sub(r"\d+", "n", reason)
        if kind is not None and kind not in self._told:
            self._told.add(kind)
            log.warning("agent_dirty_unmeasured", vm=uuid, reason=reason, told="once")


def _told(guest: _Guest, curve: DirtyCurve | None) -> dict[str, object]:
    points = curve.points if curve is not None else ()
    return {
        "uuid": guest.process.uuid,
        "memory_bytes": guest.process.memory_bytes,
        "age_seconds": None if curve is None else curve.age_seconds,
        "points": [
            {
                "period_seconds": point.period_seconds,
                "unique_bytes": point.unique_bytes,
                "standard_error_bytes": point.standard_error_bytes,
                "readings": point.readings,
            }
            for point in points
        ],
        "reason": guest.reason,
    }


__all__ = ["DIRTY_FORMAT", "DIRTY_PATH", "EVERY_SECONDS", "DirtyMeter"]
