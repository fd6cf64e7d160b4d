"""What the ledger's tests say of SQLite holds on PostgreSQL: the same tests, on fixtures of this directory."""

import inspect

import pytest

from rebalancerd.record.schema import metadata
from tests.postgres_server import Postgres
from tests.unit.record import (
    test_advice_ledger,
    test_explain,
    test_labelled,
    test_night_ledger,
    test_operator_state,
    test_sql_ledger,
)
from tests.unit.record.test_explain import moved  # noqa: F401 - a fixture of those tests

_ALL = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)


@pytest.fixture(scope="module")
def shared(server: Postgres) -> str:
    return server.create("same_ledger")


@pytest.fixture
def url(shared: str, server: Postgres) -> str:
    """One database for all: emptied, which is faster than a new one."""
    if server.sql("SELECT to_regclass('meta')", "same_ledger"):
        server.sql(f"TRUNCATE {_ALL} RESTART IDENTITY", "same_ledger")
    return shared


HERE = {"ledger", "reopen", "clock", "moved"}
SQLITE_ONLY: set[str] = set()

for _module in (
    test_sql_ledger,
    test_operator_state,
    test_advice_ledger,
    test_explain,
    test_labelled,
    test_night_ledger,
):
    for _name, _test in vars(_module).items():
        if not _name.startswith("test_") or _name in SQLITE_ONLY or not inspect.isfunction(_test):
            continue
        if set(inspect.signature(_test).parameters) <= HERE:
            assert _name not in globals(), _name
            globals()[_name] = _test


def test_there_are_many() -> None:
    assert len([name for name in globals() if name.startswith("test_")]) > 30
