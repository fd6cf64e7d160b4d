"""Labelled rows out of the ledger: what counts, what is left out, and that nothing on record stops the rest."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.cluster.migration import AbortCause, AbortOrder, Completion, MigrationRecord, MigrationState
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.codec import MIGRATIONS
from rebalancerd.record.labelled import LabelledLedger, Omission, ScoredMigration, labelled_migrations
from rebalancerd.record.reader import LedgerReader
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import KNOWN, NOW, cost, finished, make_migration

S = MigrationState
ROOT = Path(__file__).parents[3]
INFINITE, NAN = float("inf"), float("nan")


def record(number: int = 1, state: MigrationState = S.SUCCEEDED, **changes: object) -> MigrationRecord:
    """A migration that ended, of a VM of its own, ``number`` minutes after the first."""
    at = NOW + 60.0 * number
    base = finished(
        make_migration(f"m-{number}", vm_uuid=f"vm-{number}", intent_at=at, known=KNOWN, deadline_seconds=60.0), state
    )
    return replace(replace(base, started_at=at + 1, ended_at=at + 13), **changes)


def aborted(number: int = 1, cause: AbortCause = AbortCause.DEADLINE, **changes: object) -> MigrationRecord:
    order = AbortOrder(cause=cause, elapsed_seconds=60.5)
    return record(number, S.ABORTED, abort=order, completion=None, **changes)


def read(ledger: SqlLedger, *records: MigrationRecord, since: float = 0.0) -> LabelledLedger:
    for each in records:
        ledger.update_migration(each)
    return labelled_migrations(ledger, since=since)


def only(found: LabelledLedger) -> LabelledMigration:
    (scored,) = found.rows
    assert found.left_out == ()
    return scored.row


def test_a_success_is_a_row_with_its_prediction_beside_it(ledger: SqlLedger) -> None:
    found = read(ledger, record())

    row = LabelledMigration(
        id="m-1",
        at=NOW + 61,
        facts=KNOWN,
        succeeded=True,
        deadline_seconds=60.0,
        seconds=12.0,
        downtime_seconds=0.15,
        bytes=2 * 10**9,
    )
    assert found == LabelledLedger(rows=(ScoredMigration(row=row, predicted=cost()),), left_out=())


@pytest.mark.parametrize("cause", [AbortCause.DEADLINE, AbortCause.STALL])
def test_one_that_did_not_converge_is_censored_at_its_age(ledger: SqlLedger, cause: AbortCause) -> None:
    """Not at the deadline that was intended, nor at the verdict, which waited for the abort to have effect."""
    row = only(read(ledger, aborted(cause=cause, ended_at=NOW + 300)))

    assert not row.succeeded
    assert (row.deadline_seconds, row.seconds) == (60.5, 60.5)
    assert (row.downtime_seconds, row.bytes) == (None, None)


@pytest.mark.parametrize(
    ("migration", "why", "detail"),
    [
        (aborted(cause=AbortCause.OPERATOR), Omission.OTHER_ABORT, "operator"),
        (aborted(cause=AbortCause.STANDSTILL), Omission.OTHER_ABORT, "standstill"),
        (record(state=S.ABORTED, reason="deadline passed after 1 s"), Omission.OTHER_ABORT, "by another client"),
        (record(postcopy=True), Omission.POSTCOPY, ""),
        (record(known=None), Omission.NO_FACTS, ""),
        *(
            (record(state=state), Omission.OTHER_VERDICT, state.value)
            for state in S
            if not state.is_open and state not in (S.SUCCEEDED, S.ABORTED)
        ),
    ],
)
def test_what_says_nothing_of_cost_is_left_out_and_named(
    ledger: SqlLedger, migration: MigrationRecord, why: Omission, detail: str
) -> None:
    found = read(ledger, migration, record(2))

    assert [scored.row.id for scored in found.rows] == ["m-2"]
    assert [(item.id, item.why, item.detail) for item in found.left_out] == [("m-1", why, detail)]
    assert found.counts == ((why, 1),)


def test_what_runs_and_what_is_not_ours_is_not_even_left_out(ledger: SqlLedger) -> None:
    running = record(1, S.RUNNING, ended_at=None, completion=None)
    foreign = record(2, ours=False)

    assert read(ledger, running, foreign) == LabelledLedger(rows=(), left_out=())


def test_an_adopted_one_counts_with_libvirts_own_duration(ledger: SqlLedger) -> None:
    """The verdict says when the daemon came back."""
    row = only(read(ledger, record(adopted=True, ended_at=NOW + 4000)))

    assert row.seconds == 12.0


@pytest.mark.parametrize(
    "changes",
    [
        {"adopted": True, "started_at": None},
        {"adopted": True, "completion": Completion(downtime_seconds=0.15, transferred_bytes=2 * 10**9)},
    ],
)
def test_an_adopted_one_that_nobody_saw_beginning_keeps_no_duration(
    ledger: SqlLedger, changes: dict[str, object]
) -> None:
    row = only(read(ledger, record(**changes)))

    assert row.seconds is None
    assert (row.downtime_seconds, row.bytes, row.deadline_seconds) == (0.15, 2 * 10**9, 60.0)


def test_a_verdict_that_came_late_does_not_lengthen_it(ledger: SqlLedger) -> None:
    """A host was silent for six minutes."""
    assert only(read(ledger, record(ended_at=NOW + 61 + 360))).seconds == 12.0


def test_without_libvirts_figures_the_watch_tells_the_duration(ledger: SqlLedger) -> None:
    row = only(read(ledger, record(completion=None)))

    assert (row.seconds, row.downtime_seconds, row.bytes) == (12.0, None, None)


def test_a_prediction_that_is_missing_is_none(ledger: SqlLedger) -> None:
    assert read(ledger, record(predicted=None)).rows[0].predicted is None


def test_rows_come_oldest_first_and_since_a_verdict(ledger: SqlLedger) -> None:
    records = [record(n) for n in (1, 2, 3)]

    assert [s.row.id for s in read(ledger, *records).rows] == ["m-1", "m-2", "m-3"]
    assert [s.row.id for s in read(ledger, since=NOW + 60 * 2 + 13).rows] == ["m-2", "m-3"]
    assert read(ledger, since=NOW + 1e6).rows == ()


def test_migrations_at_once_are_counted_where_they_share_a_host(ledger: SqlLedger) -> None:
    together = {"started_at": NOW + 100, "ended_at": NOW + 112}
    found = read(
        ledger,
        record(1, source="h1", destination="h2", **together),
        record(2, source="h1", destination="h3", **together),
        record(3, source="h4", destination="h5", **together),
        record(4, source="h1", destination="h2", started_at=NOW + 111, ended_at=NOW + 123),
        record(5, source="h1", destination="h2", started_at=NOW + 123, ended_at=NOW + 130),
    )

    assert [s.row.concurrent for s in found.rows] == [3, 3, 1, 3, 1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"known": replace(KNOWN, memory_bytes=0)}, "a VM with 0 bytes"),
        ({"known": replace(KNOWN, memory_bytes=-1)}, "memory_bytes is negative"),
        ({"known": replace(KNOWN, memory_bytes=10**4000)}, "memory_bytes is out of all bounds"),
        ({"known": replace(KNOWN, link_bytes_per_second=INFINITE)}, "link_bytes_per_second is out of all bounds"),
        ({"known": replace(KNOWN, source_cpu_cores=NAN)}, "source_cpu_cores is out of all bounds"),
        ({"known": replace(KNOWN, dirty=replace(KNOWN.dirty, age_seconds=-1.0))}, "age_seconds is negative"),
        ({"completion": Completion(downtime_seconds=-0.1)}, "downtime_seconds is negative"),
        ({"completion": Completion(downtime_seconds=99.0)}, "a downtime of 99 s in 12 s"),
        ({"completion": Completion(transferred_bytes=-5)}, "bytes is negative"),
        ({"ended_at": NOW + 61}, "it had no time at all"),
        ({"started_at": NOW + 74}, "seconds is negative"),
        ({"started_at": NAN}, "at is out of all bounds"),
        ({"deadline_seconds": 0.0}, "it had no time at all"),
        ({"deadline_seconds": None, "started_at": None}, "it had no time at all"),
    ],
)
def test_an_absurd_figure_leaves_one_migration_out(ledger: SqlLedger, changes: dict[str, object], told: str) -> None:
    found = read(ledger, record(**changes), record(2))

    assert [s.row.id for s in found.rows] == ["m-2"]
    (out,) = found.left_out
    assert (out.id, out.why) == ("m-1", Omission.ABSURD)
    assert out.detail.startswith(told)


HOSTILE = [
    "",
    "{",
    "null",
    "[" * 100_000,
    '{"id": "\\u0000\\u001b[2J"}',
    MIGRATIONS.write(record()).replace('"memory_bytes":1073741824', '"memory_bytes":"much"'),
    MIGRATIONS.write(record()).replace('"started_at":', '"started_at":"NaN","surprise":'),
    MIGRATIONS.write(record()).replace('"started_at":1800000061.0', '"started_at":"NaN"').replace("0.5", "1" * 5000),
    MIGRATIONS.write(record()).replace('"period_seconds":8.0', '"period_seconds":0.5'),
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_a_record_that_cannot_be_read_does_not_stop_the_rest(ledger: SqlLedger, path: Path, body: str) -> None:
    ledger.update_migration(record(1))
    damage(path, "body = ?", body)

    found = read(ledger, record(2))

    assert [s.row.id for s in found.rows] == ["m-2"]
    (out,) = found.left_out
    assert out.id == "m-1"
    assert out.why in (Omission.UNREADABLE, Omission.ABSURD)
    assert out.detail.isprintable()
    assert len(out.detail) < 2000


@pytest.mark.parametrize("column", ["body", "id"])
def test_text_that_is_no_text_does_not_stop_the_rest(ledger: SqlLedger, path: Path, column: str) -> None:
    ledger.update_migration(record(1))
    damage(path, f"{column} = CAST(x'7bff00fe' AS TEXT)")

    found = read(ledger, record(2))

    assert [s.row.id for s in found.rows] == ["m-2"]
    assert [(out.id, out.why) for out in found.left_out] == [("row 1", Omission.UNREADABLE)]


def test_a_hostile_name_is_escaped_where_it_is_left_out(ledger: SqlLedger) -> None:
    found = read(ledger, record(id="m\x1b[2J\n", state=S.FAILED))

    assert found.left_out[0].id.isprintable()


def damage(path: Path, change: str, *values: object) -> None:
    """Change the first migration behind the ledger's back."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(f"UPDATE migrations SET {change} WHERE seq = 1", values)
    connection.close()


