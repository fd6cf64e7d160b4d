"""Tables of the ledger. The migrations of ``alembic/versions`` build them; a test holds both together."""

from typing import Any

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text, text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# sqlite_autoincrement: a number that was given once is never given again


def _refusal(prefix: str = "", *, nullable: bool = False) -> tuple[Column[Any], ...]:
    """The columns of a refusal."""
    return (
        Column(f"{prefix}code", String(40), nullable=nullable),
        Column(f"{prefix}kind", String(16), nullable=nullable),
        Column(f"{prefix}subject", Text, nullable=nullable),
        Column(f"{prefix}detail", Text, nullable=nullable),
        Column(f"{prefix}destination", Text, nullable=True),
        Column(f"{prefix}count", Integer, nullable=nullable),
    )


meta = Table("meta", metadata, Column("key", String(40), primary_key=True), Column("value", Text, nullable=False))

cycles = Table(
    "cycles",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("started_at", Float, nullable=False, index=True),
    Column("mode", String(16), nullable=False),
    Column("policy", String(40), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("plan_id", String(200), nullable=True),
    Column("body", Text, nullable=False),  # CycleRecord without decisions and refusals, which have tables of their own
    sqlite_autoincrement=True,
)
decisions = Table(
    "decisions",
    metadata,
    Column("cycle_id", Integer, ForeignKey("cycles.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("plan_id", String(200), nullable=False),
    Column("step", Integer, nullable=False),
    Column("vm_uuid", String(64), nullable=False, index=True),
    Column("vm_name", Text, nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("migration_id", String(200), nullable=True),
    *_refusal("refusal_", nullable=True),
)
refusals = Table(
    "refusals",
    metadata,
    Column("cycle_id", Integer, ForeignKey("cycles.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    *_refusal(),
    Index(None, "subject", "cycle_id"),
)
plans = Table(
    "plans",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("format", Integer, nullable=False),
    Column("policy", String(40), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("basis", Text, nullable=False),
    Column("body", Text, nullable=False),
)
steps = Table(
    "steps",
    metadata,
    Column("plan_id", String(200), ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("wave", Integer, nullable=False),
    Column("vm_uuid", String(64), nullable=False, index=True),
    Column("vm_name", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("why", Text, nullable=False),
)
migrations = Table(
    "migrations",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String(200), nullable=False, unique=True),
    Column("vm_uuid", String(64), nullable=False, index=True),
    Column("vm_name", Text, nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("state", String(24), nullable=False),
    Column("is_open", Boolean, nullable=False),
    Column("ours", Boolean, nullable=False),
    Column("plan_id", String(200), nullable=True),
    Column("step", Integer, nullable=True),
    Column("controller", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("intent_at", Float, nullable=False, index=True),
    Column("ended_at", Float, nullable=True),
    Column("body", Text, nullable=False),
    # one VM has at most one migration of ours under way, whoever writes
    Index(
        "uq_migrations_open_vm",
        "vm_uuid",
        unique=True,
        sqlite_where=text("is_open AND ours"),
        postgresql_where=text("is_open AND ours"),
    ),
    sqlite_autoincrement=True,
)
migration_events = Table(
    "migration_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("migration_id", String(200), ForeignKey("migrations.id"), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("state", String(24), nullable=False),
    Column("reason", Text, nullable=False),
    Column("body", Text, nullable=False),
    sqlite_autoincrement=True,
)
outcomes = Table(
    "outcomes",
    metadata,
    Column("migration_id", String(200), ForeignKey("migrations.id"), primary_key=True),
    Column("ended_at", Float, nullable=True, index=True),
    Column("state", String(24), nullable=False),
    Column("basis", Text, nullable=True),
    Column("seconds", Float, nullable=True),
    Column("predicted_seconds", Float, nullable=True),
    Column("predicted_seconds_upper", Float, nullable=True),
    Column("downtime_seconds", Float, nullable=True),
    Column("predicted_downtime_seconds", Float, nullable=True),
    Column("predicted_downtime_seconds_upper", Float, nullable=True),
    Column("transferred_bytes", Float, nullable=True),
    Column("predicted_bytes", Float, nullable=True),
    Column("predicted_bytes_upper", Float, nullable=True),
)
commands = Table(
    "commands",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(24), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("by", Text, nullable=False),
    Column("subject", Text, nullable=True),
    Column("step", Integer, nullable=True),
    Column("digest", String(64), nullable=True),
    Column("until", Float, nullable=True),
    Column("reason", Text, nullable=False),
    sqlite_autoincrement=True,
)
approval_uses = Table(
    "approval_uses",
    metadata,
    Column("command_id", Integer, ForeignKey("commands.id"), primary_key=True),
    Column("used_for", String(200), primary_key=True),  # "step N", or the migration where its step is not known
    Column("migration_id", String(200), nullable=False),
    Column("at", Float, nullable=False),
)
lease = Table(
    "lease",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1: there is one lease
    Column("controller", Text, nullable=False),
    Column("instance", String(64), nullable=False),  # of one process, so that a restart is another holder
    Column("epoch", Integer, nullable=False),  # number of the tenure, never given twice
    Column("beat", Integer, nullable=False),  # grows with every renewal
    Column("taken_at", Float, nullable=False),  # these two by the database's clock
    Column("expires_at", Float, nullable=False),
    Column("seconds", Float, nullable=False),
)
advice = Table(
    "advice",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("proposed_at", Float, nullable=False, index=True),
    Column("due_at", Float, nullable=False),
    Column("vm_uuid", String(64), nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("body", Text, nullable=False),
    sqlite_autoincrement=True,
)
advice_scores = Table(
    "advice_scores",
    metadata,
    Column("advice_id", Integer, ForeignKey("advice.id", ondelete="CASCADE"), primary_key=True),
    Column("scored_at", Float, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("followed", Boolean, nullable=False),
    Column("body", Text, nullable=False),
)
watched_hours = Table(
    "watched_hours",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),  # since the epoch
    Column("known", Float, nullable=False),
    Column("hot_seconds", Float, nullable=False),
    Column("foreseen", Integer, nullable=False),
    Column("late", Integer, nullable=False),
    Column("unadvised", Integer, nullable=False),
)
power_events = Table(
    "power_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("host", String(255), nullable=False, index=True),
    Column("phase", String(24), nullable=False),
    Column("reason", Text, nullable=False),
    Column("body", Text, nullable=False),
    sqlite_autoincrement=True,
)
nights = Table(
    "nights",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("window_name", Text, nullable=False),
    Column("began_at", Float, nullable=False, index=True),
    Column("ends_at", Float, nullable=False),
    Column("ended_at", Float, nullable=True),  # null: it is under way
    Column("saved_kwh", Float, nullable=False),
    Column("body", Text, nullable=False),  # Night without its evening, which is written once
    sqlite_autoincrement=True,
)
night_evenings = Table(
    "night_evenings",
    metadata,
    Column("night_id", Integer, ForeignKey("nights.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
)
