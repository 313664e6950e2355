"""Copies of the inference log for backups: SQLite's online backup, PostgreSQL's pg_dump and pg_restore. Servers keep running meanwhile."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from tunectl.backends.storage import inference_log_migration, inference_log_schema, postgres_tls
from tunectl.core.errors import ArtifactError, InfrastructureError
from tunectl.core.optional import import_optional

TABLES: Final = ("inferences", "feedback", "windows", "events", inference_log_migration.VERSION_TABLE)
"""The tables of tunectl; another program may have its own tables in the same PostgreSQL database."""


def copy_sqlite(file: Path, target: Path) -> None:
    """Copy an SQLite database, journal included, by its online backup: one consistent state, without blocking writers.

    Raises  ArtifactError where the source, and so the copy, is damaged; InfrastructureError where the copy cannot be written.
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with (
            closing(sqlite3.connect(file, timeout=inference_log_schema.BUSY)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)  # all pages in one step: a consistent copy, whatever is written meanwhile
            copy.execute("PRAGMA journal_mode = DELETE").close()
            problems = find_damage(copy)
        if problems:
            raise ArtifactError(
                f"{file} is damaged: {problems[0]}",
                hint="list what is damaged: tunectl log verify; then restore an earlier backup: tunectl restore DIR",
            )
        with target.open("rb") as stream:
            os.fsync(stream.fileno())
    except sqlite3.DatabaseError as error:
        # on a full disk SQLite may say no more than "disk I/O error"
        free = shutil.disk_usage(target.parent).free / 1e6
        raise InfrastructureError(
            f"{file} cannot be copied to {target}, where {free:.1f} MB of space are free: {error}",
            hint="check the free space there; if the database file is damaged, run: tunectl log verify",
        ) from error


def find_damage(connection: sqlite3.Connection, *, quick: bool = False) -> list[str]:
    """Return the problems that SQLite finds in a database, a sentence each; ``quick`` skips the comparison of indexes with tables."""
    rows = connection.execute(f"PRAGMA {'quick_check' if quick else 'integrity_check'}").fetchall()
    return [str(row[0]) for row in rows if row[0] != "ok"]


def dump_postgres(url: str, target: Path) -> None:
    """Write the tables of the inference log into a file of pg_dump's custom format, as they are when it begins.

    Raises  InfrastructureError where pg_dump is not installed or fails.
    """
    tables = [f"--table={name}" for name in TABLES]
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    _call("pg_dump", ["--format=custom", "--no-owner", "--no-privileges", *tables, f"--file={target}"], url, target)
    with target.open("rb") as stream:
        os.fsync(stream.fileno())


def restore_postgres(url: str, dump: Path) -> None:
    """Restore the tables in the file ``dump`` into the database at ``url``, which has none of them, in one transaction.

    Raises  InfrastructureError where pg_restore is not installed or fails; then nothing was changed.
    """
    arguments = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    _call("pg_restore", [*arguments, "--dbname", libpq_environment(url)["PGDATABASE"], str(dump)], url, dump)


def has_tables(url: str, root: Path) -> bool:
    """Return whether the PostgreSQL database at ``url`` has tables of an inference log.

    Raises  InfrastructureError where the server cannot be reached, or refuses the login.
    """
    sa = import_optional("sqlalchemy", extra="inference-log")
    engine = inference_log_schema.engine(url, root)
    try:
        with inference_log_schema.translate_errors(engine), engine.connect() as connection:
            return not set(sa.inspect(connection).get_table_names()).isdisjoint(TABLES)
    finally:
        engine.dispose()


def libpq_environment(url: str) -> dict[str, str]:
    """Return ``url`` as libpq's environment variables (PGHOST, …), value by name, so that no password is on a command line."""
    result = import_optional("sqlalchemy", extra="inference-log").make_url(url)
    values = {"PGHOST": result.host, "PGPORT": result.port, "PGUSER": result.username, "PGPASSWORD": result.password}
    values["PGDATABASE"] = result.database or result.username or ""
    query = {f"PG{name.upper()}": value for name, value in result.query.items() if isinstance(value, str)}
    tls = {f"PG{name.upper()}": value for name, value in postgres_tls.choose_sslmode(result).items()}
    return {name: str(value) for name, value in {**values, **query, **tls}.items() if value is not None}


def _call(
    program: str, arguments: Sequence[str], url: str, file: Path, environment: Mapping[str, str] = os.environ
) -> None:
    path = shutil.which(program)
    if path is None:
        raise InfrastructureError(
            f"{program} is not installed, and the inference log is a PostgreSQL database",
            hint="install PostgreSQL's client programs, of the server's version or a newer one (Debian: postgresql-client)",
        )
    finished = subprocess.run(  # a program of PostgreSQL, and arguments that we build
        [path, *arguments],
        env={**environment, **libpq_environment(url)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if finished.returncode != 0:
        reason = (finished.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[0]
        raise InfrastructureError(
            f"{program} of {file} failed: {reason[:300]}",
            hint=f"{program} ended with exit code {finished.returncode}; check that the server answers, your rights and the free space",
        )
