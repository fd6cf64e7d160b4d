"""The ledger's schema from one version to another, forwards and backwards, all or nothing."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0005"  # newest schema that this version knows; a test holds it to the newest version of alembic/versions
SCRIPTS = Path(__file__).parent / "alembic"
MIGRATING_LOCK = 7_233_425  # any number that nobody else locks in this database: one controller migrates at a time
MIGRATING_IDLE_SECONDS = 60


def upgrade(engine: Engine) -> None:
    """Bring the schema to that of this version."""
    migrate(engine, HEAD)


def migrate(engine: Engine, revision: str) -> None:
    """Bring the schema to ``revision``, newer or older; an older one loses the tables that it does not know."""
    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config()
    order = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]  # newest first
    order.append("base")
    with engine.execution_options(immediate=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING_LOCK})
            # a slow machine may think for longer between two statements than a lease allows
            connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {MIGRATING_IDLE_SECONDS * 1000}"))
        present = revision_of(connection)
        config.attributes["connection"] = connection
        if present in order and order.index(present) < order.index(revision):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)


def revision_of(connection: Connection) -> str | None:
    """Schema revision of an open database; None if it has none."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    rows = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    return str(rows[0]) if len(rows) == 1 else None


def known_revisions() -> frozenset[str]:
    """Every revision that this version can read or bring up to date."""
    from alembic.script import ScriptDirectory

    return frozenset(script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions())


def alembic_config() -> "Config":
    """Alembic on the versions of this program; it takes its connection from ``attributes``."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
