"""A real PostgreSQL for the session, an empty database for each test."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from rebalancerd.record.sql_ledger import SqlLedger
from tests.postgres_server import Postgres, why_not
from tests.unit.record.record_values import FixedClock

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    running = Postgres()
    yield running
    running.close()


@pytest.fixture
def url(server: Postgres) -> str:
    return server.create(f"ledger{next(_NUMBERS)}")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def reopen(url: str, clock: FixedClock) -> Iterator[Callable[[], SqlLedger]]:
    opened: list[SqlLedger] = []

    def open_it() -> SqlLedger:
        opened.append(SqlLedger(url, clock))
        return opened[-1]

    yield open_it
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(reopen: Callable[[], SqlLedger]) -> SqlLedger:
    return reopen()
