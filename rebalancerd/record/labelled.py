"""Migrations on record as labelled rows: what was known before, what was predicted, what both hosts say came of it.

A row is what a cost model learns from, so what is not certain is left out, and named: verdicts that say nothing of cost,
orders to abort that had other reasons than the guest, records that cannot be read, figures that cannot be.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Protocol

from sqlalchemy import Connection, select
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import DBAPIError

from rebalancerd.cluster.cost import MigrationCost
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.names import printable
from rebalancerd.record.codec import MIGRATIONS
from rebalancerd.record.schema import migrations

BATCH = 500
MOST = float(2**62)  # of any figure: bytes, seconds, cores
LATE_VERDICT_SECONDS = (
    5.0  # a host was silent, or autostart had to be set again, so that the verdict came after the end
)


class Readable(Protocol):
    """A ledger whose tables can be read: SqlLedger, LedgerReader."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection in a read transaction."""
        ...


class Omission(StrEnum):
    """Why a migration is no row."""

    UNREADABLE = "unreadable"
    ABSURD = "absurd"  # a figure of it cannot be
    NO_FACTS = "no_facts"  # what was known before is not on record (an earlier version wrote it)
    POSTCOPY = "postcopy"
    OTHER_VERDICT = "other_verdict"  # failed, stopped, lost …: says nothing of cost
    OTHER_ABORT = "other_abort"  # by an operator, another client, or because the transfer stood still


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A migration that is no row, and why. ``detail`` holds no character that a terminal would obey."""

    id: str
    why: Omission
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredMigration:
    """A labelled row, and what was predicted of it before it began (None: nothing was)."""

    row: LabelledMigration
    predicted: MigrationCost | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledLedger:
    """Rows and what was left out, each the oldest first."""

    rows: tuple[ScoredMigration, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def counts(self) -> tuple[tuple[Omission, int], ...]:
        """How many were left out for each reason that there was."""
        counted = Counter(item.why for item in self.left_out)
        return tuple((why, counted[why]) for why in Omission if counted[why])


def labelled_migrations(ledger: Readable, *, since: float = 0.0) -> LabelledLedger:
    """Every migration of ours, adopted ones too, that got its verdict at ``since`` (epoch seconds) or later.

    Raises LedgerUnavailableError if the ledger cannot be read at all; nothing that it holds stops the rest.
    """
    with ledger.reading() as connection:
        found = list(_read(connection, since))
    records = [item for item in found if isinstance(item, MigrationRecord)]
    link = _Link(records)
    rows: list[ScoredMigration] = []
    left_out: list[LeftOut] = []
    for item in found:
        made = _labelled(item, link) if isinstance(item, MigrationRecord) else item
        if isinstance(made, LeftOut):
            left_out.append(made)
        else:
            rows.append(made)
    return LabelledLedger(rows=tuple(rows), left_out=tuple(left_out))


# reading, one record at a time


def _read(connection: Connection, since: float) -> Iterator[MigrationRecord | LeftOut]:
    table = migrations.c
    wanted = select(table.seq).where(table.ours, ~table.is_open, table.ended_at >= since).order_by(table.seq)
    numbers = connection.execute(wanted).scalars().all()
    for first in range(0, len(numbers), BATCH):
        batch = numbers[first : first + BATCH]
        try:
            rows = _bodies(connection, batch)
        except DBAPIError as error:
            if not _is_no_text(error):
                raise
            yield from (_alone(connection, number) for number in batch)
        else:
            yield from map(_record, rows)


def _bodies(connection: Connection, numbers: Sequence[int]) -> Sequence[RowMapping]:
    table = migrations.c
    wanted = select(table.seq, table.id, table.body).where(table.seq.in_(numbers)).order_by(table.seq)
    return connection.execute(wanted).mappings().all()


def _alone(connection: Connection, number: int) -> MigrationRecord | LeftOut:
    try:
        return _record(_bodies(connection, [number])[0])
    except DBAPIError as error:
        if not _is_no_text(error):
            raise
        return LeftOut(id=f"row {number}", why=Omission.UNREADABLE, detail=printable(str(error.orig), 200))


def _is_no_text(error: DBAPIError) -> bool:
    """Whether one cell is not UTF-8, rather than the whole database out of order."""
    return "decode to UTF-8" in str(error.orig)


def _record(row: RowMapping) -> MigrationRecord | LeftOut:
    try:
        return MIGRATIONS.read(row["body"])
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        return LeftOut(id=printable(str(row["id"]), 200), why=Omission.UNREADABLE, detail=printable(str(error), 200))


# from a record to a row


def _labelled(record: MigrationRecord, link: "_Link") -> ScoredMigration | LeftOut:
    name = printable(record.id, 200)
    if record.known is None:
        return LeftOut(id=name, why=Omission.NO_FACTS)
    if record.postcopy:
        return LeftOut(id=name, why=Omission.POSTCOPY)
    if record.state is MigrationState.ABORTED:
        order = record.abort
        if order is None or not order.cause.is_non_convergence:
            told = "by another client" if order is None else order.cause.value
            return LeftOut(id=name, why=Omission.OTHER_ABORT, detail=told)
    elif record.state is not MigrationState.SUCCEEDED:
        return LeftOut(id=name, why=Omission.OTHER_VERDICT, detail=record.state.value)
    row = _row(record, record.known, link)
    absurd = _absurd(row, record.known)
    if absurd:
        return LeftOut(id=name, why=Omission.ABSURD, detail=absurd)
    return ScoredMigration(row=row, predicted=record.predicted)


def _row(record: MigrationRecord, known: MigrationFacts, link: "_Link") -> LabelledMigration:
    """The row; one that was aborted is censored at the age at which the order was given."""
    at = record.intent_at if record.started_at is None else record.started_at
    concurrent = link.concurrent(record)
    if record.state is MigrationState.ABORTED and record.abort is not None:
        cut = record.abort.elapsed_seconds
        return LabelledMigration(
            id=record.id,
            at=at,
            facts=known,
            succeeded=False,
            deadline_seconds=cut,
            seconds=cut,
            concurrent=concurrent,
        )
    done, seconds = record.completion, _seconds(record)
    deadline = record.deadline_seconds
    return LabelledMigration(
        id=record.id,
        at=at,
        facts=known,
        succeeded=True,
        deadline_seconds=deadline if deadline is not None else seconds if seconds is not None else 0.0,
        seconds=seconds,
        downtime_seconds=done.downtime_seconds if done is not None else None,
        bytes=done.transferred_bytes if done is not None else None,
        concurrent=concurrent,
    )


def _seconds(record: MigrationRecord) -> float | None:
    """Hand-over to the end. libvirt's own figure where the verdict came late; None where nobody saw the beginning."""
    told = record.completion.total_seconds if record.completion is not None else None
    if record.started_at is None or record.adopted:
        return told if record.started_at is not None else None
    watched = record.seconds
    if told is not None and watched is not None and watched > told + LATE_VERDICT_SECONDS:
        return told
    return watched


