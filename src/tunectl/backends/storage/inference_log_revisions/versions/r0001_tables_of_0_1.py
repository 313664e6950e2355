"""The tables of tunectl 0.1, which had no version: a database that has them counts as this one."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables of tunectl 0.1."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "exchanges",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("accepted_at", time, nullable=False),
        sa.Column("finished_at", time),
        sa.Column("user_hash", sa.Text, index=True),
        sa.Column("session", sa.Text),
        sa.Column("arm", sa.Text, nullable=False),
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("request", sa.Text),
        sa.Column("response", sa.Text),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("finish_reason", sa.Text),
        sa.Column("mean_logprob", sa.Double),
        sa.Column("refusal", sa.Boolean),
        sa.Column("format_valid", sa.Boolean),
        sa.Column("template_hash", sa.Text, nullable=False),
        sa.Column("latency", sa.Double),
        sa.Column("forgotten_at", time),
    )
    op.create_index("exchanges_order", "exchanges", ["accepted_at", "id"])
    op.create_table(
        "feedback",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("exchange_id", sa.Text, nullable=False, index=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("annotator", sa.Text, index=True),
        sa.Column("at", time, nullable=False),
    )
    op.create_table(
        "windows",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("since", time, nullable=False),
        sa.Column("until", time, nullable=False),
        sa.Column("made_at", time, nullable=False, index=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", time, nullable=False, index=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
