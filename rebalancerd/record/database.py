"""The database under the ledger: opened durably, checked before it is touched, brought to the schema of this version.

PostgreSQL is opened by its own module. SQLite in WAL mode with synchronous=FULL: a transaction that was committed is on the disk. A file that is damaged, cut
short, not ours or of a newer version is refused and left as it is.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.evolve import HEAD, known_revisions, upgrade
from rebalancerd.record.postgres import Access, is_postgres, open_postgres, shown, unreachable

MAGIC = b"SQLite format 3\0"
BUSY_MILLISECONDS = 5000
KEPT = "the file is kept as it is: restore a copy of it, or move it away (with -wal and -shm) to begin a new one"


def open_engine(url: str, access: Access | None = None) -> Engine:
    """An engine on a ledger of the present schema, made if there is none. Raises LedgerUnavailableError.

    ``access``: how to log in to PostgreSQL; nothing for SQLite.
    """
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise LedgerUnavailableError(f"the ledger's URL is not one: {error}") from None
    with telling(url):
        if is_postgres(parsed):
            return open_postgres(parsed, access or Access())
        if parsed.get_backend_name() != "sqlite":
            raise LedgerUnavailableError(
                f"a ledger on {parsed.get_backend_name()} is not supported; use sqlite:////PATH or postgresql://…"
            )
        path = file_of(parsed)
        if path is None:
            engine = _engine(parsed)
            upgrade(engine)
            return engine
        if path.exists() or path.is_symlink():
            revision = _check_file(path)
            engine = _engine(parsed)
            if revision != HEAD:
                upgrade(engine)
        else:
            _make(parsed, path)
            engine = _engine(parsed)
        with engine.connect():
            pass  # fails here, not at the first intent
        return engine


def open_reader(url: str, access: Access | None = None) -> Engine:
    """An engine that can only read a ledger of the present schema, whoever writes it meanwhile. LedgerUnavailableError."""
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise LedgerUnavailableError(f"the ledger's URL is not one: {error}") from None
    if is_postgres(parsed):
        with telling(url):
            return open_postgres(parsed, access or Access(), reading_only=True)
    path = file_of(parsed)
    if path is None:
        raise LedgerUnavailableError(f"{url} is no file that another process could read; use sqlite:////PATH")
    with telling(url):
        revision = _check_file(path)
        if revision != HEAD:
            raise LedgerUnavailableError(
                f"ledger {path} has schema {revision!r}, older than {HEAD!r}: the daemon brings it up to date when it starts"
            )

        def connect() -> sqlite3.Connection:
            made = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            made.isolation_level = None  # as the writer: the driver begins nothing by itself
            made.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
            made.execute("PRAGMA query_only = ON")
            made.execute("PRAGMA trusted_schema = OFF")
            return made

        return create_engine(parsed, creator=connect)


def file_of(url: URL) -> Path | None:
    """Path of a SQLite ledger, None for one in memory or elsewhere."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _engine(url: URL) -> Engine:
    shared: dict[str, Any] = {"poolclass": StaticPool} if file_of(url) is None else {}
    engine = create_engine(url, connect_args={"check_same_thread": False}, **shared)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        cursor = connection.cursor()
        for pragma in (
            "foreign_keys = ON",
            f"busy_timeout = {BUSY_MILLISECONDS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "trusted_schema = OFF",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _make(url: URL, path: Path) -> None:
    """Make a ledger beside its place and move it in whole, so that an empty or half-made one is never taken for one."""
    part = path.with_name(path.name + ".new")
    for leftover in (part, Path(f"{part}-wal"), Path(f"{part}-shm"), Path(f"{part}-journal")):
        leftover.unlink(missing_ok=True)
    if not path.parent.is_dir():
        raise LedgerUnavailableError(f"ledger {path}: there is no directory {path.parent}")
    engine = _engine(url.set(database=str(part)))
    try:
        upgrade(engine)
    finally:
        engine.dispose()
    part.chmod(0o600)
    try:
        os.link(part, path)  # unlike rename, never over a ledger that somebody else has made meanwhile
    except FileExistsError as error:
        raise LedgerUnavailableError(f"ledger {path} was made by another process just now; try again") from error
    part.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def make_file(path: Path) -> Engine:
    """A new, empty ledger on a file; an engine that writes to it. Raises LedgerUnavailableError."""
    url = make_url(f"sqlite:///{path}")
    _make(url, path)
    return _engine(url)


def _check_file(path: Path) -> str:
    """Schema revision of an existing file. Raises LedgerUnavailableError for all that must not be written to."""
    with path.open("rb") as stream:
        start = stream.read(len(MAGIC))
    if not start:
        raise LedgerUnavailableError(f"ledger {path} is empty, so it was cut short; {KEPT}")
    if start != MAGIC:
        raise LedgerUnavailableError(f"ledger {path} is not a SQLite database, or its beginning is damaged; {KEPT}")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        revision = _revision(connection, path)
        if revision != HEAD and revision not in known_revisions():
            raise LedgerUnavailableError(
                f"ledger {path} has schema {revision!r}, this version of rebalancerd knows schemas up to {HEAD!r}: "
                "a newer version wrote it. Nothing was changed; install that version again"
            )
        told = connection.execute("PRAGMA quick_check(3)").fetchall()
        if told != [("ok",)]:
            raise LedgerUnavailableError(f"ledger {path} is damaged: {'; '.join(str(r[0]) for r in told)}; {KEPT}")
    return revision


def _revision(connection: sqlite3.Connection, path: Path) -> str:
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    rows = (
        connection.execute("SELECT version_num FROM alembic_version").fetchall() if "alembic_version" in names else []
    )
    if len(rows) != 1 or not {"meta", "migrations"} <= names:
        raise LedgerUnavailableError(f"{path} is a database, but not a ledger of rebalancerd; {KEPT}")
    return str(rows[0][0])


@contextmanager
def telling(url: str) -> Iterator[None]:
    """Turns every error of the database into LedgerUnavailableError with a message an operator can use."""
    try:
        yield
    except DBAPIError as error:
        raise LedgerUnavailableError(_message(url, error.orig or error)) from error
    except (SQLAlchemyError, sqlite3.Error, OSError, OverflowError) as error:
        raise LedgerUnavailableError(_message(url, error)) from error


def _message(url: str, error: BaseException) -> str:
    parsed = make_url(url)
    place = f"ledger {file_of(parsed) or shown(parsed)}"
    text = " ".join(((error.strerror or str(error)) if isinstance(error, OSError) else str(error)).split())
    if is_postgres(parsed):
        return unreachable(place, text)
    if "malformed" in text or "not a database" in text:
        return f"{place} is damaged ({text}); {KEPT}"
    if "is full" in text or "No space left" in text:
        return f"{place}: the disk is full ({text}); make room, nothing is started until then"
    if "readonly" in text or "read-only" in text.lower():
        return f"{place} cannot be written ({text}); see its permissions and its file system"
    if "locked" in text:
        return f"{place} is locked by another process for more than {BUSY_MILLISECONDS / 1000:g} s ({text})"
    return f"{place}: {text}"
