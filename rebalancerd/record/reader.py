"""LedgerReader: a ledger opened for reading only, by a process that is not the daemon and must not get in its way."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Connection

from rebalancerd.record.database import open_reader, telling


class LedgerReader:
    """Reads a ledger that a daemon may be writing. ``url``: ``sqlite:////PATH``. A context manager."""

    def __init__(self, url: str) -> None:
        """Open it. Raises LedgerUnavailableError for what is missing, damaged, or of another version."""
        self.url = url
        self._engine = open_reader(url)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a read transaction: one consistent picture. Raises LedgerUnavailableError."""
        with telling(self.url), self._engine.begin() as connection:
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
