"""Questions to the past that only explanations and statistics ask: by VM name, by host, by refusal."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection, Select, Table, func, or_, select
from sqlalchemy.engine import RowMapping

from rebalancerd.cluster.decision import CycleRecord, Decision
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.refusal import Refusal, SubjectKind
from rebalancerd.record.rows import decision_of, migration_of, refusal_of, stored
from rebalancerd.record.schema import cycles, decisions, migration_events, migrations, outcomes, refusals

T = TypeVar("T")
BACK_CYCLES = 500


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """Something a cycle said. ``at``: when that cycle began."""

    cycle_id: int
    at: float
    what: T


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of a migration."""

    at: float
    state: MigrationState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """Predicted and actual figures of one migration with a verdict; None is unknown or without a finite bound."""

    state: str
    basis: str | None
    seconds: float | None
    predicted_seconds: float | None
    predicted_seconds_upper: float | None
    downtime_seconds: float | None
    predicted_downtime_seconds: float | None
    predicted_downtime_seconds_upper: float | None
    transferred_bytes: float | None
    predicted_bytes: float | None
    predicted_bytes_upper: float | None


class Readable(Protocol):
    """A ledger whose tables can be read."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection in a read transaction."""
        ...

    def plan(self, plan_id: str) -> Plan | None:
        """The plan of that id."""
        ...

    def migrations(
        self, *, since: float = 0.0, vm_uuid: str | None = None, limit: int | None = None
    ) -> Sequence[MigrationRecord]:
        """Migrations, newest first."""
        ...

    def cycles(self, *, limit: int = 20, before: int | None = None) -> Sequence[CycleRecord]:
        """The last cycles, newest first."""
        ...


