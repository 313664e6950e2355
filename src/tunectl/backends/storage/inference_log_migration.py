"""The version of the inference log's tables, and the migration from an older one: Alembic runs ``inference_log_revisions``.

A SQLite file is migrated when it is opened, PostgreSQL by ``tunectl log migrate``, because other servers may use it. Either happens
in one transaction: after ``kill -9`` the database is as it was, or is migrated.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from tunectl.artifacts import atomic_io, lock
from tunectl.backends.storage import inference_log_schema
from tunectl.core.distribution import format_install_command
from tunectl.core.errors import InfrastructureError
from tunectl.core.optional import import_optional
from tunectl.core.url_credentials import hide_credentials

CURRENT: Final = "0003"
"""The version that this code reads and writes."""
VERSION_TABLE: Final = "inference_log_version"
"""Alembic's own name may belong to another program in the same PostgreSQL database, for example MLflow."""
ADVISORY_LOCK: Final = 7846273541
"""Advisory lock in PostgreSQL while tables are made or migrated; tunectl 0.1 makes its tables under the same one."""
LEAVING_SECONDS: Final = 3.0
"""Seconds for which PostgreSQL may still list a connection that was closed."""
MIGRATING: Final = "tunectl log migrate"
"""``application_name`` of a PostgreSQL connection that migrates; all others have ``tunectl``."""


class Migration(Struct, frozen=True):
    """Result of ``tunectl log migrate``: versions before and after, rows, seconds, and the copy of the file."""

    database: str
    """Address of the database, without a password."""
    from_version: str
    to_version: str
    rows: dict[str, int]
    """Number of rows by table."""
    seconds: float
    copy: str | None = None
    """Copy of the file before the migration; None for a server, and where nothing was to be done."""


def prepare(connection: Any, tables: inference_log_schema.Tables) -> None:
    """Create the tables in an empty database, inside the transaction of ``connection``; else check that they have the current version.

    Raises  InfrastructureError for tables of another version.
    """
    _lock(connection)
    version = read_version(connection)
    if version is None:
        tables.metadata.create_all(connection)
        table = _version_table()
        table.create(connection)
        connection.execute(table.insert().values(version_num=CURRENT))
    elif version != CURRENT:
        raise _version_error(connection.engine, version)


def read_version(connection: Any) -> str | None:
    """Return the version of a database's tables; None if it has no tables yet."""
    sa = import_optional("sqlalchemy", extra="inference-log")
    names = sa.inspect(connection).get_table_names()
    if VERSION_TABLE in names:
        result: str | None = connection.execute(sa.select(_version_table().c.version_num)).scalar()
        return result
    return "0001" if "exchanges" in names else None


def is_outdated(version: str | None) -> bool:
    """Return whether ``version`` is older than the current one, so that the database can be migrated."""
    return version is not None and version < CURRENT


def migrate(url: str, root: Path, *, locked: bool = False) -> Migration | None:
    """Migrate a database to the current version and return what was done; None if it has no tables yet, or is current.

    Args:
        url: Address of the database.
        root: Where relative paths begin.
        locked: Whether the caller holds the lock of the SQLite file, as its server.

    Raises:
        InfrastructureError: It is of a newer version, in use by tunectl 0.1, or cannot be copied or changed.
    """
    file = inference_log_schema.database_file(url, root)
    if file is not None and not file.is_file():
        return None
    engine = inference_log_schema.engine(url, root, application=MIGRATING)
    with _closing_engine(engine), inference_log_schema.translate_errors(engine):
        version = _peek_version(engine)
        if version is None:
            return None
        with _hold_lock(file, locked=locked or not is_outdated(version)):
            return _migrate(engine, file)


def migrate_file(url: str, root: Path, *, locked: bool) -> None:
    """Migrate an SQLite file of an older version; called whenever one is opened. Raises as ``migrate``."""
    file = inference_log_schema.database_file(url, root)
    if file is None or not file.is_file():
        return
    engine = inference_log_schema.engine(url, root)
    with _closing_engine(engine), inference_log_schema.translate_errors(engine):
        outdated = is_outdated(_peek_version(engine))
    if outdated:
        migrate(url, root, locked=locked)


@contextmanager
def _closing_engine(engine: Any) -> Iterator[None]:
    """Close all connections of ``engine`` at the end."""
    try:
        yield
    finally:
        engine.dispose()


def _peek_version(engine: Any) -> str | None:
    with engine.connect() as connection, connection.begin():
        return read_version(connection)


@contextmanager
def _hold_lock(file: Path | None, *, locked: bool) -> Iterator[None]:
    """Hold the lock of a SQLite file's server, so that no server of 0.1 writes to what is migrated."""
    if file is None or locked:
        yield
        return
    busy = f"{file}: this inference log is of an older tunectl and another process writes to it"
    hint = "stop that server; if it is migrating the log just now, try again in a moment"
    with lock.file_lock(lock_path(file), MIGRATING, busy=busy, hint=hint, timeout_seconds=inference_log_schema.BUSY):
        yield


