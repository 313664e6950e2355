"""The live store's tables and connections: SQLAlchemy Core for SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tunectl.artifacts import io
from tunectl.core.errors import EnvironmentFailure, UsageError
from tunectl.core.lazy import need

BUSY: Final = 20.0
"""Seconds that one process waits for another one's transaction on SQLite, for example a purge."""
CONNECT: Final = 5
"""Seconds to wait for a PostgreSQL server."""
WRITES: Final = {"writes": True}
"""Option of a connection that will write: SQLite then takes its lock at the start, and never fails half-way."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one database."""

    metadata: Any
    exchanges: Any
    feedback: Any
    windows: Any
    events: Any


def tables() -> Tables:
    """Describe the tables. Bodies are JSON text; times are UTC with microseconds."""
    sa = need("sqlalchemy", extra="live")
    time = _time_type(sa)
    metadata = sa.MetaData()

    def column(name: str, kind: Any, **words: Any) -> Any:
        return sa.Column(name, kind, **{"nullable": True, **words})

    def text(name: str, **words: Any) -> Any:
        return column(name, sa.Text, **words)

    def key() -> Any:
        return text("id", primary_key=True, nullable=False)

    exchanges = sa.Table(
        "exchanges",
        metadata,
        key(),
        column("accepted_at", time, nullable=False),
        column("finished_at", time),
        text("user_hash", index=True),
        text("session"),
        text("arm", nullable=False),
        text("release", nullable=False),
        text("request"),
        text("response"),
        column("prompt_tokens", sa.Integer),
        column("completion_tokens", sa.Integer),
        text("finish_reason"),
        column("mean_logprob", sa.Double),
        column("refusal", sa.Boolean),
        column("format_valid", sa.Boolean),
        text("template_hash", nullable=False),
        column("latency", sa.Double),
        column("forgotten_at", time),
    )
    sa.Index("exchanges_order", exchanges.c.accepted_at, exchanges.c.id)
    feedback = sa.Table(
        "feedback",
        metadata,
        key(),
        text("exchange_id", nullable=False, index=True),
        text("kind", nullable=False),
        text("value"),
        text("annotator", index=True),
        column("at", time, nullable=False),
    )
    windows = sa.Table(
        "windows",
        metadata,
        key(),
        column("since", time, nullable=False),
        column("until", time, nullable=False),
        column("made_at", time, nullable=False, index=True),
        text("body", nullable=False),
    )
    events = sa.Table(
        "events",
        metadata,
        key(),
        column("at", time, nullable=False, index=True),
        text("kind", nullable=False),
        text("body", nullable=False),
    )
    return Tables(metadata, exchanges, feedback, windows, events)


def _time_type(sa: Any) -> Any:
    class Utc(sa.TypeDecorator):  # type: ignore[misc]
        """A time with a zone: PostgreSQL keeps one, SQLite gets UTC."""

        impl = sa.DateTime(timezone=True)
        cache_ok = True

        def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
            if value is None:
                return None
            if value.tzinfo is None:
                raise ValueError(f"{value.isoformat()} has no time zone")
            inside = value.astimezone(UTC)
            return inside.replace(tzinfo=None) if dialect.name == "sqlite" else inside

        def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
            if value is None:
                return None
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    return Utc()


def engine(url: str, root: Path) -> Any:
    """Connections to the database at ``url``; a relative SQLite file is below ``root``, and its folder is made.

    Raises  UsageError for another kind of database; EnvironmentFailure when the folder cannot be made; MissingExtra.
    """
    sa = need("sqlalchemy", extra="live")
    try:
        found = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise UsageError(
            "live.url cannot be read", hint="write sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error
    if found.get_backend_name() == "postgresql":
        return _postgres(sa, found)
    if found.get_backend_name() == "sqlite" and found.database not in (None, "", ":memory:"):
        return _sqlite(sa, found.set(database=str(database_file(url, root))))
    raise UsageError(
        f"live.url is for {found.get_backend_name()}", hint="write sqlite:///FILE or postgresql://USER@HOST/NAME"
    )


def database_file(url: str, root: Path) -> Path | None:
    """The file of an SQLite address, None for a server."""
    return root / url.partition(":///")[2].partition("?")[0] if url.startswith("sqlite") else None


def _postgres(sa: Any, url: Any) -> Any:
    need("psycopg", extra="postgres")
    found = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,  # a server that was restarted is found again
        pool_size=5,
        connect_args={
            "connect_timeout": CONNECT,
            "application_name": "tunectl",
            "options": "-c synchronous_commit=on -c timezone=UTC",
        },
    )

    @sa.event.listens_for(found, "connect")
    def _check(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            if cursor.execute("SHOW fsync").fetchone()[0] != "on":
                raise EnvironmentFailure(
                    "the PostgreSQL server runs with fsync = off, so nothing it confirms survives a power cut",
                    hint="set fsync = on in its postgresql.conf",
                )
        connection.rollback()

    return found


def _sqlite(sa: Any, url: Any) -> Any:
    folder = Path(url.database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise io.unwritable(folder, error) from error
    found = sa.create_engine(url, connect_args={"timeout": BUSY, "check_same_thread": False})

    @sa.event.listens_for(found, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(found, "begin")
    def _begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return found