def _absurd(row: LabelledMigration, known: MigrationFacts) -> str:
    """Which figure cannot be, in words; empty if all can. Stricter checks are those of who learns from them."""
    wrong = _no_figure(row, "")
    if wrong:
        return wrong
    if known.memory_bytes <= 0 or known.vcpus <= 0:
        return f"a VM with {known.memory_bytes} bytes and {known.vcpus} vCPUs"
    if row.deadline_seconds == 0 or row.seconds == 0:
        return "it had no time at all, or nothing tells how much"
    if row.seconds is not None and row.downtime_seconds is not None and row.downtime_seconds > row.seconds:
        return f"a downtime of {row.downtime_seconds:g} s in {row.seconds:g} s"
    return ""


def _no_figure(value: object, name: str) -> str:
    """The first number in a tree of words that is negative, endless or none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        possible = 0 <= value <= MOST if isinstance(value, int) else math.isfinite(value) and 0 <= value <= MOST
        return "" if possible else f"{name} is {'negative' if value < 0 else 'out of all bounds'}"
    if is_dataclass(value):
        inner: Iterable[tuple[str, object]] = ((f.name, getattr(value, f.name)) for f in fields(value))
    elif isinstance(value, tuple):
        inner = ((name, item) for item in value)
    else:
        return ""
    return next((wrong for label, item in inner if (wrong := _no_figure(item, label))), "")


class _Link:
    """How many migrations on record shared a host with one while it ran, itself among them."""

    def __init__(self, records: Iterable[MigrationRecord]) -> None:
        spans: dict[frozenset[str], list[tuple[float, float]]] = {}
        for record in records:
            began, ended = record.started_at, record.ended_at
            if began is None or ended is None or not 0 <= began <= ended <= MOST:
                continue
            for key in set(_keys(record)):
                spans.setdefault(key, []).append((began, ended))
        self._begins = {key: sorted(began for began, _ in found) for key, found in spans.items()}
        self._ends = {key: sorted(ended for _, ended in found) for key, found in spans.items()}

    def concurrent(self, record: MigrationRecord) -> int:
        """At least 1."""
        if record.started_at is None or record.ended_at is None:
            return 1
        source, destination, both = (self._during(key, record.started_at, record.ended_at) for key in _keys(record))
        return max(1, source + destination - both)

    def _during(self, key: frozenset[str], began: float, ended: float) -> int:
        """Those of that key that began before the end and did not end before the beginning."""
        begins, ends = self._begins.get(key, []), self._ends.get(key, [])
        return bisect_left(begins, ended) - bisect_right(ends, began)


def _keys(record: MigrationRecord) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    source, destination = record.source, record.destination
    return frozenset({source}), frozenset({destination}), frozenset({source, destination})