class Archive:
    """A ledger's past. Every method raises LedgerUnavailableError."""

    def __init__(self, ledger: Readable) -> None:
        self.ledger = ledger

    def vms_called(self, given: str) -> tuple[tuple[str, str], ...]:
        """(UUID, last known name) of every VM on record with that UUID or name. A name may be that of several."""
        wanted = stored(given)
        with self.ledger.reading() as connection:
            found: set[str] = set()
            for table in (migrations, decisions):
                match = or_(table.c.vm_name == wanted, table.c.vm_uuid == wanted.lower(), table.c.vm_uuid == wanted)
                found |= set(connection.execute(select(table.c.vm_uuid).where(match).distinct()).scalars())
            if not found:  # never moved nor proposed: only refusals know of it, by UUID
                match = refusals.c.subject.in_((wanted, wanted.lower()))
                query = select(refusals.c.subject).where(match, refusals.c.kind == SubjectKind.VM.value).limit(1)
                found |= set(connection.execute(query).scalars())
            return tuple((uuid, _name(connection, uuid) or uuid) for uuid in sorted(found))

    def name_of(self, vm_uuid: str) -> str | None:
        """Last known name of a VM."""
        with self.ledger.reading() as connection:
            return _name(connection, stored(vm_uuid))

    def last_host_of(self, vm_uuid: str) -> str | None:
        """Where the last decision or successful migration on record leaves the VM."""
        with self.ledger.reading() as connection:
            decided = connection.execute(_told(decisions).where(decisions.c.vm_uuid == stored(vm_uuid)).limit(1))
            row = decided.mappings().first()
        moved = [r for r in self.ledger.migrations(vm_uuid=vm_uuid, limit=20) if r.ended_at is not None]
        arrived = next((r for r in moved if r.state is MigrationState.SUCCEEDED), None)
        if arrived is not None and (row is None or (arrived.ended_at or 0.0) >= row["started_at"]):
            return arrived.destination
        return str(row["source"]) if row is not None else None

    def migration(self, given: str) -> MigrationRecord | None:
        """The migration of that id, or the only one whose id begins so."""
        wanted = stored(given)
        if not wanted:
            return None
        table = migrations.c
        query = select(table.id, table.body).where(
            or_(table.id == wanted, table.id.startswith(wanted, autoescape=True))
        )
        with self.ledger.reading() as connection:
            found = connection.execute(query.limit(2000)).mappings().all()
        exact = [row for row in found if row["id"] == wanted]
        if len(exact) == 1 or len(found) == 1:
            return migration_of((exact or found)[0])
        return None

    def events(self, migration_id: str) -> tuple[Event, ...]:
        """Every change of a migration, in order."""
        table = migration_events.c
        wanted = (
            select(table.at, table.state, table.reason).where(table.migration_id == migration_id).order_by(table.id)
        )
        with self.ledger.reading() as connection:
            found = connection.execute(wanted).all()
        return tuple(Event(at=row.at, state=MigrationState(row.state), reason=row.reason) for row in found)

    def cycle(self, number: int | None = None) -> CycleRecord | None:
        """The cycle of that number; without one the last."""
        before = None if number is None else number + 1
        found = self.ledger.cycles(limit=1, before=before)
        return found[0] if found and number in (None, found[0].id) else None

    def decisions(
        self, *, vm_uuid: str | None = None, host: str | None = None, limit: int = 20
    ) -> tuple[Told[Decision], ...]:
        """Decisions about a VM, or from or to a host, newest first."""
        wanted = _told(decisions)
        if vm_uuid is not None:
            wanted = wanted.where(decisions.c.vm_uuid == stored(vm_uuid))
        if host is not None:
            name = stored(host)
            wanted = wanted.where(or_(decisions.c.source == name, decisions.c.destination == name))
        with self.ledger.reading() as connection:
            found = _recent(connection, wanted.limit(limit))
        return tuple(Told(row["cycle_id"], row["started_at"], decision_of(row)) for row in found)

    def refusals(self, subjects: Collection[str], *, back: int = BACK_CYCLES) -> tuple[Told[Refusal], ...]:
        """Refusals about any of these subjects within the last ``back`` cycles, newest first."""
        wanted = [stored(subject) for subject in subjects]
        with self.ledger.reading() as connection:
            newest = connection.execute(select(func.max(cycles.c.id))).scalar() or 0
            query = _told(refusals).where(refusals.c.subject.in_(wanted), refusals.c.cycle_id > newest - back)
            found = _recent(connection, query)
        made = ((row, refusal_of(row)) for row in found)
        return tuple(Told(row["cycle_id"], row["started_at"], refusal) for row, refusal in made if refusal is not None)

    def outcomes(self, since: float = 0.0) -> tuple[OutcomeRow, ...]:
        """Figures of the migrations that ended since then."""
        names = tuple(OutcomeRow.__dataclass_fields__)
        wanted = select(*(outcomes.c[name] for name in names)).where(outcomes.c.ended_at >= since)
        with self.ledger.reading() as connection:
            found = connection.execute(wanted).mappings().all()
        return tuple(OutcomeRow(**row) for row in found)


def _told(table: Table) -> Select[Any]:
    """Rows of a table of things that cycles said, with the cycle's beginning, newest first."""
    joined = table.join(cycles, cycles.c.id == table.c.cycle_id)
    order = (table.c.cycle_id.desc(), table.c.position)
    return select(table, cycles.c.started_at).select_from(joined).order_by(*order)


def _name(connection: Connection, uuid: str) -> str | None:
    """From the newest row that mentions it."""
    moved = select(migrations.c.vm_name).where(migrations.c.vm_uuid == uuid).order_by(migrations.c.seq.desc())
    decided = select(decisions.c.vm_name).where(decisions.c.vm_uuid == uuid).order_by(decisions.c.cycle_id.desc())
    for query in (decided, moved):
        name = connection.execute(query.limit(1)).scalar()
        if name is not None:
            return str(name)
    return None


def _recent(connection: Connection, query: Select[Any]) -> Sequence[RowMapping]:
    return connection.execute(query).mappings().all()
