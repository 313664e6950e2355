"""Which key wrote a row, whether it may send requests for many people, and when the server received feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns for API keys and for the time when feedback was received; they are null in older rows, where neither was recorded."""
    for table in ("inferences", "feedback"):
        op.add_column(table, sa.Column("key_hash", sa.Text))
        op.add_column(table, sa.Column("acts_for", sa.Boolean))
        op.create_index(f"ix_{table}_key_hash", table, ["key_hash"])
    op.add_column("feedback", sa.Column("received_at", sa.DateTime(timezone=True)))
