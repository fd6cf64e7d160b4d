"""The ledger as the simulator sees it: the real one behind, its writes noted, its disk full or its writer killed on order."""

from collections.abc import Callable, Sequence
from typing import Protocol

from rebalancerd.cluster.decision import Command, CommandKind, CycleRecord, OperatorState
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.night import Night, NightsTotal
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.power import PowerRecord
from rebalancerd.ports import Ledger, LedgerUnavailableError, NightLedger, PowerLedger


class KilledError(BaseException):
    """The daemon was killed at this instant. Not an Exception: no handler of the product may survive it."""


class Lifeline:
    """Counts the daemon's effects on the world and the ledger, and cuts it off after the one that was ordered."""

    def __init__(self) -> None:
        self.effects = 0
        self.kill_after: int | None = None

    def effect(self) -> None:
        """One more effect is done. Raises KilledError if it was to be the last."""
        self.effects += 1
        if self.kill_after is not None and self.effects >= self.kill_after:
            self.kill_after = None
            raise KilledError


class RecordingLedger(Ledger, PowerLedger, NightLedger, Protocol):
    """A ledger that also remembers who is asleep, and what nights saved."""


class JournalLedger:
    """ports.Ledger, ports.PowerLedger and ports.NightLedger around another one."""

    def __init__(self, inner: "RecordingLedger", lifeline: Lifeline) -> None:
        self._inner, self._lifeline = inner, lifeline
        self.power: dict[str, PowerRecord] = {}
        self.on_power: Callable[[PowerRecord], None] = lambda _record: None
        self.full = False
        self.cycles_written = 0
        self.records: dict[str, MigrationRecord] = {}
        self.on_migration: Callable[[MigrationRecord], None] = lambda _record: None
        self.on_plan: Callable[[Plan], None] = lambda _plan: None

    def _write(self) -> None:
        if self.full:
            raise LedgerUnavailableError("database or disk is full")

    def record_cycle(self, record: CycleRecord) -> int:
        """Write a cycle."""
        self._write()
        number = self._inner.record_cycle(record)
        self.cycles_written += 1
        self._lifeline.effect()
        return number

    def record_plan(self, plan: Plan) -> None:
        """Write a plan."""
        self._write()
        self._inner.record_plan(plan)
        self.on_plan(plan)
        self._lifeline.effect()

    def plan(self, plan_id: str) -> Plan | None:
        """The plan of that id."""
        return self._inner.plan(plan_id)

    def open_intent(self, record: MigrationRecord) -> None:
        """Make an intent durable."""
        self._write()
        self._inner.open_intent(record)
        self._noted(record)

    def update_migration(self, record: MigrationRecord) -> None:
        """Append a migration's state."""
        self._write()
        self._inner.update_migration(record)
        self._noted(record)

    def _noted(self, record: MigrationRecord) -> None:
        self.records[record.id] = record
        self.on_migration(record)
        self._lifeline.effect()

    def open_migrations(self) -> tuple[MigrationRecord, ...]:
        """Migrations without a verdict."""
        return self._inner.open_migrations()

    def migrations(
        self, *, since: float = 0.0, vm_uuid: str | None = None, limit: int | None = None
    ) -> tuple[MigrationRecord, ...]:
        """Migrations, newest first."""
        return self._inner.migrations(since=since, vm_uuid=vm_uuid, limit=limit)

    def add_command(
        self,
        kind: CommandKind,
        *,
        at: float,
        by: str,
        subject: str | None = None,
        step: int | None = None,
        digest: str | None = None,
        until: float | None = None,
        reason: str = "",
    ) -> Command:
        """Write a command."""
        self._write()
        return self._inner.add_command(
            kind, at=at, by=by, subject=subject, step=step, digest=digest, until=until, reason=reason
        )

    def operator_state(self, now: float) -> OperatorState:
        """What commands add up to."""
        return self._inner.operator_state(now)

    def use_approval(self, command_id: int, migration_id: str) -> bool:
        """Consume an approval."""
        self._write()
        used = self._inner.use_approval(command_id, migration_id)
        self._lifeline.effect()
        return used

    def record_power(self, record: PowerRecord) -> None:
        """Append a host's state."""
        self._write()
        self._inner.record_power(record)
        self.power[record.host] = record
        self.on_power(record)
        self._lifeline.effect()

    def power_records(self) -> tuple[PowerRecord, ...]:
        """The newest state of every host."""
        return self._inner.power_records()

    def record_night(self, night: Night) -> int:
        """Write a night."""
        self._write()
        number = self._inner.record_night(night)
        self._lifeline.effect()
        return number

    def night_under_way(self) -> Night | None:
        """The night that is not over."""
        return self._inner.night_under_way()

    def nights(self, limit: int = 30) -> tuple[Night, ...]:
        """The last nights."""
        return self._inner.nights(limit)

    def nights_total(self) -> NightsTotal:
        """What nights add up to."""
        return self._inner.nights_total()

    def moves_between(self, since: float, until: float) -> tuple[int, float]:
        """Migrations that ended in that time."""
        return self._inner.moves_between(since, until)

    def cycles(self, *, limit: int = 20, before: int | None = None) -> Sequence[CycleRecord]:
        """The last cycles."""
        return self._inner.cycles(limit=limit, before=before)


class SimLease:
    """ports.Lease that is held until a fault takes it."""

    def __init__(self) -> None:
        self.is_held = True
        self._epoch = 1

    def held(self) -> bool:
        """Whether it is held."""
        return self.is_held

    @property
    def epoch(self) -> int:
        """Number of this tenure."""
        return self._epoch

    @property
    def standby(self) -> bool:
        """The simulated controller is alone."""
        return False

    def next_tenure(self) -> None:
        """A restart takes it anew."""
        self._epoch += 1
