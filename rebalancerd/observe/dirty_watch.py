"""Tells new dirty-rate results from old ones: libvirt shows the last result for ever and dates it on a clock of the host."""

from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.observe.domain_stats import DirtyStatus


class DirtyWatch:
    """Per VM of one host: which calculation was seen last, and when its result first appeared.

    A result that was there before we first looked has no known age and is never reported.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[DirtyStatus | None, DirtyReading | None]] = {}

    def take(self, uuid: str, status: DirtyStatus | None, wall: float) -> DirtyReading | None:
        """The newest result whose age is known, None if there is none."""
        if uuid not in self._seen:
            self._seen[uuid] = (status, None)
            return None
        before, reading = self._seen[uuid]
        if status is not None and not status.measuring and status != before:
            reading = DirtyReading(
                taken_at=wall,
                period_seconds=float(status.period_seconds),
                rate_bytes_per_second=float(status.rate_bytes_per_second),
            )
        elif status is None:
            reading = None  # a new QEMU process: the VM was restarted or has moved
        self._seen[uuid] = (status, reading)
        return reading

    def keep(self, uuids: frozenset[str]) -> None:
        """Forget every other VM."""
        for uuid in self._seen.keys() - uuids:
            del self._seen[uuid]
