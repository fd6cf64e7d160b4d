"""A ledger that cannot be trusted or written is refused in words, and its file left as it is."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event

from rebalancerd.cluster.decision import CommandKind
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record import database, evolve
from rebalancerd.record.schema import metadata
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import NOW, FixedClock, make_cycle, make_migration, make_plan

ROOT = Path(__file__).parents[3]


def filled(reopen: Callable[[], SqlLedger], path: Path) -> bytes:
    """A ledger with something in it, closed; its bytes."""
    ledger = reopen()
    ledger.record_plan(make_plan())
    for _ in range(40):
        ledger.record_cycle(make_cycle())
    ledger.open_intent(make_migration())
    ledger.close()
    return path.read_bytes()


def refused(path: Path, clock: FixedClock) -> str:
    with pytest.raises(LedgerUnavailableError) as found:
        SqlLedger(f"sqlite:///{path}", clock)
    assert str(path) in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.5, 0.9, 0.99])
def test_a_truncated_ledger_is_refused_and_kept(reopen, path: Path, clock: FixedClock, keep: float) -> None:
    whole = filled(reopen, path)
    cut = whole[: int(len(whole) * keep)]
    path.write_bytes(cut)

    message = refused(path, clock)

    assert "damaged" in message
    assert "kept as it is" in message
    assert path.read_bytes() == cut


def test_an_emptied_ledger_is_not_taken_for_a_new_one(reopen, path: Path, clock: FixedClock) -> None:
    filled(reopen, path)
    path.write_bytes(b"")

    assert "cut short" in refused(path, clock)
    assert path.read_bytes() == b""


def test_an_overwritten_page_is_found_at_opening(reopen, path: Path, clock: FixedClock) -> None:
    whole = bytearray(filled(reopen, path))
    whole[4096 * 3 : 4096 * 12] = os.urandom(4096 * 9)
    path.write_bytes(whole)

    assert "damaged" in refused(path, clock)
    assert path.read_bytes() == bytes(whole)


@pytest.mark.parametrize("content", [b"not a database at all, sorry", b"SQLite format 3\0" + b"\xff" * 5000])
def test_something_else_in_its_place_is_refused(path: Path, clock: FixedClock, content: bytes) -> None:
    path.write_bytes(content)

    refused(path, clock)

    assert path.read_bytes() == content


def test_a_foreign_database_is_refused_and_kept(path: Path, clock: FixedClock) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    before = path.read_bytes()

    assert "not a ledger of rebalancerd" in refused(path, clock)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused_naming_both(reopen, path: Path, clock: FixedClock) -> None:
    filled(reopen, path)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    other.close()
    before = path.read_bytes()

    message = refused(path, clock)

    assert "'9999'" in message
    assert repr(database.HEAD) in message
    assert path.read_bytes() == before


def test_no_directory_is_told(tmp_path: Path, clock: FixedClock) -> None:
    assert "there is no directory" in refused(tmp_path / "missing" / "ledger.sqlite", clock)


@pytest.mark.parametrize("url", ["nonsense", "mysql://h/x", "postgresql+psycopg://h/x", "sqlite:////proc/1/nope/x"])
def test_other_urls_are_told(url: str, clock: FixedClock) -> None:
    with pytest.raises(LedgerUnavailableError):
        SqlLedger(url, clock)


def test_a_half_made_ledger_of_an_earlier_start_is_made_anew(reopen, path: Path) -> None:
    path.with_name("ledger.sqlite.new").write_bytes(b"SQLite format 3\0 half")

    reopen().open_intent(make_migration())

    assert not path.with_name("ledger.sqlite.new").exists()


def test_a_full_disk_refuses_the_intent_and_works_again_after(ledger: SqlLedger) -> None:
    """SQLite's own error for a full disk, brought about by its page limit."""
    with ledger.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    limit = [pages]

    @event.listens_for(ledger._engine, "begin")
    def shrink(connection: object) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {limit[0]}")

    def fill() -> None:
        for n in range(500):
            ledger.open_intent(make_migration(f"m-{n}", vm_uuid=str(n), vm_name="x" * 500))

    with pytest.raises(LedgerUnavailableError, match="the disk is full"):
        fill()
    before = len(ledger.open_migrations())
    limit[0] = 10**6
    ledger.open_intent(make_migration("after"))

    assert len(ledger.open_migrations()) == before + 1
    assert ledger.integrity_check() == ()


def test_a_read_only_ledger_refuses_every_write(ledger: SqlLedger) -> None:
    @event.listens_for(ledger._engine, "begin")
    def query_only(connection: object) -> None:
        connection.exec_driver_sql("PRAGMA query_only = ON")

    for write in (
        lambda: ledger.open_intent(make_migration()),
        lambda: ledger.update_migration(make_migration()),
        lambda: ledger.record_cycle(make_cycle()),
        lambda: ledger.record_plan(make_plan()),
        lambda: ledger.add_command(CommandKind.PAUSE, at=NOW, by="me"),
        lambda: ledger.prune(NOW),
    ):
        with pytest.raises(LedgerUnavailableError, match="cannot be written"):
            write()
    assert ledger.open_migrations() == ()


