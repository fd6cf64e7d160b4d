"""A damaged ledger: found, refused, and what can be read of it saved to a new file."""

import json
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rebalancerd.cli.app import app
from rebalancerd.cluster.decision import CommandKind
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.file_lease import FileLease
from rebalancerd.record.salvage import salvage
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import FixedClock, finished, make_cycle, make_migration, make_plan

PAGE = 4096
CYCLES = 200


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cycles over many pages, a plan, migrations and commands; closed, so that all is in the one file."""
    path = tmp_path_factory.mktemp("template") / "ledger.sqlite"
    ledger = SqlLedger(f"sqlite:///{path}", FixedClock())
    for n in range(CYCLES):
        ledger.record_cycle(make_cycle(reason=f"cycle {n}"))
    ledger.record_plan(make_plan())
    for n in range(20):
        record = make_migration(id=f"m-{n}", vm_uuid=f"vm-{n}")
        ledger.open_intent(record)
        if n:
            ledger.update_migration(finished(record))
    ledger.add_command(CommandKind.DRAIN, at=1.0, by="op", subject="h1")
    ledger.close()
    return path


@pytest.fixture
def filled(template: Path, path: Path) -> Path:
    shutil.copyfile(template, path)
    return path


def config(path: Path) -> str:
    file = path.parent / "rebalancerd.toml"
    host = '[[hosts]]\nname = "h1"\nuri = "qemu+ssh://h1/system"\n'
    file.write_text(f'state_dir = "{path.parent}"\n{host}')
    return str(file)


def run(path: Path, *words: str):
    return CliRunner().invoke(app, ["ledger", *words, "--config", config(path)])


def pages_of(path: Path, table: str) -> list[int]:
    """Leaf pages of a table, by number."""
    with sqlite3.connect(path) as connection:
        try:
            rows = connection.execute(
                "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno", (table,)
            ).fetchall()
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no dbstat")
    connection.close()
    return [row[0] for row in rows]


def wreck(path: Path, page: int) -> None:
    with path.open("r+b") as stream:
        stream.seek((page - 1) * PAGE)
        stream.write(random.Random(page).randbytes(PAGE))


def test_a_sound_ledger_comes_through_whole(filled: Path, clock: FixedClock, tmp_path: Path) -> None:
    found = salvage(filled, tmp_path / "new.sqlite")

    assert found.left_out == {}
    assert found.damaged == ()
    assert found.saved["cycles"] == CYCLES
    old, new = SqlLedger(f"sqlite:///{filled}", clock), SqlLedger(f"sqlite:///{tmp_path / 'new.sqlite'}", clock)
    assert new.integrity_check() == ()
    assert new.cycles(limit=1000) == old.cycles(limit=1000)
    assert new.migrations() == old.migrations()
    assert new.open_migrations() == old.open_migrations()
    assert new.operator_state(2.0) == old.operator_state(2.0)
    assert new.plan("p-1") == old.plan("p-1")
    assert new.record_cycle(make_cycle()) == CYCLES + 1  # numbers go on
    old.close()
    new.close()


def test_rows_around_a_lost_page_are_saved(filled: Path, clock: FixedClock, tmp_path: Path) -> None:
    pages = pages_of(filled, "cycles")
    assert len(pages) > 6
    for page in pages[2:4]:
        wreck(filled, page)
    before = filled.read_bytes()
    with pytest.raises(LedgerUnavailableError, match="is damaged"):
        SqlLedger(f"sqlite:///{filled}", clock)

    found = salvage(filled, tmp_path / "new.sqlite")

    assert found.damaged == ("cycles",)
    lost = CYCLES - found.saved["cycles"]
    assert 0 < lost < CYCLES / 2
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'new.sqlite'}", clock)
    assert ledger.integrity_check() == ()
    assert [r.id for r in ledger.open_migrations()] == ["m-0"]
    assert len(ledger.migrations()) == 20
    assert {"cycle 0", f"cycle {CYCLES - 1}"} <= {c.reason for c in ledger.cycles(limit=1000)}
    assert filled.read_bytes() == before
    ledger.close()


def test_what_was_changed_or_refers_to_nothing_is_left_out(filled: Path, clock: FixedClock, tmp_path: Path) -> None:
    with sqlite3.connect(filled) as connection:
        connection.execute("UPDATE plans SET body = replace(body, '\"h2\"', '\"h9\"')")
        connection.execute("UPDATE migrations SET body = '{}' WHERE id = 'm-3'")
        connection.execute("UPDATE cycles SET body = 'x' WHERE id = 5")
    connection.close()

    found = salvage(filled, tmp_path / "new.sqlite")

    assert found.left_out["plans"] == 1
    assert found.left_out["steps"] >= 1  # of that plan
    assert found.left_out["migrations"] == 1
    assert found.left_out["migration_events"] == 2  # of that migration
    assert found.left_out["outcomes"] == 1
    assert found.left_out["cycles"] == 1
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'new.sqlite'}", clock)
    assert ledger.integrity_check() == ()
    ledger.close()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 400])
def test_what_holds_nothing_is_told(tmp_path: Path, content: bytes) -> None:
    damaged = tmp_path / "ledger.sqlite"
    damaged.write_bytes(content)

    with pytest.raises(LedgerUnavailableError, match="nothing in it can be saved"):
        salvage(damaged, tmp_path / "new.sqlite")

    assert not (tmp_path / "new.sqlite").exists()


def test_nothing_is_written_over(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "new.sqlite").write_text("mine")
    with pytest.raises(LedgerUnavailableError, match="is there already"):
        salvage(filled, tmp_path / "new.sqlite")
    assert (tmp_path / "new.sqlite").read_text() == "mine"


def test_any_wrecked_page_ends_in_a_sound_ledger_or_a_clear_word(
    filled: Path, clock: FixedClock, tmp_path: Path
) -> None:
    """Every fifth page of the file in turn, the schema's own included."""
    whole = filled.read_bytes()
    saved = 0
    for page in range(1, len(whole) // PAGE + 1, 5):
        filled.write_bytes(whole)
        wreck(filled, page)
        fresh = tmp_path / f"new{page}.sqlite"
        try:
            salvage(filled, fresh)
        except LedgerUnavailableError:
            assert not fresh.exists()
            continue
        ledger = SqlLedger(f"sqlite:///{fresh}", clock)
        assert ledger.integrity_check() == ()
        assert len(ledger.cycles(limit=1000)) <= CYCLES
        ledger.close()
        saved += 1
    assert saved > 3


class TestCommands:
    def test_check_tells_that_it_is_sound(self, filled: Path) -> None:
        done = run(filled, "check", "--output", "json")

        told = json.loads(done.stdout)
        assert done.exit_code == 0
        assert (told["sound"], told["wrong"], told["rows"]["cycles"]) == (True, [], CYCLES)
        assert "sound" in run(filled, "check").stdout

    def test_check_tells_what_is_wrong(self, filled: Path) -> None:
        with sqlite3.connect(filled) as connection:
            connection.execute("UPDATE plans SET digest = 'x'")
        connection.close()

        done = run(filled, "check")

        assert done.exit_code == 1
        assert "plan p-1 was changed" in done.stdout

    def test_check_of_a_wrecked_file(self, filled: Path) -> None:
        wreck(filled, pages_of(filled, "cycles")[1])
        done = run(filled, "check")
        assert done.exit_code == 1
        assert "is damaged" in done.stderr

    def test_repair_writes_beside_and_changes_nothing(self, filled: Path) -> None:
        wreck(filled, pages_of(filled, "cycles")[1])
        before = filled.read_bytes()

        done = run(filled, "repair")

        assert done.exit_code == 0
        assert "cycles: parts of the file could not be read" in done.stdout
        assert filled.read_bytes() == before
        assert filled.with_name("ledger.sqlite.salvaged").exists()

    def test_repair_in_place_keeps_the_damaged_one(self, filled: Path, clock: FixedClock) -> None:
        wreck(filled, pages_of(filled, "cycles")[1])
        before = filled.read_bytes()

        done = run(filled, "repair", "--replace", "--output", "json")

        told = json.loads(done.stdout)
        assert Path(told["kept"]).read_bytes() == before
        ledger = SqlLedger(f"sqlite:///{filled}", clock)
        assert ledger.integrity_check() == ()
        ledger.close()

    def test_repair_beside_a_running_daemon_is_refused(self, filled: Path) -> None:
        lock = FileLease(filled.parent / "lock")
        done = run(filled, "repair")
        lock.release()
        assert done.exit_code == 75
        assert "stop the daemon first" in done.stderr

    def test_export_is_a_line_a_row(self, filled: Path) -> None:
        lines = [json.loads(line) for line in run(filled, "export").stdout.splitlines()]

        assert lines[0]["kind"] == "rebalancerd ledger"
        tables = [line["table"] for line in lines[1:]]
        assert tables.count("cycles") == CYCLES
        assert tables.count("migrations") == 20
        first = next(line["row"] for line in lines[1:] if line["table"] == "migrations")
        assert first["body"]["vm_uuid"] == "vm-0"
        assert first["state"] == MigrationState.INTENT.value

    def test_export_of_some(self, filled: Path) -> None:
        lines = run(filled, "export", "--table", "commands").stdout.splitlines()
        assert [json.loads(line)["table"] for line in lines[1:]] == ["commands"]
        done = run(filled, "export", "--table", "cycle")
        assert done.exit_code == 1
        assert "no table cycle" in done.stderr

    def test_migrate_goes_down_and_the_daemon_up_again(self, filled: Path, clock: FixedClock) -> None:
        assert "has schema 0001" in run(filled, "migrate", "0001").stdout
        assert "older than" in run(filled, "check").stderr
        ledger = SqlLedger(f"sqlite:///{filled}", clock)
        assert len(ledger.cycles(limit=1000)) == CYCLES
        ledger.close()
        assert run(filled, "check").exit_code == 0
        assert "no schema '7'" in run(filled, "migrate", "7").stderr
