"""Settings of the ledger."""

from dataclasses import dataclass

DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """Where the ledger is and how much of it is kept.

    ``url``: SQLAlchemy URL without a password; None: a SQLite file in the state directory. ``password_file``: path of a
    file that holds PostgreSQL's password, or the bare name of a systemd credential. ``retention_seconds``: cycles,
    advice and unused plans older than that are forgotten; migrations and commands never.
    """

    url: str | None = None
    password_file: str | None = None
    retention_seconds: float = 90 * DAY_SECONDS
