"""The circuit breaker: after too many failures, or one that must never happen, nothing starts until a person says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from rebalancerd.cluster.migration import CRITICAL_STATES, MOVED_NOTE, MigrationRecord, MigrationState
from rebalancerd.guard.settings import GuardSettings

# an abort of ours is a misjudged VM, not a broken cluster; a guest that shut down is nobody's fault
FAILURES = frozenset({MigrationState.FAILED, MigrationState.LOST_SOURCE, MigrationState.DEGRADED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Open if ``reason`` is not None; ``since`` is the epoch second of the record that opened it."""

    reason: str | None = None
    since: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing may start."""
        return self.reason is not None


def breaker(
    records: Sequence[tuple[MigrationRecord, float]], closed_at: float | None, settings: GuardSettings
) -> Breaker:
    """The breaker after ``records`` with their instants, in the order of time; those up to ``closed_at`` are dealt with.

    It opens at the first record in a critical state, and when ``breaker_failures`` failures of ours lie within
    ``breaker_window_seconds``; growing old does not close it.
    """
    failures: list[float] = []
    for record, at in records:
        if closed_at is not None and at <= closed_at:
            continue
        if record.state in CRITICAL_STATES:
            where = f"{record.vm_name!r} from {record.source} to {record.destination}"
            return Breaker(reason=f"critical: {record.state.value} ({where}, migration {record.id})", since=at)
        if record.ours and record.state in FAILURES and MOVED_NOTE not in record.reason:
            failures.append(at)
            lately = [f for f in failures if at - f <= settings.breaker_window_seconds]
            if len(lately) >= max(1, settings.breaker_failures):
                reason = f"{len(lately)} migrations failed within {settings.breaker_window_seconds:.0f} s"
                return Breaker(reason=f"{reason}, last {record.id}: {record.reason}", since=at)
    return Breaker()