def lock_path(file: Path) -> Path:
    """Return the path of the lock file that a server holds beside its SQLite file."""
    return file.with_name(file.name + ".lock")


def _migrate(engine: Any, file: Path | None) -> Migration:
    began, copy = time.monotonic(), None
    with engine.connect().execution_options(**inference_log_schema.WRITES) as connection, connection.begin():
        _lock(connection)
        version = read_version(connection) or ""  # another process may have migrated it meanwhile
        if version > CURRENT:
            raise _version_error(engine, version)
        if version < CURRENT:
            if file is None:
                _refuse_other_processes(connection)
            else:
                copy = _copy_file(file, version)
            _run_revisions(connection, version)
        rows = _count_rows(connection)
    seconds = round(time.monotonic() - began, 3)
    database = hide_credentials(engine.url.render_as_string(hide_password=True))
    return Migration(database, version, CURRENT, rows, seconds, str(copy) if copy else None)


def _lock(connection: Any) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")


def _refuse_other_processes(connection: Any) -> None:
    """Refuse while others use the database: tunectl 0.1 would lose rows, because its tables are gone."""
    end = time.monotonic() + LEAVING_SECONDS
    while count := _count_other_processes(connection):
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    if count:
        raise InfrastructureError(
            f"{count} connections of other tunectl processes to this database are open",
            hint="stop the servers, the monitor and the retrain controller that use it, then: tunectl log migrate",
        )


def _count_other_processes(connection: Any) -> int:
    # otherwise one transaction would always get the same answer
    connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
    count: int = connection.exec_driver_sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tunectl'"
    ).scalar()
    return count


def _run_revisions(connection: Any, version: str) -> None:
    """Run the revisions after ``version`` in the transaction that is open."""
    command = import_optional("alembic.command", extra="inference-log")
    config = import_optional("alembic.config", extra="inference-log").Config()
    folder = resources.files("tunectl.backends.storage") / "inference_log_revisions"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    if version == "0001":
        command.stamp(config, version)
    command.upgrade(config, "head")


def _count_rows(connection: Any) -> dict[str, int]:
    sa = import_optional("sqlalchemy", extra="inference-log")
    tables = inference_log_schema.tables().metadata.tables.values()
    return {table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() for table in tables}


def copies(file: Path) -> list[Path]:
    """Return the copies that migrations have left beside an SQLite file; they hold users' texts as the file does."""
    return sorted(file.parent.glob(f"{file.name}.version-*"))


def _copy_file(file: Path, version: str) -> Path:
    """Copy a SQLite file beside it, as ``FILE.version-0001``; older copies are deleted. The caller holds its write lock."""
    target = file.with_name(f"{file.name}.version-{version}")
    scratch = target.with_name(f"{target.name}.tmp")
    for old in copies(file):
        old.unlink()
    try:
        scratch.touch(mode=file.stat().st_mode & 0o777)
        with closing(sqlite3.connect(file)) as source:
            source.execute("VACUUM INTO ?", (str(scratch),))
        with scratch.open("rb") as stream:
            os.fsync(stream.fileno())
        scratch.replace(target)
        atomic_io.fsync_directory(target.parent)
    except (OSError, sqlite3.Error) as error:
        scratch.unlink(missing_ok=True)
        raise InfrastructureError(
            f"{file} is not migrated: it cannot be copied to {target}: {error}",
            hint=f"check the permissions of that folder, and that {file.stat().st_size / 1e6:.0f} MB are free there",
        ) from error
    return target


def _version_table() -> Any:
    """Describe the table in which Alembic keeps the version."""
    sa = import_optional("sqlalchemy", extra="inference-log")
    column = sa.Column("version_num", sa.String(32), nullable=False)
    return sa.Table(VERSION_TABLE, sa.MetaData(), column, sa.PrimaryKeyConstraint(column, name=f"{VERSION_TABLE}_pkc"))


def _version_error(engine: Any, version: str) -> InfrastructureError:
    database = hide_credentials(engine.url.render_as_string(hide_password=True))
    if is_outdated(version):
        return InfrastructureError(
            f"inference log {database} has schema version {version}; this tunectl needs {CURRENT}",
            hint="stop the servers, the monitor and the retrain controller that use it, save it with pg_dump, then: tunectl log migrate",
        )
    return InfrastructureError(
        f"inference log {database} has schema version {version}; this tunectl knows versions up to {CURRENT}",
        hint=f"use the tunectl that wrote it, or a newer one: {format_install_command('inference-log')}",
    )
