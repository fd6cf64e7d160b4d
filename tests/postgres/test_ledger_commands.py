"""`rebalancerd ledger` on PostgreSQL."""

import json
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from rebalancerd.cli.app import app
from rebalancerd.clock import SystemClock
from rebalancerd.record.lease import SharedLease
from rebalancerd.record.postgres import Access, make_engine
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import make_cycle, make_migration, make_plan


@pytest.fixture
def run(url: str, tmp_path: Path):
    file = tmp_path / "rebalancerd.toml"
    host = '[[hosts]]\nname = "h1"\nuri = "qemu+ssh://h1/system"\n'
    file.write_text(f'state_dir = "{tmp_path}"\n{host}[ledger]\nurl = "{url}"\n')
    return lambda *words: CliRunner().invoke(app, ["ledger", *words, "--config", str(file)])


@pytest.fixture
def filled(ledger: SqlLedger) -> SqlLedger:
    ledger.record_cycle(make_cycle())
    ledger.record_plan(make_plan())
    ledger.open_intent(make_migration())
    return ledger


def test_check_and_export(filled: SqlLedger, run) -> None:
    told = json.loads(run("check", "--output", "json").stdout)
    assert (told["sound"], told["rows"]["migrations"], told["schema"]) == (True, 1, "0005")
    lines = [json.loads(line) for line in run("export").stdout.splitlines()]
    assert [line["table"] for line in lines[1:]].count("migrations") == 1


def test_check_tells_what_is_wrong(filled: SqlLedger, run) -> None:
    with filled._writing() as connection:
        connection.exec_driver_sql("UPDATE migrations SET body = '{}'")
    done = run("check")
    assert done.exit_code == 1
    assert "migration m-1 cannot be read" in done.stdout


def test_repair_is_left_to_postgresql(filled: SqlLedger, run) -> None:
    done = run("repair")
    assert done.exit_code == 1
    assert "PostgreSQL's own means" in done.stderr


def test_the_schema_is_not_changed_under_a_leader(filled: SqlLedger, url: str, run) -> None:
    engine = make_engine(make_url(url), Access(), connections=1)
    lease = SharedLease(engine, url, SystemClock(), controller="ctl-1", seconds=60.0)
    lease.look()

    done = run("migrate", "0002")
    assert done.exit_code == 75
    assert "controller ctl-1 leads" in done.stderr

    lease.release()
    engine.dispose()
    assert "has schema 0002" in run("migrate", "0002").stdout
    assert "has schema 0005" in run("migrate", "0005").stdout
    assert json.loads(run("check", "--output", "json").stdout)["rows"]["migrations"] == 1


def test_a_server_that_is_away_is_told(url: str, tmp_path: Path) -> None:
    file = tmp_path / "rebalancerd.toml"
    host = '[[hosts]]\nname = "h1"\nuri = "qemu+ssh://h1/system"\n'
    file.write_text(f'state_dir = "{tmp_path}"\n{host}[ledger]\nurl = "postgresql://x@127.0.0.1:1/x"\n')

    done = CliRunner().invoke(app, ["ledger", "check", "--config", str(file)])

    assert done.exit_code == 1
    assert "ledger postgresql://x@127.0.0.1:1/x" in done.stderr
