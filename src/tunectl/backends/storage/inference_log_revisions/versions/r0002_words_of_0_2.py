"""The names of tunectl 0.2 for tables, columns and JSON, and a separate column for erased feedback.

SQLite (3.25 and later) renames tables and columns in place as PostgreSQL does, so no table is copied.
"""

from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

from tunectl.inference_log import version_0_1

revision = "0002"
down_revision = "0001"

COLUMNS = (
    ("inferences", "arm", "variant"),
    ("inferences", "latency", "latency_seconds"),
    ("inferences", "forgotten_at", "erased_at"),
    ("feedback", "exchange_id", "inference_id"),
    ("feedback", "at", "created_at"),
    ("windows", "made_at", "created_at"),
    ("events", "at", "created_at"),
)
INDEXES = (
    ("exchanges_order", "inferences_order", "inferences", ["accepted_at", "id"]),
    ("ix_exchanges_user_hash", "ix_inferences_user_hash", "inferences", ["user_hash"]),
    ("ix_feedback_exchange_id", "ix_feedback_inference_id", "feedback", ["inference_id"]),
    ("ix_windows_made_at", "ix_windows_created_at", "windows", ["created_at"]),
    ("ix_events_at", "ix_events_created_at", "events", ["created_at"]),
)


def upgrade() -> None:
    """Rename tables and columns to the names of 0.2, convert the JSON of events and windows to it, and add the column for erased feedback."""
    connection = op.get_bind()
    op.rename_table("exchanges", "inferences")
    for table, old, new in COLUMNS:
        op.alter_column(table, old, new_column_name=new)
    for old, new, table, columns in INDEXES:
        if connection.dialect.name == "postgresql":
            op.execute(f"ALTER INDEX {old} RENAME TO {new}")
        else:
            op.drop_index(old, table_name=table)
            op.create_index(new, table, columns)
    if connection.dialect.name == "postgresql":  # renaming a table does not rename its primary key
        op.execute("ALTER TABLE inferences RENAME CONSTRAINT exchanges_pkey TO inferences_pkey")
    _convert_windows(connection)
    _convert_events(connection)
    _mark_erased_feedback(connection)


def _convert_windows(connection: Any) -> None:
    table = sa.table("windows", sa.column("id"), sa.column("body"))
    for row in connection.execute(sa.select(table)).all():  # a few an hour: they fit into memory
        body = msgspec.json.decode(row.body)
        converted = version_0_1.convert_window(body)
        if converted != body:
            _update(connection, table, row.id, body=_encode(converted))


def _convert_events(connection: Any) -> None:
    table = sa.table("events", sa.column("id"), sa.column("kind"), sa.column("body"))
    for row in connection.execute(sa.select(table)).all():
        kind = version_0_1.EVENT_KINDS.get(row.kind, row.kind)
        body = version_0_1.convert_event(row.kind, msgspec.json.decode(row.body))
        # The id of other events identifies repetitions. There is only one event of the hash key, so its id is its kind.
        name = kind if row.id == row.kind == "salt" else row.id
        _update(connection, table, row.id, id=name, kind=kind, body=_encode(body))


def _update(connection: Any, table: Any, name: str, **values: str) -> None:
    connection.execute(sa.update(table).where(table.c.id == name).values(**values))


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _mark_erased_feedback(connection: Any) -> None:
    """Set ``erased_at`` on feedback that 0.1 had erased. It deleted value and annotator together; a click may have no value and still be valid.

    The time is that of the erased inference, or else that of the last erasure, since no other is known.
    """
    op.add_column("feedback", sa.Column("erased_at", sa.DateTime(timezone=True)))
    connection.execute(
        sa.text(
            "UPDATE feedback SET erased_at = coalesce("
            "(SELECT erased_at FROM inferences WHERE inferences.id = feedback.inference_id), "
            "(SELECT max(created_at) FROM events WHERE kind = 'erased'), created_at) "
            "WHERE value IS NULL AND annotator IS NULL"
        )
    )
