"""The state of every host's power as the ledger has it: written there first, then believed, then told."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from rebalancerd.cluster.power import PowerPhase, PowerRecord
from rebalancerd.ports import Clock, PowerLedger

log = structlog.get_logger(__name__)

# what belongs to one phase only
FRESH: dict[str, Any] = {"empty_at": None, "ordered_at": None, "orders": 0}
ALERTING = frozenset({PowerPhase.STUCK, PowerPhase.FAILED})


class PowerBook:
    """Records by host. Every change raises LedgerUnavailableError where it could not be made durable, and is then none."""

    def __init__(self, ledger: PowerLedger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock
        self._records: dict[str, PowerRecord] = {}
        self.on_change: list[Callable[[PowerRecord, PowerRecord], None]] = []  # told (before, after)

    def load(self) -> None:
        """Take over what is on record. Raises LedgerUnavailableError."""
        self._records = {record.host: record for record in self._ledger.power_records()}

    def of(self, host: str) -> PowerRecord:
        """The host's state; awake where nothing is on record."""
        return self._records.get(host) or PowerRecord(host=host)

    def all(self) -> tuple[PowerRecord, ...]:
        """Every host that is on record, by name."""
        records = dict(self._records)  # another thread may write meanwhile
        return tuple(records[host] for host in sorted(records))

    def enter(self, host: str, phase: PowerPhase, reason: str, **changes: Any) -> PowerRecord:
        """A new phase begins."""
        return self._write(host, phase=phase, since=self._clock.wall(), reason=reason, **{**FRESH, **changes})

    def note(self, host: str, **changes: Any) -> PowerRecord:
        """The phase goes on; something of it changed."""
        return self._write(host, **changes)

    def _write(self, host: str, **changes: Any) -> PowerRecord:
        before = self.of(host)
        after = replace(before, **changes)
        if after == before:
            return before
        self._ledger.record_power(after)
        self._records[host] = after
        told = {"host": host, "phase": str(after.phase), "reason": after.reason, "by": after.by}
        if after.phase in ALERTING and after.phase is not before.phase:
            log.error("power_failed", **told)
        else:
            log.info("power", was=str(before.phase), **told)
        if after.disabled is not None and before.disabled is None:
            log.error("power_off_disabled", host=host, reason=after.disabled)
        for listener in self.on_change:
            listener(before, after)
        return after
