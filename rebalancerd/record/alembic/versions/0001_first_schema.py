"""The first schema of the ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build it."""
    op.create_table(
        "commands",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("until", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commands")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_commands_kind"), "commands", ["kind"], unique=False)
    op.create_table(
        "cycles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("policy", sa.String(length=40), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("plan_id", sa.String(length=200), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cycles")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_cycles_started_at"), "cycles", ["started_at"], unique=False)
    op.create_table(
        "meta",
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "migrations",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("vm_uuid", sa.String(length=64), nullable=False),
        sa.Column("vm_name", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("ours", sa.Boolean(), nullable=False),
        sa.Column("plan_id", sa.String(length=200), nullable=True),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("controller", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("intent_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_migrations")),
        sa.UniqueConstraint("id", name=op.f("uq_migrations_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_migrations_intent_at"), "migrations", ["intent_at"], unique=False)
    op.create_index(op.f("ix_migrations_vm_name"), "migrations", ["vm_name"], unique=False)
    op.create_index(op.f("ix_migrations_vm_uuid"), "migrations", ["vm_uuid"], unique=False)
    op.create_index(
        "uq_migrations_open_vm",
        "migrations",
        ["vm_uuid"],
        unique=True,
        sqlite_where=sa.text("is_open AND ours"),
        postgresql_where=sa.text("is_open AND ours"),
    )
    op.create_table(
        "plans",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("format", sa.Integer(), nullable=False),
        sa.Column("policy", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("basis", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
    )
    op.create_index(op.f("ix_plans_digest"), "plans", ["digest"], unique=False)
    op.create_index(op.f("ix_plans_expires_at"), "plans", ["expires_at"], unique=False)
    op.create_table(
        "approval_uses",
        sa.Column("command_id", sa.Integer(), nullable=False),
        sa.Column("used_for", sa.String(length=200), nullable=False),
        sa.Column("migration_id", sa.String(length=200), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["command_id"], ["commands.id"], name=op.f("fk_approval_uses_command_id")),
        sa.PrimaryKeyConstraint("command_id", "used_for", name=op.f("pk_approval_uses")),
    )
    op.create_table(
        "decisions",
        sa.Column("cycle_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("plan_id", sa.String(length=200), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("vm_uuid", sa.String(length=64), nullable=False),
        sa.Column("vm_name", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("migration_id", sa.String(length=200), nullable=True),
        sa.Column("refusal_code", sa.String(length=40), nullable=True),
        sa.Column("refusal_kind", sa.String(length=16), nullable=True),
        sa.Column("refusal_subject", sa.Text(), nullable=True),
        sa.Column("refusal_detail", sa.Text(), nullable=True),
        sa.Column("refusal_destination", sa.Text(), nullable=True),
        sa.Column("refusal_count", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["cycle_id"], ["cycles.id"], name=op.f("fk_decisions_cycle_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("cycle_id", "position", name=op.f("pk_decisions")),
    )
    op.create_index(op.f("ix_decisions_vm_name"), "decisions", ["vm_name"], unique=False)
    op.create_index(op.f("ix_decisions_vm_uuid"), "decisions", ["vm_uuid"], unique=False)
    op.create_table(
        "migration_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("migration_id", sa.String(length=200), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["migration_id"], ["migrations.id"], name=op.f("fk_migration_events_migration_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_migration_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_migration_events_migration_id"), "migration_events", ["migration_id"], unique=False)
    op.create_table(
        "outcomes",
        sa.Column("migration_id", sa.String(length=200), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("basis", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("predicted_seconds", sa.Float(), nullable=True),
        sa.Column("predicted_seconds_upper", sa.Float(), nullable=True),
        sa.Column("downtime_seconds", sa.Float(), nullable=True),
        sa.Column("predicted_downtime_seconds", sa.Float(), nullable=True),
        sa.Column("predicted_downtime_seconds_upper", sa.Float(), nullable=True),
        sa.Column("transferred_bytes", sa.Float(), nullable=True),
        sa.Column("predicted_bytes", sa.Float(), nullable=True),
        sa.Column("predicted_bytes_upper", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["migration_id"], ["migrations.id"], name=op.f("fk_outcomes_migration_id")),
        sa.PrimaryKeyConstraint("migration_id", name=op.f("pk_outcomes")),
    )
    op.create_index(op.f("ix_outcomes_ended_at"), "outcomes", ["ended_at"], unique=False)
    op.create_table(
        "refusals",
        sa.Column("cycle_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["cycle_id"], ["cycles.id"], name=op.f("fk_refusals_cycle_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("cycle_id", "position", name=op.f("pk_refusals")),
    )
    op.create_index(op.f("ix_refusals_subject_cycle_id"), "refusals", ["subject", "cycle_id"], unique=False)
    op.create_table(
        "steps",
        sa.Column("plan_id", sa.String(length=200), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("vm_uuid", sa.String(length=64), nullable=False),
        sa.Column("vm_name", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name=op.f("fk_steps_plan_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("plan_id", "number", name=op.f("pk_steps")),
    )
    op.create_index(op.f("ix_steps_vm_uuid"), "steps", ["vm_uuid"], unique=False)


def downgrade() -> None:
    """Take it back."""
    op.drop_index(op.f("ix_steps_vm_uuid"), table_name="steps")
    op.drop_table("steps")
    op.drop_index(op.f("ix_refusals_subject_cycle_id"), table_name="refusals")
    op.drop_table("refusals")
    op.drop_index(op.f("ix_outcomes_ended_at"), table_name="outcomes")
    op.drop_table("outcomes")
    op.drop_index(op.f("ix_migration_events_migration_id"), table_name="migration_events")
    op.drop_table("migration_events")
    op.drop_index(op.f("ix_decisions_vm_uuid"), table_name="decisions")
    op.drop_index(op.f("ix_decisions_vm_name"), table_name="decisions")
    op.drop_table("decisions")
    op.drop_table("approval_uses")
    op.drop_index(op.f("ix_plans_digest"), table_name="plans")
    op.drop_index(op.f("ix_plans_expires_at"), table_name="plans")
    op.drop_table("plans")
    op.drop_index(
        "uq_migrations_open_vm",
        table_name="migrations",
        sqlite_where=sa.text("is_open AND ours"),
        postgresql_where=sa.text("is_open AND ours"),
    )
    op.drop_index(op.f("ix_migrations_vm_uuid"), table_name="migrations")
    op.drop_index(op.f("ix_migrations_vm_name"), table_name="migrations")
    op.drop_index(op.f("ix_migrations_intent_at"), table_name="migrations")
    op.drop_table("migrations")
    op.drop_table("meta")
    op.drop_index(op.f("ix_cycles_started_at"), table_name="cycles")
    op.drop_table("cycles")
    op.drop_index(op.f("ix_commands_kind"), table_name="commands")
    op.drop_table("commands")
