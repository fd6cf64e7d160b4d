"""Nights: what each window of consolidation saved and cost."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build the tables."""
    op.create_table(
        "nights",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("window_name", sa.Text(), nullable=False),
        sa.Column("began_at", sa.Float(), nullable=False),
        sa.Column("ends_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("saved_kwh", sa.Float(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nights")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_nights_began_at"), "nights", ["began_at"], unique=False)
    op.create_table(
        "night_evenings",
        sa.Column("night_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["night_id"], ["nights.id"], name=op.f("fk_night_evenings_night_id_nights"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("night_id", name=op.f("pk_night_evenings")),
    )


def downgrade() -> None:
    """Take them back, and the account of every night with them."""
    op.drop_table("night_evenings")
    op.drop_index(op.f("ix_nights_began_at"), table_name="nights")
    op.drop_table("nights")
