"""Check an inference log for damage: ``tunectl log verify`` checks everything, a server checks its file after an unclean stop."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.backends.storage import inference_log_backup, inference_log_migration, inference_log_schema
from tunectl.core.errors import ArtifactError
from tunectl.core.optional import import_optional
from tunectl.core.url_credentials import hide_credentials

MAX_FINDINGS: Final = 20
"""Most findings of one kind that are listed."""
_HINT: Final = "stop what uses it, keep that file aside, and restore a backup: tunectl restore DIR; all findings: tunectl log verify"


class LogCheck(Struct, frozen=True):
    """Result of ``tunectl log verify``: the version of the tables (``schema``), the rows counted, and the problems found."""

    database: str
    """Address of the database, without a password."""
    schema: str | None
    rows: dict[str, int]
    """Number of rows by table."""
    problems: list[str]


def verify(url: str, root: Path) -> LogCheck:
    """Check a whole inference log: the pages of an SQLite file, every row, and whether the inferences of feedback exist.

    ``root`` is the folder from which a relative path in ``url`` starts. Returns the counts and the problems.
    Servers may write meanwhile. Raises  InfrastructureError where the database cannot be read.
    """
    file = inference_log_schema.database_file(url, root)
    problems = [] if file is None else _list_damage(file, quick=False)
    engine = inference_log_schema.engine(url, root)
    shown_url = hide_credentials(engine.url.render_as_string(hide_password=True))
    if problems:
        engine.dispose()
        return LogCheck(shown_url, None, {}, problems)  # rows of a damaged file are not checked
    try:
        with inference_log_schema.translate_errors(engine), engine.connect() as connection, connection.begin():
            version = inference_log_migration.read_version(connection)
            if version != inference_log_migration.CURRENT:
                return LogCheck(shown_url, version, {}, [f"schema version {version}: run tunectl log migrate first"])
            rows: dict[str, int] = {}
            for table in inference_log_schema.tables().metadata.tables.values():
                rows[table.name], wrong = _read_rows(connection, table)
                problems += wrong
            problems += _find_orphans(connection)
    finally:
        engine.dispose()
    return LogCheck(shown_url, version, rows, problems)


def _list_damage(file: Path, *, quick: bool) -> list[str]:
    try:
        with closing(sqlite3.connect(file, timeout=inference_log_schema.BUSY)) as connection:
            return inference_log_backup.find_damage(connection, quick=quick)
    except sqlite3.DatabaseError as error:
        return [str(error)]


def _read_rows(connection: Any, table: Any) -> tuple[int, list[str]]:
    """Count the rows of a table, and name those whose JSON cannot be read."""
    sa = import_optional("sqlalchemy", extra="inference-log")
    bodies = [name for name in inference_log_schema.JSON if name in table.c]
    query = sa.select(table.c.id, *(table.c[name] for name in bodies))
    count, wrong = 0, list[str]()
    for row in connection.execution_options(stream_results=True).execute(query):
        count += 1
        for name, text in zip(bodies, row[1:], strict=True):
            if text is not None and not _is_json(text) and len(wrong) < MAX_FINDINGS:
                wrong.append(f"{table.name} {row[0]}: {name} is not JSON")
    return count, wrong


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except atomic_io.NOT_JSON:
        return False
    return True


def _find_orphans(connection: Any) -> list[str]:
    """Return feedback about inferences that do not exist."""
    sa, tables = import_optional("sqlalchemy", extra="inference-log"), inference_log_schema.tables()
    feedback, inferences = tables.feedback, tables.inferences
    orphans = sa.select(feedback.c.id, feedback.c.inference_id).where(
        ~sa.exists().where(inferences.c.id == feedback.c.inference_id)
    )
    return [
        f"feedback {row[0]} is about inference {row[1]}, which does not exist"
        for row in connection.execute(orphans.limit(MAX_FINDINGS))
    ]


@contextmanager
def watch_stop(file: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Check an SQLite file if its server did not stop properly, and record that it is in use while the block runs.

    The caller must hold the lock of the file. ``say`` is called with a line about the check.
    Raises  ArtifactError where the file is damaged, so that no server starts on it.
    """
    mark = file.with_name(f"{file.name}.open")
    if mark.exists() and file.is_file():
        say(f"{file}: its server did not stop by itself; the file is checked")
        problems = _list_damage(file, quick=True)
        if problems:
            raise ArtifactError(f"{file} is damaged: {problems[0]}", hint=_HINT)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        atomic_io.fsync_directory(mark.parent)
    except OSError as error:
        raise atomic_io.write_error(mark, error) from error
    yield
    mark.unlink(missing_ok=True)
