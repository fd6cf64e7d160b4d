"""LedgerReader: a ledger opened for reading only, by a process that is not the daemon and must not get in its way."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Connection

from rebalancerd.record.database import open_reader, telling
from rebalancerd.record.postgres import Access


class LedgerReader:
    """Reads a ledger that a daemon may be writing. ``url``: as SqlLedger takes it. A context manager."""

    def __init__(self, url: str, access: Access | None = None) -> None:
        """Open it. Raises LedgerUnavailableError for what is missing, damaged, or of another version."""
        self.url = url
        self._engine = open_reader(url, access)
        if self._engine.dialect.name == "postgresql":
            self._engine = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a read transaction: one consistent picture. Raises LedgerUnavailableError."""
        with telling(self.url), self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
