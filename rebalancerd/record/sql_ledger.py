"""The ledger: append-only memory of cycles, plans, migrations and commands in one database. Thread-safe.

Whatever goes wrong below is told as LedgerUnavailableError; what returned without an error is on the disk.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, exists, insert, select, update
from sqlalchemy.engine import RowMapping, make_url
from sqlalchemy.exc import IntegrityError

from rebalancerd.cluster.advice import Advice, AdviceRecord, AdviceScore, WatchedHour
from rebalancerd.cluster.decision import Command, CommandKind, CycleRecord, OperatorState
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.night import Night, NightsTotal
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.power import PowerRecord
from rebalancerd.ports import Clock, LedgerUnavailableError
from rebalancerd.record import advice_rows, night_rows, power_rows, rows
from rebalancerd.record import operator_state as operators
from rebalancerd.record.codec import PLANS, CodecError
from rebalancerd.record.database import file_of, open_engine, telling
from rebalancerd.record.lease import Fence
from rebalancerd.record.postgres import Access, is_postgres
from rebalancerd.record.schema import (
    commands,
    cycles,
    decisions,
    meta,
    migration_events,
    migrations,
    outcomes,
    plans,
    refusals,
    steps,
)
from rebalancerd.record.soundness import wrong_with

LEDGER_FORMAT = "1"
DAY_SECONDS = 86_400.0


class SqlLedger:
    """ports.Ledger on SQLAlchemy. ``url``: ``sqlite:////PATH``, ``sqlite://`` for one in memory, or ``postgresql://…``.

    ``fence``: where several controllers share the ledger, the lease that every write about a migration is checked
    against, within the transaction that writes.
    """

    def __init__(self, url: str, clock: Clock, *, access: Access | None = None) -> None:
        """Open or make it. Raises LedgerUnavailableError if it cannot be trusted, and then leaves it as it is."""
        self.url = url
        self.fence: Fence | None = None
        self._clock = clock
        self._lock = threading.RLock()
        self._engine = open_engine(url, access)
        self.shared = is_postgres(make_url(url))
        snapshots = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._writer = self._engine.execution_options(**({} if self.shared else {"immediate": True}))
        self._reader = self._engine.execution_options(**(snapshots if self.shared else {}))
        self._file = file_of(make_url(url))
        self._identity = self._inode()
        self._check_format()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def integrity_check(self) -> tuple[str, ...]:
        """What a full check of the database finds wrong; empty if it is sound. Raises LedgerUnavailableError."""
        with self.reading() as connection:
            return wrong_with(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a read transaction: one consistent picture."""
        with telling(self.url):
            if self._file is None and not self.shared:
                with self._lock, self._reader.begin() as connection:
                    yield connection
            else:
                with self._reader.begin() as connection:
                    yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A connection in a write transaction, durable when this ends without an error."""
        with self._lock, telling(self.url):
            if self._inode() != self._identity:
                raise LedgerUnavailableError(
                    f"ledger {self._file} was removed or replaced while it was open; nothing is started: restart"
                )
            with self._writer.begin() as connection:
                yield connection

    @contextmanager
    def _leading(self, intent: MigrationRecord | None = None) -> Iterator[Connection]:
        """As ``_writing``, but only while no other controller leads; for an intent only within its own tenure."""
        with self._writing() as connection:
            if self.fence is not None:
                self.fence.check(connection, intent.epoch if intent is not None else None)
            yield connection

    def _inode(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        try:
            status = Path(self._file).stat()
        except OSError:
            return (0, 0)
        return status.st_dev, status.st_ino

    def _check_format(self) -> None:
        with self._writing() as connection:
            wanted = select(meta.c.value).where(meta.c.key == "format")
            found = connection.execute(wanted).scalar()
            if found is None:
                first = [
                    {"key": "format", "value": LEDGER_FORMAT},
                    {"key": "created_at", "value": repr(self._clock.wall())},
                ]
                try:
                    with connection.begin_nested():
                        connection.execute(insert(meta), first)
                except IntegrityError:  # another controller was first
                    found = connection.execute(wanted).scalar()
            if found not in (None, LEDGER_FORMAT):
                raise LedgerUnavailableError(
                    f"{self.url}: ledger format {found!r}; this version reads {LEDGER_FORMAT!r}"
                )

    # cycles

    def record_cycle(self, record: CycleRecord) -> int:
        """Write a cycle with its decisions and refusals; returns its number."""
        with self._writing() as connection:
            number = _numbered(connection, cycles, rows.cycle_row(record))
            if record.decisions:
                made = [rows.decision_row(d, number, i) for i, d in enumerate(record.decisions)]
                connection.execute(insert(decisions), made)
            if record.refusals:
                told = [
                    {"cycle_id": number, "position": i, **rows.refusal_row(r)} for i, r in enumerate(record.refusals)
                ]
                connection.execute(insert(refusals), told)
        return number

    def cycles(self, *, limit: int = 20, before: int | None = None) -> Sequence[CycleRecord]:
        """The last cycles, newest first; ``before``: only those with a smaller number."""
        wanted = select(cycles.c.id, cycles.c.body).order_by(cycles.c.id.desc()).limit(max(0, limit))
        if before is not None:
            wanted = wanted.where(cycles.c.id < before)
        with self.reading() as connection:
            found = connection.execute(wanted).mappings().all()
            if not found:
                return ()
            span = (found[-1]["id"], found[0]["id"])
            made = _by_cycle(connection, decisions, span)
            told = _by_cycle(connection, refusals, span)
        return tuple(
            rows.cycle_of(
                row,
                tuple(map(rows.decision_of, made.get(row["id"], ()))),
                tuple(r for t in told.get(row["id"], ()) if (r := rows.refusal_of(t)) is not None),
            )
            for row in found
        )

    # plans

    def record_plan(self, plan: Plan) -> None:
        """Write a plan; again is nothing. Raises LedgerUnavailableError if its id stands for another one."""
        digest = plan.digest
        try:
            body = PLANS.write(plan)
        except CodecError as error:
            raise LedgerUnavailableError(f"plan {plan.id} cannot be recorded: {error}") from error
        with self._writing() as connection:
            known = connection.execute(select(plans.c.digest).where(plans.c.id == plan.id)).scalar()
            if known is None:
                connection.execute(insert(plans).values(rows.plan_row(plan, body)))
                if plan.steps:
                    connection.execute(insert(steps), rows.step_rows(plan))
        if known not in (None, digest):
            raise LedgerUnavailableError(
                f"plan {plan.id} is on record with other content (digest {known}, not {digest})"
            )

    def plan(self, plan_id: str) -> Plan | None:
        """The plan of that id. Raises LedgerUnavailableError if it is on record but not what was written."""
        with self.reading() as connection:
            row = connection.execute(
                select(plans.c.body, plans.c.digest).where(plans.c.id == rows.stored(plan_id))
            ).first()
        if row is None:
            return None
        try:
            plan = PLANS.read(row.body)
        except CodecError as error:
            raise LedgerUnavailableError(f"plan {plan_id} on record cannot be read: {error}") from error
        if plan.digest != row.digest:
            raise LedgerUnavailableError(
                f"plan {plan_id} on record was changed: digest {plan.digest}, not {row.digest}"
            )
        return plan

    # migrations

    def open_intent(self, record: MigrationRecord) -> None:
        """Make the intent durable. Raises LedgerUnavailableError also for a VM that has an open migration of ours."""
        try:
            with self._leading(record) as connection:
                connection.execute(insert(migrations).values(rows.migration_row(record)))
                self._event(connection, record)
        except LedgerUnavailableError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            other = next((r.id for r in self.open_migrations() if r.vm_uuid == record.vm_uuid and r.ours), None)
            why = (
                f"its VM has the open migration {other}"
                if other not in (None, record.id)
                else "it is on record already"
            )
            raise LedgerUnavailableError(f"intent {record.id} is not recorded: {why}") from error

    def update_migration(self, record: MigrationRecord) -> None:
        """Append the migration's new state; one that is not on record (somebody else's) is put there."""
        values = rows.migration_row(record)
        with self._leading() as connection:
            known = connection.execute(select(migrations.c.body).where(migrations.c.id == record.id)).scalar()
            if known == values["body"]:
                return
            if known is None:
                connection.execute(insert(migrations).values(values))
            else:
                connection.execute(update(migrations).where(migrations.c.id == record.id).values(values))
            self._event(connection, record)
            if not record.state.is_open:
                connection.execute(delete(outcomes).where(outcomes.c.migration_id == record.id))
                connection.execute(insert(outcomes).values(rows.outcome_row(record)))

    def _event(self, connection: Connection, record: MigrationRecord) -> None:
        row = rows.migration_row(record)
        connection.execute(
            insert(migration_events).values(
                migration_id=record.id,
                at=self._clock.wall(),
                state=row["state"],
                reason=rows.stored(record.reason),
                body=row["body"],
            )
        )

    def open_migrations(self) -> tuple[MigrationRecord, ...]:
        """Migrations without a verdict, oldest first."""
        with self.reading() as connection:
            wanted = select(migrations.c.id, migrations.c.body).where(migrations.c.is_open).order_by(migrations.c.seq)
            found = connection.execute(wanted).mappings().all()
        return tuple(rows.migration_of(row) for row in found)

    def migrations(
        self, *, since: float = 0.0, vm_uuid: str | None = None, limit: int | None = None
    ) -> tuple[MigrationRecord, ...]:
        """Migrations whose intent is not older than ``since``, newest first."""
        table = migrations.c
        wanted = select(table.id, table.body).where(table.intent_at >= since)
        if vm_uuid is not None:
            wanted = wanted.where(table.vm_uuid == rows.stored(vm_uuid))
        if limit is not None:
            wanted = wanted.limit(max(0, limit))
        with self.reading() as connection:
            ordered = wanted.order_by(table.intent_at.desc(), table.seq.desc())
            found = connection.execute(ordered).mappings().all()
        return tuple(rows.migration_of(row) for row in found)

    # operators

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
        """Write an operator's command and return it numbered."""
        values = {
            "kind": kind.value,
            "at": at,
            "by": rows.stored(by),
            "subject": None if subject is None else rows.stored(subject),
            "step": step,
            "digest": None if digest is None else rows.stored(digest),
            "until": until,
            "reason": rows.stored(reason),
        }
        with self._writing() as connection:
            number = _numbered(connection, commands, values)
            row = connection.execute(select(commands).where(commands.c.id == number)).mappings().one()
        return rows.command_of(row)

    def operator_state(self, now: float) -> OperatorState:
        """What all commands so far add up to at that instant."""
        with self.reading() as connection:
            return operators.added_up(connection, now)

    def use_approval(self, command_id: int, migration_id: str) -> bool:
        """Consume an approval for one start; False if it was used for this step already, or is no approval."""
        with self._leading() as connection:
            return operators.use(connection, command_id, migration_id, self._clock.wall())

    # advice

    def add_advice(self, advice: Advice) -> int:
        """Write advice; returns its number."""
        with self._writing() as connection:
            return advice_rows.add(connection, advice)

    def score_advice(self, score: AdviceScore) -> None:
        """Write how a piece of advice turned out; the first verdict stays."""
        with self._writing() as connection:
            advice_rows.score(connection, score)

    def unscored_advice(self) -> tuple[tuple[int, Advice | None], ...]:
        """(number, advice) of all that is not judged yet, oldest first; None in place of one that cannot be read."""
        with self.reading() as connection:
            return advice_rows.unscored(connection)

    def advised_sources(self, since: float, until: float) -> tuple[tuple[str, float, float], ...]:
        """(source, proposed at, end of its window) of advice whose window reaches into that time, oldest first."""
        with self.reading() as connection:
            return advice_rows.sources(connection, since, until)

    def advice(
        self, *, since: float = 0.0, vm_uuid: str | None = None, limit: int = 20
    ) -> tuple[tuple[Advice, AdviceScore | None], ...]:
        """Advice given since then, with how it turned out, newest first."""
        with self.reading() as connection:
            return advice_rows.newest(connection, since=since, vm_uuid=vm_uuid, limit=limit)

    def add_watched_hour(self, hour: WatchedHour) -> None:
        """Write what an hour was like; the first word stays."""
        with self._writing() as connection:
            advice_rows.add_hour(connection, hour)

    def last_watched_hour(self, until: int) -> int | None:
        """The newest hour on record that is not later than ``until``."""
        with self.reading() as connection:
            return advice_rows.last_hour(connection, until)

    def advice_record(self, since: float) -> AdviceRecord:
        """What advice and hours since then add up to."""
        with self.reading() as connection:
            return advice_rows.added_up(connection, since)

    # power

    def record_power(self, record: PowerRecord) -> None:
        """Append a host's new state, durable when this returns."""
        with self._writing() as connection:
            power_rows.add(connection, record, self._clock.wall())

    def power_records(self) -> tuple[PowerRecord, ...]:
        """The newest state of every host that ever had one, by name."""
        with self.reading() as connection:
            return power_rows.newest(connection)

    # nights

    def record_night(self, night: Night) -> int:
        """Write a night as it is now, a new one (``id`` 0) with its evening; returns its number."""
        with self._leading() as connection:
            return night_rows.write(connection, night)

    def night_under_way(self) -> Night | None:
        """The night that is not over, with its evening."""
        with self.reading() as connection:
            return night_rows.under_way(connection)

    def nights(self, limit: int = 30) -> tuple[Night, ...]:
        """The last nights without their evenings, newest first."""
        with self.reading() as connection:
            return night_rows.newest(connection, limit)

    def nights_total(self) -> NightsTotal:
        """What the nights that are over add up to."""
        with self.reading() as connection:
            return night_rows.total(connection)

    def moves_between(self, since: float, until: float) -> tuple[int, float]:
        """How many migrations of ours ended in that time, and the seconds they took together."""
        with self.reading() as connection:
            return night_rows.moves(connection, since, until)

    # retention

    def prune(self, before: float) -> int:
        """Forget cycles, decisions, refusals, advice, unused plans and evenings from before then.

        Migrations, commands and nights stay. Plans that propose nothing are kept for a day only: their cycle says as much. Returns how many rows went.
        """
        idle = max(before, self._clock.wall() - DAY_SECONDS)
        used = exists().where(migrations.c.plan_id == plans.c.id)
        empty = ~exists().where(steps.c.plan_id == plans.c.id)
        with self._writing() as connection:
            gone = connection.execute(delete(plans).where(plans.c.expires_at < before, ~used)).rowcount
            gone += connection.execute(delete(plans).where(plans.c.expires_at < idle, ~used, empty)).rowcount
            gone += connection.execute(delete(cycles).where(cycles.c.started_at < before)).rowcount
            gone += advice_rows.prune(connection, before)
            gone += night_rows.prune(connection, before)
        return int(gone)


def _numbered(connection: Connection, table: Table, values: dict[str, Any]) -> int:
    """Insert a row and return the number it was given."""
    return int(connection.execute(insert(table).values(values).returning(table.c.id)).scalar_one())


def _by_cycle(connection: Connection, table: Table, span: tuple[int, int]) -> dict[int, list[RowMapping]]:
    """Rows of the cycles numbered from the first to the last of ``span``, in their order."""
    wanted = select(table).where(table.c.cycle_id.between(*span)).order_by(table.c.cycle_id, table.c.position)
    found: dict[int, list[RowMapping]] = {}
    for row in connection.execute(wanted).mappings():
        found.setdefault(row["cycle_id"], []).append(row)
    return found
