"""What the daemon would know of a guest right before its migration: sampled and probed by the daemon's own parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rebalancerd.clock import SystemClock
from rebalancerd.cluster.cost import Candidate, MigrationOptions
from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.dirty import DirtyCurve
from rebalancerd.cluster.known import migration_facts
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.lab.commands import LabError
from rebalancerd.observe.dirty_pool import DirtyPool
from rebalancerd.observe.history import History
from rebalancerd.observe.libvirt_probe import LibvirtProbe
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.memory_pages import BY_PAGES, MemoryUnreadableError, measure
from rebalancerd.observe.observer import Observer
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.ports import HostError

PERIODS_SECONDS = (1, 4)
LATE_SECONDS = 4.0  # a result may come later than its period
POLL_SECONDS = 0.3
KEEP_SECONDS = 1800.0
STRETCH_SECONDS = 2.0


class Measuring:
    """Readings of one setting, pooled over its repeats as the daemon's rolling probe pools them."""

    def __init__(
        self,
        hosts: Sequence[HostSettings],
        read: LibvirtRead,
        probe: LibvirtProbe,
        directory: Path,
        pid_of: Callable[[str, str], int | None],
    ) -> None:
        self._probe, self._clock, self._pid_of = probe, SystemClock(), pid_of
        self._exact = DirtyPool(KEEP_SECONDS, BY_PAGES)
        settings = ObserveSettings(stale_after_seconds=120.0, frozen_jump_share=1.0)
        self._observer = Observer(
            hosts=hosts,
            settings=settings,
            read=read,
            history=History(directory),
            clock=self._clock,
            concurrent=False,
        )
        self._sampled_at = 0.0
        self._sample()

    def probe(self, host: str, uuids: Sequence[str], rounds: int) -> None:
        """Measure every period ``rounds`` times on each guest, guests in turn.

        Raises:
            LabError: a calculation does not start or gives no result.
        """
        for number in range(rounds):
            for period in PERIODS_SECONDS:
                for uuid in uuids:
                    last = number == rounds - 1 and period == PERIODS_SECONDS[-1]
                    self._measure(host, uuid, period, quiet=last)

    def _measure(self, host: str, uuid: str, period: int, *, quiet: bool) -> None:
        before = self._readings(uuid, period)
        try:
            self._probe.start_dirty_rate(host, uuid, period)
        except HostError as error:
            raise LabError(f"dirty-rate calculation: {error}") from error
        if not quiet:  # else the last interval, from which CPU rates are made, is the whole period
            self._sample()
        deadline = time.monotonic() + period + LATE_SECONDS
        if period == PERIODS_SECONDS[-1]:
            self._measure_exactly(host, uuid)  # takes as long
        else:
            time.sleep(period)
        time.sleep(POLL_SECONDS)
        while time.monotonic() < deadline:
            self._sample()
            if self._readings(uuid, period) > before:
                return
            time.sleep(POLL_SECONDS)
        raise LabError(f"dirty-rate calculation over {period} s: no result within {LATE_SECONDS:g} s of its end")

    def _measure_exactly(self, host: str, uuid: str) -> None:
        """The second source: what the host's agent would read of the guest's memory; without it there is only the first."""
        begun = time.monotonic()
        vm, pid = self.snapshot().vm_by_uuid.get(uuid), self._pid_of(host, uuid)
        try:
            if vm is not None and pid is not None:
                readings = measure(
                    pid, vm.facts.memory_bytes, monotonic=time.monotonic, wall=time.time, sleep=time.sleep
                )
                for reading in readings:
                    self._exact.add(uuid, reading)
        except MemoryUnreadableError:
            pass
        time.sleep(max(0.0, begun + PERIODS_SECONDS[-1] - time.monotonic()))

    def exact_curve(self, uuid: str, memory_bytes: int) -> DirtyCurve | None:
        """What the second source came to."""
        return self._exact.curve(uuid, time.time(), memory_bytes)

    def _sample(self) -> None:
        self._observer.sample()
        self._sampled_at = time.monotonic()

    def freshen(self) -> Snapshot:
        """Sample anew if that gives rates over a stretch long enough to mean anything; the snapshot of now."""
        if time.monotonic() - self._sampled_at >= STRETCH_SECONDS:
            self._sample()
        return self.snapshot()

    def _readings(self, uuid: str, period: int) -> int:
        vm = self.snapshot().vm_by_uuid.get(uuid)
        points = vm.dirty.points if vm is not None and vm.dirty is not None else ()
        return next((point.readings for point in points if point.period_seconds == period), 0)

    def snapshot(self) -> Snapshot:
        """The hosts as last sampled."""
        return self._observer.snapshot(operator=OperatorState(), ours=())

    def close(self) -> None:
        """Let go of the history's files."""
        self._observer.close()


def _curve(prefix: str, curve: DirtyCurve | None) -> dict[str, object]:
    """Columns of a dirty curve."""
    points = curve.points if curve is not None else ()

    def joined(values: Sequence[float]) -> str:
        return ";".join(f"{value:.9g}" for value in values)

    return {
        f"{prefix}_periods_seconds": joined([p.period_seconds for p in points]),
        f"{prefix}_unique_bytes": joined([p.unique_bytes for p in points]),
        f"{prefix}_error_bytes": joined([p.standard_error_bytes for p in points]),
        f"{prefix}_readings": joined([p.readings for p in points]),
        f"{prefix}_age_seconds": None if curve is None else curve.age_seconds,
    }


def known_before(
    snapshot: Snapshot,
    uuid: str,
    destination: str,
    options: MigrationOptions,
    *,
    link_share: float,
    exact: DirtyCurve | None,
) -> dict[str, object]:
    """The input columns of a row: nothing that a daemon on a real cluster would not know."""
    asked = Candidate(
        vm_uuid=uuid,
        source=snapshot.vm(uuid).host,
        destination=destination,
        link_share=link_share,
        options=options,
    )
    known = migration_facts(snapshot, asked)
    assert known is not None
    return {
        "memory_bytes": known.memory_bytes,
        "resident_bytes": known.resident_bytes,
        "vcpus": known.vcpus,
        "vm_cpu_cores": known.vm_cpu_cores,
        "vm_steal_cores": known.vm_steal_cores,
        **_curve("dirty", known.dirty),
        **_curve("exact", exact),
        "link_bytes_per_second": known.link_bytes_per_second,
        "link_share": known.link_share,
        "bandwidth_bytes_per_second": options.bandwidth_bytes_per_second,
        "max_downtime_seconds": options.max_downtime_seconds,
        "auto_converge": options.auto_converge,
        "parallel": options.parallel,
        "source_cores": known.source_cores,
        "source_cpu_cores": known.source_cpu_cores,
        "destination_cores": known.destination_cores,
        "destination_cpu_cores": known.destination_cpu_cores,
    }
