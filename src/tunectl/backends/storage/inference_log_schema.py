"""The inference log's tables, their rows and connections: SQLAlchemy Core for SQLite and PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from tunectl.artifacts import atomic_io, private_files
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.storage import postgres_tls
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import import_optional
from tunectl.core.url_credentials import hide_credentials

T = TypeVar("T")
BUSY: Final = 20.0
"""Seconds that a process waits for another one's transaction on SQLite, for example a purge; also for a PostgreSQL server that stops answering."""
CONNECT: Final = 5
"""Seconds to wait for a PostgreSQL server."""
KEEPS_ALL_TEXT: Final = frozenset(("UTF8", "SQL_ASCII"))
"""Encodings of a PostgreSQL database that store UTF-8 unchanged (its manual, Character Set Support)."""
WRITES: Final = {"writes": True}
"""Option of a connection that will write: SQLite then takes its lock at the start, so that a transaction cannot fail half-way."""


@dataclass(frozen=True, slots=True)
class Tables:
    """SQLAlchemy tables of the inference log, with their common ``metadata``."""

    metadata: Any
    inferences: Any
    feedback: Any
    windows: Any
    events: Any


TableColumns = tuple[tuple[str, str, str], ...]
"""Name; type (text, time, whole, real, truth); key, not null, index, or nothing."""
INFERENCES: Final[TableColumns] = (
    ("id", "text", "key"),
    ("accepted_at", "time", "not null"),
    ("finished_at", "time", ""),
    ("user_hash", "text", "index"),
    ("session", "text", ""),
    ("variant", "text", "not null"),
    ("release", "text", "not null"),
    ("request", "text", ""),
    ("response", "text", ""),
    ("prompt_tokens", "whole", ""),
    ("completion_tokens", "whole", ""),
    ("finish_reason", "text", ""),
    ("mean_logprob", "real", ""),
    ("refusal", "truth", ""),
    ("format_valid", "truth", ""),
    ("template_hash", "text", "not null"),
    ("latency_seconds", "real", ""),
    ("erased_at", "time", ""),
    ("key_hash", "text", "index"),
    ("acts_for", "truth", ""),
)
FEEDBACK: Final[TableColumns] = (
    ("id", "text", "key"),
    ("inference_id", "text", "not null index"),
    ("kind", "text", "not null"),
    ("value", "text", ""),
    ("annotator", "text", "index"),
    ("created_at", "time", "not null"),
    ("erased_at", "time", ""),
    ("key_hash", "text", "index"),
    ("acts_for", "truth", ""),
    ("received_at", "time", ""),
)
WINDOWS: Final[TableColumns] = (
    ("id", "text", "key"),
    ("since", "time", "not null"),
    ("until", "time", "not null"),
    ("created_at", "time", "not null index"),
    ("body", "text", "not null"),
)
EVENTS: Final[TableColumns] = (
    ("id", "text", "key"),
    ("created_at", "time", "not null index"),
    ("kind", "text", "not null"),
    ("body", "text", "not null"),
)

JSON: Final = frozenset(("request", "response", "value", "body"))
"""Columns that hold JSON."""


def tables() -> Tables:
    """Return SQLAlchemy's descriptions of the tables. Bodies are JSON text; times are UTC with microseconds."""
    sa = import_optional("sqlalchemy", extra="inference-log")
    metadata = sa.MetaData()
    kinds = {"text": sa.Text, "time": _time_type(sa), "whole": sa.Integer, "real": sa.Double, "truth": sa.Boolean}

    def table(name: str, columns: TableColumns) -> Any:
        result = [
            sa.Column(
                column,
                kinds[kind],
                primary_key=role == "key",
                nullable=not ("null" in role or role == "key"),
                index="index" in role or None,
            )
            for column, kind, role in columns
        ]
        return sa.Table(name, metadata, *result)

    inferences = table("inferences", INFERENCES)
    sa.Index("inferences_order", inferences.c.accepted_at, inferences.c.id)
    rest = (table("feedback", FEEDBACK), table("windows", WINDOWS), table("events", EVENTS))
    return Tables(metadata, inferences, *rest)


def _time_type(sa: Any) -> Any:
    class Utc(sa.TypeDecorator):
        """A time with a zone: PostgreSQL stores one, SQLite gets UTC."""

        impl = sa.DateTime(timezone=True)
        cache_ok = True

        def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
            """Convert a value for the database; a time without a zone is an error."""
            if value is None:
                return None
            if value.tzinfo is None:
                raise ValueError(f"{value.isoformat()} has no time zone")
            inside = value.astimezone(UTC)
            return inside.replace(tzinfo=None) if dialect.name == "sqlite" else inside

        def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
            """Convert a value from the database, in UTC."""
            if value is None:
                return None
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    return Utc()


def to_row(row: Any) -> dict[str, Any]:
    """Return the record ``row`` as values by database column; structured fields are JSON text."""
    return {
        name: _json(value) if name in JSON else value
        for name in row.__struct_fields__
        for value in (getattr(row, name),)
    }


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


