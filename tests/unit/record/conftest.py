"""A ledger on a file, and a clock that stands still."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import FixedClock


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def reopen(path: Path, clock: FixedClock) -> Iterator[Callable[[], SqlLedger]]:
    """Opens the ledger anew; all are closed at the end."""
    opened: list[SqlLedger] = []

    def open_it() -> SqlLedger:
        opened.append(SqlLedger(f"sqlite:///{path}", clock))
        return opened[-1]

    yield open_it
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(reopen: Callable[[], SqlLedger]) -> SqlLedger:
    return reopen()