def test_a_row_that_an_earlier_version_wrote_is_read_and_has_no_facts(ledger: SqlLedger, path: Path) -> None:
    text = (Path(__file__).parent / "data" / "migration-0.1.json").read_text()
    old = MIGRATIONS.read(text)
    assert (old.known, old.deadline_seconds, old.abort, old.postcopy) == (None, None, None, False)

    assert read(ledger, old).counts == ((Omission.NO_FACTS, 1),)


class TestReader:
    def test_it_reads_beside_a_daemon_that_writes(self, ledger: SqlLedger, path: Path) -> None:
        ledger.update_migration(record(1))
        with LedgerReader(f"sqlite:///{path}") as reader:
            assert [s.row.id for s in labelled_migrations(reader).rows] == ["m-1"]
            ledger.update_migration(record(2))
            assert [s.row.id for s in labelled_migrations(reader).rows] == ["m-1", "m-2"]

    def test_another_process_reads_what_the_daemon_holds_open(self, ledger: SqlLedger, path: Path) -> None:
        ledger.update_migration(record(1))
        code = (
            "import sys, json\n"
            "from rebalancerd.record.labelled import labelled_migrations\n"
            "from rebalancerd.record.reader import LedgerReader\n"
            "with LedgerReader(sys.argv[1]) as ledger:\n"
            "    print(json.dumps([s.row.id for s in labelled_migrations(ledger).rows]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, f"sqlite:///{path}"],
            cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ, timeout=120,
        )  # fmt: skip
        assert json.loads(done.stdout) == ["m-1"]

    def test_it_cannot_write(self, ledger: SqlLedger, path: Path) -> None:
        with (
            LedgerReader(f"sqlite:///{path}") as reader,
            pytest.raises(LedgerUnavailableError, match="read"),
            reader.reading() as connection,
        ):
            connection.exec_driver_sql("DELETE FROM migrations")

    def test_after_the_daemon_has_ended_it_leaves_the_file_as_it_is(
        self, reopen: Callable[[], SqlLedger], path: Path
    ) -> None:
        ledger = reopen()
        ledger.update_migration(record(1))
        ledger.close()
        before = path.read_bytes()

        with LedgerReader(f"sqlite:///{path}") as reader:
            assert len(labelled_migrations(reader).rows) == 1
        assert path.read_bytes() == before

    @pytest.mark.parametrize("content", [None, b"", b"not a database", b"SQLite format 3\0" + b"\xff" * 5000])
    def test_what_is_no_ledger_is_told_and_not_made(self, path: Path, content: bytes | None) -> None:
        if content is not None:
            path.write_bytes(content)

        with pytest.raises(LedgerUnavailableError, match=str(path)):
            LedgerReader(f"sqlite:///{path}")

        assert (path.read_bytes() if path.exists() else None) == content

    @pytest.mark.parametrize("url", ["sqlite://", "postgresql://h/db", "no url"])
    def test_only_files_can_be_read_by_another_process(self, url: str) -> None:
        with pytest.raises(LedgerUnavailableError):
            LedgerReader(url)

    def test_a_ledger_of_an_older_schema_is_told_and_not_upgraded(
        self, ledger: SqlLedger, path: Path, monkeypatch
    ) -> None:
        monkeypatch.setattr("rebalancerd.record.database.HEAD", "9999")

        with pytest.raises(LedgerUnavailableError, match="the daemon brings it up to date"):
            LedgerReader(f"sqlite:///{path}")