def test_a_locked_ledger_is_told(ledger: SqlLedger, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    @event.listens_for(ledger._engine, "checkout")
    def impatient(connection: object, *_: object) -> None:
        connection.execute("PRAGMA busy_timeout = 10")

    with pytest.raises(LedgerUnavailableError, match="locked by another process"):
        ledger.open_intent(make_migration())
    other.execute("ROLLBACK")
    other.close()
    ledger.open_intent(make_migration())


@pytest.mark.parametrize("replace", [False, True])
def test_a_ledger_removed_under_a_running_daemon_takes_no_intent(ledger: SqlLedger, path: Path, replace: bool) -> None:
    """Its writes would be lost at the next start."""
    path.rename(path.with_name("gone"))
    if replace:
        path.write_bytes(path.with_name("gone").read_bytes())

    with pytest.raises(LedgerUnavailableError, match="removed or replaced"):
        ledger.open_intent(make_migration())


WRITER = """
import os, signal, sys
sys.path.insert(0, {root!r})
from dataclasses import replace
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import FixedClock, make_migration
ledger = SqlLedger({url!r}, FixedClock())
for n in range({count}):
    ledger.open_intent(make_migration(f"m-{{n}}", vm_uuid=str(n)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_intent_survives_sigkill_right_after_it_was_written(path: Path, reopen) -> None:
    """What ``open_intent`` returned for is there when the daemon comes back."""
    code = WRITER.format(root=str(ROOT), url=f"sqlite:///{path}", count=7)
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, cwd=ROOT)

    assert ended.returncode == -signal.SIGKILL, ended.stderr
    again = reopen()
    assert [r.id for r in again.open_migrations()] == [f"m-{n}" for n in range(7)]
    assert again.integrity_check() == ()


TALKER = """
import sys
sys.path.insert(0, {root!r})
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import FixedClock, finished, make_migration
ledger = SqlLedger({url!r}, FixedClock())
n = 0
while True:
    ledger.open_intent(make_migration(f"m-{{n}}", vm_uuid=str(n)))
    print(f"intent {{n}}", flush=True)
    if n % 2:
        ledger.update_migration(finished(make_migration(f"m-{{n}}", vm_uuid=str(n))))
        print(f"verdict {{n}}", flush=True)
    n += 1
"""


def test_a_writer_killed_at_any_instant_loses_nothing_it_was_told_is_written(path: Path, reopen) -> None:
    code = TALKER.format(root=str(ROOT), url=f"sqlite:///{path}")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        for _ in range(9):
            writer.stdout.readline()
        writer.kill()
        rest = writer.stdout.read()
    told = 6 + sum(line.startswith("intent") for line in rest.splitlines())  # of nine lines six tell of an intent

    again = reopen()
    found = {r.id: r.state.is_open for r in again.migrations()}
    assert set(found) >= {f"m-{n}" for n in range(told)}
    assert len(found) <= told + 1
    assert not any(found[f"m-{n}"] for n in (1, 3)), "verdicts told are kept too"
    assert again.integrity_check() == ()


def test_durability_settings_hold_on_every_connection(ledger: SqlLedger) -> None:
    ledger.open_intent(make_migration())
    with ledger.reading() as one, ledger.reading() as two:
        for connection in (one, two):
            told = [
                connection.exec_driver_sql(f"PRAGMA {p}").scalar()
                for p in ("journal_mode", "synchronous", "foreign_keys")
            ]
            assert told == ["wal", 2, 1]


def test_versions_build_the_declared_tables() -> None:
    """The migrations of the schema and its declaration do not drift apart, and HEAD is the newest version."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    engine = database._engine(database.make_url("sqlite://"))
    database.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == database.HEAD
    engine.dispose()
    assert ScriptDirectory.from_config(evolve.alembic_config()).get_current_head() == database.HEAD


def test_downgrade_takes_everything_back() -> None:
    from alembic import command

    engine = database._engine(database.make_url("sqlite://"))
    database.upgrade(engine)
    config = evolve.alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        left = {r[0] for r in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")}
    engine.dispose()
    assert left <= {"alembic_version", "sqlite_sequence"}


def test_an_interrupted_upgrade_leaves_nothing(path: Path) -> None:
    """The schema is built in one transaction."""
    engine = create_engine(f"sqlite:///{path}")
    engine.dispose()
    engine = database._engine(database.make_url(f"sqlite:///{path}"))

    @event.listens_for(engine, "before_cursor_execute")
    def fail(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if "CREATE TABLE steps" in statement:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.upgrade(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar() == 0
    engine.dispose()