_decode: Callable[[str], Any] = msgspec.json.decode


def from_row(row: Any, shape: type[T]) -> T:
    """Return a database row as a record of type ``shape``."""
    values = {
        name: _decode(value) if name in JSON and value is not None else value
        for name, value in row._mapping.items()  # noqa: SLF001  public by its documentation
    }
    return shape(**values)


def engine(url: str, root: Path, *, application: str = "tunectl") -> Any:
    """Return a SQLAlchemy engine for ``url``; a relative SQLite file is below ``root``, and its folder is created.

    ``application`` is the program's name that PostgreSQL shows.

    Raises  UsageError for another kind of database; InfrastructureError when the folder cannot be made; MissingExtraError without a driver.
    """
    sa = import_optional("sqlalchemy", extra="inference-log")
    try:
        result = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise UsageError(
            "inference_log.url is malformed: not the address of a database (not shown: it may hold a password)",
            hint="write sqlite:///FILE or postgresql://USER@HOST/NAME",
        ) from error
    if result.get_backend_name() == "postgresql":
        return _postgres(sa, result, application)
    if result.get_backend_name() == "sqlite" and result.database not in (None, "", ":memory:"):
        return _sqlite(sa, result.set(database=str(database_file(url, root))))
    kind = result.get_backend_name()
    raise UsageError(
        "inference_log.url is an SQLite address without a file"
        if kind == "sqlite"
        else f"inference_log.url is the address of a {kind} database; only SQLite and PostgreSQL are supported",
        hint="write sqlite:///FILE or postgresql://USER@HOST/NAME",
    )


@contextmanager
def translate_errors(result: Any) -> Iterator[None]:
    """Raise errors of the database (``result`` is the engine) as InfrastructureError while the block runs."""
    sa = import_optional("sqlalchemy", extra="inference-log")
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise wrap_error(result, error) from error


def wrap_error(result: Any, error: Any) -> InfrastructureError:
    """Return a database error as InfrastructureError with its first line, never with the statement or the values."""
    reason = (str(getattr(error, "orig", None) or type(error).__name__).splitlines() or [type(error).__name__])[0]
    return InfrastructureError(
        f"inference log {hide_credentials(result.url.render_as_string(hide_password=True))}: {reason}",
        hint="check the free space and the rights of that file, or the server",
    )


def database_file(url: str, root: Path) -> Path | None:
    """Return the path of the file of an SQLite address; None for a database server."""
    return root / url.partition(":///")[2].partition("?")[0] if url.startswith("sqlite") else None


def close_to_others(file: Path | None, root: Path) -> None:
    """Make an SQLite file, and its folder if that is below the project's state folder, accessible to their owner only."""
    if file is None:
        return
    if ProjectPaths(root).state_dir in file.parents[1:]:
        private_files.make_folder(file.parent)
    for end in ("", "-wal", "-shm"):
        private_files.restrict(file.with_name(file.name + end))


def _postgres(sa: Any, url: Any, application: str) -> Any:
    import_optional("psycopg", extra="postgres")
    result = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,  # a server that was restarted is found again
        pool_size=5,
        connect_args={
            "connect_timeout": CONNECT,
            "application_name": application,
            **postgres_tls.choose_sslmode(url),
            "client_encoding": "utf8",  # otherwise psycopg returns bytes if the database has no encoding
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            # without this, a server that became unreachable would be waited for without limit
            "tcp_user_timeout": int(1000 * BUSY),
            "options": "-c synchronous_commit=on -c timezone=UTC",
        },
    )

    @sa.event.listens_for(result, "connect")
    def _check(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            if cursor.execute("SHOW fsync").fetchone()[0] != "on":
                raise InfrastructureError(
                    "the PostgreSQL server runs with fsync = off, so nothing it confirms survives a power cut",
                    hint="set fsync = on in its postgresql.conf",
                )
            encoding = cursor.execute("SHOW server_encoding").fetchone()[0]
            if encoding not in KEEPS_ALL_TEXT:
                raise InfrastructureError(
                    f"the PostgreSQL database {connection.info.dbname} stores text as {encoding}, which lacks most characters",
                    hint="create it again: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
                )
        connection.rollback()

    return result


def _sqlite(sa: Any, url: Any) -> Any:
    folder = Path(url.database).parent
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)  # users' texts are in the file and its snapshots
        if not Path(url.database).exists():
            os.close(os.open(url.database, os.O_CREAT | os.O_WRONLY, 0o600))  # its WAL gets the same mode
    except OSError as error:
        raise atomic_io.write_error(folder, error) from error
    result = sa.create_engine(url, connect_args={"timeout": BUSY, "check_same_thread": False})

    @sa.event.listens_for(result, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # BEGIN is executed explicitly below
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(result, "begin")
    def _begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return result
