"""The steps by which hosts are put to sleep and woken."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build the table."""
    op.create_table(
        "power_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("phase", sa.String(length=24), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_power_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_power_events_host"), "power_events", ["host"], unique=False)


def downgrade() -> None:
    """Take it back; who is asleep and why is lost."""
    op.drop_index(op.f("ix_power_events_host"), table_name="power_events")
    op.drop_table("power_events")
