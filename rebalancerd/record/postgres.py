"""PostgreSQL under the ledger: logged in without a password in any URL, no call without an end, commits durable.

Every session gives up by itself what it holds: a controller that is frozen in the middle of a transaction would
otherwise keep the lease's row locked, and no other could take over.
"""

import os
import stat
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL

from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.evolve import HEAD, known_revisions, revision_of, upgrade

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 10.0
# the server ends a statement after STATEMENT_SECONDS; one that hangs itself does not, and a UNIX socket has no time-out
ANSWER_SECONDS = 15.0
EXTRA = "a ledger on PostgreSQL needs the extra: pip install 'rebalancerd[postgres]'"
# what a URL may say beside host, port, user and database; a password is not among it
ALLOWED_QUERY = frozenset({"host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "gssencmode"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a controller logs in, and how long its transactions may stand still.

    ``password_file``: an absolute path, or the bare name of a systemd credential; read anew for every connection, so
    that a changed password needs no restart. ``idle_seconds``: PostgreSQL ends a transaction that does nothing for that
    long and gives its locks back; ``lock_seconds``: longest wait for a lock.
    """

    password_file: str | None = None
    idle_seconds: float = 10.0
    lock_seconds: float = 5.0
    application: str = "rebalancerd"

    def password(self) -> str | None:
        """The password; None where none is configured. Raises LedgerUnavailableError, which never shows it."""
        return None if self.password_file is None else read_password(self.password_file)


def read_password(name: str) -> str:
    """First line of a password file or systemd credential. Raises LedgerUnavailableError with the place and why."""
    path = Path(name)
    if not path.is_absolute():
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            raise LedgerUnavailableError(
                f"ledger.password_file {name!r} names a systemd credential, but the service has none: "
                "see LoadCredential= in its unit, or give an absolute path"
            )
        path = Path(directory) / name
    try:
        if path.stat().st_mode & stat.S_IRWXO:
            raise LedgerUnavailableError(f"password file {path} is open to every user: chmod o= {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise LedgerUnavailableError(f"password file {path} cannot be read: {why}") from None
    if not lines or not lines[0]:
        raise LedgerUnavailableError(f"password file {path} has an empty first line")
    return lines[0]


def is_postgres(url: URL) -> bool:
    """Whether the ledger of that URL is on PostgreSQL."""
    return url.get_backend_name() == "postgresql"


def shown(url: URL) -> str:
    """The URL as it may be told: without a password."""
    return url.render_as_string(hide_password=True)


def wrong_url(url: URL) -> str | None:
    """What is wrong with the URL of a PostgreSQL ledger, None if nothing is."""
    if url.password is not None or "password" in url.query or "passfile" in url.query:
        return "a URL in the configuration holds no password; see ledger.password_file"
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        return f"{url.drivername} is not supported; write postgresql://USER@HOST/DATABASE"
    if not url.database:
        return "names no database; write postgresql://USER@HOST/DATABASE"
    unknown = sorted(set(url.query) - ALLOWED_QUERY)
    if unknown:
        return f"does not know {', '.join(unknown)}; allowed are {', '.join(sorted(ALLOWED_QUERY))}"
    return None


def open_postgres(url: URL, access: Access, *, reading_only: bool = False) -> Engine:
    """An engine on a ledger of the present schema. Raises LedgerUnavailableError for all that must not be written to."""
    wrong = wrong_url(url)
    if wrong is not None:
        raise LedgerUnavailableError(f"ledger {shown(url)}: {wrong}")
    engine = make_engine(url, access)
    try:
        _check_server(engine, url)
        with engine.connect() as connection:
            revision = revision_of(connection)
        if revision is not None and revision not in known_revisions():
            raise LedgerUnavailableError(
                f"ledger {shown(url)} has schema {revision!r}, this version of rebalancerd knows schemas up to {HEAD!r}: "
                "a newer version wrote it. Nothing was changed; install that version again"
            )
        if revision != HEAD:
            if reading_only:
                raise LedgerUnavailableError(
                    f"ledger {shown(url)} has schema {revision!r}, older than {HEAD!r}: the daemon brings it up to date"
                )
            upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def make_engine(url: URL, access: Access, *, connections: int = 8) -> Engine:
    """An engine whose every connection has an end to each wait. Connects to nothing yet."""
    try:
        connect = _connection_class().connect
    except ImportError as error:
        raise LedgerUnavailableError(f"{EXTRA} ({error})") from None
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=STATEMENT_SECONDS,
        hide_parameters=True,
        connect_args=_connect_args(access),
    )

    @event.listens_for(engine, "do_connect")
    def log_in(_dialect: object, _record: object, args: Any, parameters: dict[str, Any]) -> Any:
        password = access.password()
        if password is not None:
            parameters["password"] = password
        return connect(*args, **parameters)

    return engine


def _connection_class() -> Any:
    """A connection that closes itself when the server does not answer for ``ANSWER_SECONDS``. Raises ImportError."""
    import psycopg

    class EndingConnection(psycopg.Connection[Any]):
        """Every wait of it has an end on this side too."""

        def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
            """Run what waits for the server. Raises psycopg.OperationalError where nothing comes."""
            return super().wait(self._ending(gen), *args, **options)

        def _ending(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
            until = time.monotonic() + ANSWER_SECONDS
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if ready:
                        wanted = gen.send(ready)
                    elif time.monotonic() >= until:  # psycopg asks every 0.1 s while nothing comes
                        break
            except StopIteration as done:
                return done.value
            gen.close()
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server did not answer within {ANSWER_SECONDS:g} s")

    return EndingConnection


def _connect_args(access: Access) -> dict[str, Any]:
    wait = {
        "statement_timeout": STATEMENT_SECONDS,
        "lock_timeout": access.lock_seconds,
        "idle_in_transaction_session_timeout": access.idle_seconds,
    }
    options = [f"-c {name}={max(1, round(seconds * 1000))}" for name, seconds in wait.items()]
    options += ["-c synchronous_commit=on", "-c timezone=UTC"]  # what was told as written is on the disk
    return {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": access.application,
        "options": " ".join(options),
        "target_session_attrs": "read-write",
        # a server that is cut off is given up after about ten seconds
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }


def _check_server(engine: Engine, url: URL) -> None:
    with engine.connect() as connection:
        fsync = connection.execute(text("SHOW fsync")).scalar()
    if fsync != "on":
        raise LedgerUnavailableError(
            f"ledger {shown(url)}: the server runs with fsync = {fsync}, so what it says is written may be lost"
        )


def unreachable(place: str, told: str) -> str:
    """Message of a database error for an operator."""
    if "No space left" in told or "could not extend file" in told:
        return f"{place}: the database's disk is full ({told}); make room, nothing is started until then"
    if "read-only" in told:
        return f"{place} cannot be written ({told}); is it a standby server?"
    return f"{place}: {told}"
