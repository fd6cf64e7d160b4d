"""Advice, how it turned out, and the hours in which hosts were watched."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build the three tables."""
    op.create_table(
        "advice",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("proposed_at", sa.Float(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("vm_uuid", sa.String(length=64), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_advice")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_advice_proposed_at"), "advice", ["proposed_at"], unique=False)
    op.create_index(op.f("ix_advice_vm_uuid"), "advice", ["vm_uuid"], unique=False)
    op.create_table(
        "advice_scores",
        sa.Column("advice_id", sa.Integer(), nullable=False),
        sa.Column("scored_at", sa.Float(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("followed", sa.Boolean(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["advice_id"], ["advice.id"], name=op.f("fk_advice_scores_advice_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("advice_id", name=op.f("pk_advice_scores")),
    )
    op.create_table(
        "watched_hours",
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("known", sa.Float(), nullable=False),
        sa.Column("hot_seconds", sa.Float(), nullable=False),
        sa.Column("foreseen", sa.Integer(), nullable=False),
        sa.Column("late", sa.Integer(), nullable=False),
        sa.Column("unadvised", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("hour", name=op.f("pk_watched_hours")),
    )


def downgrade() -> None:
    """Take it back; what was recorded of advice is lost."""
    op.drop_table("watched_hours")
    op.drop_table("advice_scores")
    op.drop_index(op.f("ix_advice_vm_uuid"), table_name="advice")
    op.drop_index(op.f("ix_advice_proposed_at"), table_name="advice")
    op.drop_table("advice")
