"""The inference log on SQLite (one host) or PostgreSQL (several): ``inference_log/log_store.py`` on SQLAlchemy Core.

A transaction that has returned is on the disk, in both databases. What SQLite deletes is overwritten with zeros.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from tunectl.artifacts import lock
from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.backends.storage import (
    inference_log_check,
    inference_log_migration,
    inference_log_schema,
    window_segments,
)
from tunectl.core import logging_setup
from tunectl.core.errors import DataError, TunectlError
from tunectl.core.hashing import hash_to_id
from tunectl.core.optional import import_optional
from tunectl.inference_log import project_folder
from tunectl.inference_log.log_store import (
    Counts,
    ErasureResult,
    FinishedRequest,
    LogEntry,
    LogEvent,
    TimeWindow,
    WriteOutcome,
)

_log = logging_setup.get_logger(__name__)
PAGE: Final = 500
"""Rows of one page of a long read, or of one step of a deletion."""
TEXT_OF_INFERENCE: Final = {"request": None, "response": None, "session": None, "user_hash": None, "key_hash": None}
TEXT_OF_FEEDBACK: Final = {"value": None, "annotator": None, "key_hash": None}


@contextmanager
def open_log(url: str, root: Path, *, serving: bool = False) -> Iterator[SqlInferenceLog]:
    """Yield the inference log at ``url``, created if absent; ``serving``: this process is the server that writes to it.

    A SQLite file of an older version is copied and migrated first.
    Raises  InfrastructureError when the database refuses, when another server writes to the same SQLite file, or when
            ``tunectl log migrate`` has to come first; ArtifactError when the last server was killed and left a damaged file;
            UsageError for another kind of database; MissingExtraError when a driver is not installed.
    """
    project_folder.require_new_folder(root)
    file = inference_log_schema.database_file(url, root)
    inference_log_schema.close_to_others(file, root)
    with ExitStack() as stack:
        if serving and file is not None:
            busy = f"{file}: another server writes to this inference log"
            hint = "stop it, give this one another inference_log.url, or let both use PostgreSQL"
            path = inference_log_migration.lock_path(file)
            stack.enter_context(lock.file_lock(path, "tunectl serve", busy=busy, hint=hint))
            stack.enter_context(inference_log_check.watch_stop(file, _log.warning))
        inference_log_migration.migrate_file(url, root, locked=serving)
        yield stack.enter_context(closing(SqlInferenceLog(url, root)))


class SqlInferenceLog:
    """The inference log in a SQL database (``inference_log.log_store.InferenceLog``); made by ``open_log``, after locks and migration."""

    def __init__(self, url: str, root: Path) -> None:
        self._sa = import_optional("sqlalchemy", extra="inference-log")
        self._tables = inference_log_schema.tables()
        self._engine = inference_log_schema.engine(url, root)
        self._file = inference_log_schema.database_file(url, root)
        dialect = import_optional(f"sqlalchemy.dialects.{self._engine.dialect.name}", extra="inference-log")
        self._new = {
            table.name: dialect.insert(table).on_conflict_do_nothing(index_elements=["id"]).returning(table.c.id)
            for table in self._tables.metadata.tables.values()
        }
        try:
            with self._transaction() as connection:
                inference_log_migration.prepare(connection, self._tables)
        except BaseException:
            self.close()  # an open connection would look like a process that still uses the database
            raise

    @contextmanager
    def _transaction(self, *, writes: bool = True) -> Iterator[Any]:
        """Run one transaction; translate errors of the database."""
        with self._errors(), self._engine.connect().execution_options(writes=writes) as connection, connection.begin():
            yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        errors = self._sa.exc
        try:
            yield
        except errors.SQLAlchemyError as error:
            if self._is_row_error(error):
                raise DataError(f"a bug: a row does not fit the inference log: {type(error).__name__}") from error
            raise inference_log_schema.wrap_error(self._engine, error) from error

    def _is_row_error(self, error: Any) -> bool:
        """Return whether a row caused an error, not the database: a value of a wrong type, too large, without a time zone."""
        errors = self._sa.exc
        if not isinstance(error, errors.DBAPIError):
            return isinstance(error, errors.StatementError)
        sqlite = self._engine.dialect.name == "sqlite"
        kinds = (errors.DataError, errors.IntegrityError, errors.ProgrammingError)
        return isinstance(error, (*kinds, errors.InterfaceError) if sqlite else kinds)

    def write(self, entries: Sequence[LogEntry]) -> list[WriteOutcome]:
        with self._transaction() as connection:
            return [self._write(connection, entry) for entry in entries]

    def _write(self, connection: Any, entry: LogEntry) -> WriteOutcome:
        if isinstance(entry, FinishedRequest):
            return self._finish(connection, entry)
        if isinstance(entry, InferenceRecord):
            return self._add(connection, self._tables.inferences, entry)
        return self._insert_feedback(connection, entry)

    def _add(self, connection: Any, table: Any, row: Any) -> WriteOutcome:
        new_row = connection.execute(self._new[table.name], inference_log_schema.to_row(row)).first()
        return "known" if new_row is None else "new"

    def _finish(self, connection: Any, entry: FinishedRequest) -> WriteOutcome:
        table = self._tables.inferences
        state = self._state(connection, entry.id)
        if state is None:
            return "unknown"
        if state.finished_at is not None:
            return "known"
        values = inference_log_schema.to_row(entry.finish)
        if state.erased_at is not None:
            values["response"] = None
        connection.execute(self._sa.update(table).where(table.c.id == entry.id).values(**values))
        return "new"

    def _state(self, connection: Any, name: str) -> Any:
        """Return whether an inference is finished or erased; its row is locked until the transaction ends."""
        table = self._tables.inferences
        query = self._sa.select(table.c.finished_at, table.c.erased_at).where(table.c.id == name).with_for_update()
        return connection.execute(query).first()

    def _insert_feedback(self, connection: Any, feedback: Feedback) -> WriteOutcome:
        state = self._state(connection, feedback.inference_id)
        if state is None or not self._has_other_inference(connection, feedback):
            return "unknown"
        if state.erased_at is not None:
            feedback = replace(feedback, **TEXT_OF_FEEDBACK, erased_at=state.erased_at)
        table, key = self._tables.feedback, feedback.key_hash
        outcome = self._add(connection, table, feedback)
        query = self._sa.select(table.c.key_hash).where(table.c.id == feedback.id)
        if outcome == "new" or key is None or connection.execute(query).scalar() in (None, key):
            return outcome
        # the id of another key's feedback: whoever guesses ids must not keep others from using them
        return self._add(connection, table, replace(feedback, id=f"fb-{hash_to_id(feedback.id, key, size=16)}"))

    def _has_other_inference(self, connection: Any, feedback: Feedback) -> bool:
        """Return whether the other inference of a preference exists; a text that is no id is never stored as one."""
        if feedback.kind != "preference" or feedback.value is None:
            return True
        c = self._tables.inferences.c
        return connection.execute(self._sa.select(c.id).where(c.id == feedback.value["other"])).first() is not None

    def _read(self, query: Any) -> list[Any]:
        with self._transaction(writes=False) as connection:
            return list(connection.execute(query))

    def inference(self, name: str) -> InferenceRecord | None:
        result = self._read(self._sa.select(self._tables.inferences).where(self._tables.inferences.c.id == name))
        return inference_log_schema.from_row(result[0], InferenceRecord) if result else None

    def find_ids_by_prefix(self, name: str) -> list[str]:
        column = self._tables.inferences.c.id
        begins = column.startswith(name, autoescape=True)
        return [row.id for row in self._read(self._sa.select(column).where(begins).order_by(column).limit(4))]

    def inferences(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        release: str | None = None,
        variant: str | None = None,
        user_hash: str | None = None,
        erased: bool = False,
    ) -> Iterator[InferenceRecord]:
        statement = self._select_inferences(since, until, release=release, variant=variant, user_hash=user_hash)
        if not erased:
            statement = statement.where(self._tables.inferences.c.erased_at.is_(None))
        for row in self._pages(statement):
            yield inference_log_schema.from_row(row, InferenceRecord)

    def newest(
        self,
        number: int,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        release: str | None = None,
        variant: str | None = None,
        user_hash: str | None = None,
    ) -> list[InferenceRecord]:
        c = self._tables.inferences.c
        query = self._select_inferences(since, until, release=release, variant=variant, user_hash=user_hash).where(
            c.erased_at.is_(None)
        )
        query = query.order_by(c.accepted_at.desc(), c.id.desc()).limit(number)
        return [inference_log_schema.from_row(row, InferenceRecord) for row in self._read(query)]

    def _select_inferences(self, since: datetime | None, until: datetime | None, **equal: str | None) -> Any:
        """Return the query of the rows accepted in [since, until) that have these values in their columns; None: any."""
        c = self._tables.inferences.c
        query = self._sa.select(self._tables.inferences).where(*self._limit_time(c.accepted_at, since, until))
        for name, value in equal.items():
            if value is not None:
                query = query.where(c[name] == value)
        return query

    def _pages(self, query: Any) -> Iterator[Any]:
        """Yield rows of inferences in order, one page per transaction."""
        c = self._tables.inferences.c
        query = query.order_by(c.accepted_at, c.id).limit(PAGE)
        result = self._read(query)
        while result:
            yield from result
            after = self._sa.tuple_(c.accepted_at, c.id) > self._sa.tuple_(
                self._sa.literal(result[-1].accepted_at, c.accepted_at.type), self._sa.literal(result[-1].id)
            )
            result = self._read(query.where(after)) if len(result) == PAGE else []

    def _limit_time(self, column: Any, since: datetime | None, until: datetime | None) -> list[Any]:
        return [*([] if since is None else [column >= since]), *([] if until is None else [column < until])]

    def feedback_of(self, inference_ids: Sequence[str]) -> dict[str, list[Feedback]]:
        table, feedback = self._tables.feedback, defaultdict(list)
        received = self._sa.func.coalesce(table.c.received_at, table.c.created_at)  # not a time that clients send
        for some in _in_pages(inference_ids):
            query = self._sa.select(table).where(table.c.inference_id.in_(some)).order_by(received, table.c.id)
            for row in self._read(query):
                feedback[row.inference_id].append(inference_log_schema.from_row(row, Feedback))
        return dict(feedback)

    def last_uses(self) -> dict[str, datetime]:
        last_use: dict[str, datetime] = {}
        for table, at in ((self._tables.inferences, "accepted_at"), (self._tables.feedback, "received_at")):
            key, last = table.c.key_hash, self._sa.func.max(table.c[at], type_=table.c[at].type)
            for name, when in self._read(
                self._sa.select(key, last).where(key.is_not(None), table.c[at].is_not(None)).group_by(key)
            ):
                last_use[name] = max(when, last_use.get(name, when))
        return last_use

    def tombstones(self) -> Iterator[str]:
        c = self._tables.inferences.c
        for row in self._pages(self._sa.select(c.id, c.accepted_at).where(c.erased_at.is_not(None))):
            yield row.id

    def counts(self, since: datetime | None = None, until: datetime | None = None) -> Counts:
        sa, c, feedback = self._sa, self._tables.inferences.c, self._tables.feedback
        between = self._limit_time(c.accepted_at, since, until)
        count = sa.func.count
        numbers = sa.select(
            count(c.id),
            count(c.finished_at),
            count(c.erased_at),
            count(c.user_hash.distinct()),
            sa.func.min(c.accepted_at, type_=c.accepted_at.type),
            sa.func.max(c.accepted_at, type_=c.accepted_at.type),
        ).where(*between)
        kinds = (
            sa.select(feedback.c.kind, count(feedback.c.id))
            .join_from(feedback, self._tables.inferences, feedback.c.inference_id == c.id)
            .where(*between)
            .group_by(feedback.c.kind)
            .order_by(feedback.c.kind)
        )
        inferences, finished, erased, users, first, last = self._read(numbers)[0]
        return Counts(inferences, finished, erased, users, {row[0]: row[1] for row in self._read(kinds)}, first, last)

    def erase(self, user_hash: str, *, by_key: bool = False, until: datetime | None = None) -> ErasureResult:
        """Erase the texts of the user (``by_key``: of the API key) whose hash is given, received by ``until`` (None: all); return the counts."""
        sa, table, feedback = self._sa, self._tables.inferences, self._tables.feedback
        now = datetime.now(UTC)
        keys = [item.c.key_hash == user_hash if by_key else sa.false() for item in (table, feedback)]
        owner = sa.or_(table.c.user_hash == user_hash, keys[0])
        author = sa.or_(feedback.c.annotator == user_hash, keys[1])
        if until is not None:
            owner = sa.and_(owner, table.c.accepted_at <= until)
            author = sa.and_(author, sa.func.coalesce(feedback.c.received_at, feedback.c.created_at) <= until)
        erasure = sa.update(table).where(owner, table.c.erased_at.is_(None)).values(**TEXT_OF_INFERENCE, erased_at=now)
        blank = sa.update(feedback).where(feedback.c.erased_at.is_(None)).values(**TEXT_OF_FEEDBACK, erased_at=now)
        feedback_count = 0
        with self._transaction() as connection:
            # Inferences first: feedback that is being written is waited for, and later feedback finds them erased.
            erased_ids = [row.id for row in connection.execute(erasure.returning(table.c.id))]
            for which in [author, *(feedback.c.inference_id.in_(some) for some in _in_pages(erased_ids))]:
                feedback_count += connection.execute(blank.where(which)).rowcount
            result = ErasureResult(len(erased_ids), feedback_count)
            facts = {"inferences": result.inferences, "feedback": result.feedback}
            window_segments.clear_erased(sa, self._tables, connection)
            self._add(connection, self._tables.events, LogEvent(uuid.uuid4().hex, now, "erased", facts))
        return result._replace(journal_busy=not self._discard_deleted())

    def retain(self, before: datetime) -> int:
        """Delete inferences older than ``before``; return how many. Erased rows stay: they hold no text, and later builds need them."""
        sa, table, feedback = self._sa, self._tables.inferences, self._tables.feedback
        old = table.c.accepted_at < before, table.c.erased_at.is_(None)
        some = sa.select(table.c.id).where(*old).limit(PAGE)
        total = 0
        while names := [row.id for row in self._read(some)]:
            deletion = sa.delete(table).where(table.c.id.in_(names), *old).returning(table.c.id)
            with self._transaction() as connection:  # in steps, so that a server can write in between; inferences first
                deleted = [row.id for row in connection.execute(deletion)]
                connection.execute(sa.delete(feedback).where(feedback.c.inference_id.in_(deleted)))
                total += len(deleted)
        with self._transaction() as connection:
            window_segments.clear_older(sa, self._tables, connection, before)
        self.add_event(
            LogEvent(uuid.uuid4().hex, datetime.now(UTC), "pruned", {"before": before.isoformat(), "inferences": total})
        )
        self._discard_deleted()
        return total

    def purge(self) -> bool:
        """Overwrite deleted rows on the disk; return False if some remain in SQLite's journal. PostgreSQL locks its tables meanwhile."""
        with self._transaction() as connection:
            window_segments.clear_erased(self._sa, self._tables, connection)
        postgres = self._engine.dialect.name == "postgresql"
        with self._errors(), self._engine.connect() as connection:
            driver = connection.connection.driver_connection  # VACUUM runs outside of transactions
            if postgres:
                driver.autocommit = True
            try:
                driver.execute("VACUUM FULL inferences, feedback, windows" if postgres else "VACUUM")
            except Exception as error:
                raise inference_log_schema.wrap_error(
                    self._engine, self._sa.exc.DBAPIError("VACUUM", None, error)
                ) from error
            finally:
                if postgres:
                    driver.autocommit = False
        return self._discard_deleted()

    def _discard_deleted(self) -> bool:
        """Delete deleted rows from SQLite's other files as well: the copy of a migration, and the journal.

        The journal is written into the database where nobody reads it now; False where somebody does.
        """
        if self._file is None:
            return True
        for copy in inference_log_migration.copies(self._file):
            copy.unlink(missing_ok=True)
        with suppress(TunectlError), self._errors(), self._engine.connect() as connection:
            busy, *_ = connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        return False

    def add_window(self, window: TimeWindow) -> bool:
        return self._keep(self._tables.windows, window)

    def windows(self, since: datetime | None = None) -> list[TimeWindow]:
        table = self._tables.windows
        query = self._sa.select(table).where(*self._limit_time(table.c.created_at, since, None))
        return [
            inference_log_schema.from_row(row, TimeWindow)
            for row in self._read(query.order_by(table.c.created_at, table.c.id))
        ]

    def add_event(self, event: LogEvent) -> bool:
        return self._keep(self._tables.events, event)

    def _keep(self, table: Any, row: TimeWindow | LogEvent) -> bool:
        with self._transaction() as connection:
            return self._add(connection, table, row) == "new"

    def events(self, since: datetime | None = None, kind: str | None = None) -> list[LogEvent]:
        table = self._tables.events
        query = self._sa.select(table).where(*self._limit_time(table.c.created_at, since, None))
        if kind is not None:
            query = query.where(table.c.kind == kind)
        return [
            inference_log_schema.from_row(row, LogEvent)
            for row in self._read(query.order_by(table.c.created_at, table.c.id))
        ]

    def close(self) -> None:
        self._engine.dispose()


def _in_pages(names: Sequence[str]) -> Iterator[list[str]]:
    """Split ``names`` into pages of as many as one statement takes."""
    return (list(names[start : start + PAGE]) for start in range(0, len(names), PAGE))
