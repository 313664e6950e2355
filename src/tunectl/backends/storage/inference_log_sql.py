"""The live store on SQLite (one host) or PostgreSQL (several): ``inference_log/log_store.py`` on SQLAlchemy Core.

A transaction that has returned is on the disk, on both. What SQLite deletes is overwritten with zeros.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from tunectl.artifacts import lock
from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.backends.storage import inference_log_schema
from tunectl.core.errors import DataError, InfrastructureError, TunectlError
from tunectl.core.optional import import_optional
from tunectl.inference_log.log_store import (
    Counts,
    ErasureResult,
    FinishedRequest,
    LogEntry,
    LogEvent,
    RequestOutcome,
    TimeWindow,
    WriteOutcome,
)
from tunectl.inference_log.log_writer import unknown_record

PAGE: Final = 500
"""Rows of one page of a long read, or of one step of a deletion."""
TEXT_OF_EXCHANGE: Final = {"request": None, "response": None, "session": None, "user_hash": None}
TEXT_OF_FEEDBACK: Final = {"value": None, "annotator": None}


@contextmanager
def open_log(url: str, root: Path, *, serving: bool = False) -> Iterator[SqlInferenceLog]:
    """The store at ``url``, made where it is absent. ``serving``: this process is the server that writes to it.

    Raises  InfrastructureError when the database says no, or when another server writes to the same SQLite file;
            UsageError for another kind of database; MissingExtraError when a driver is not installed.
    """
    file = inference_log_schema.database_file(url, root)
    if not serving or file is None:
        with _closing(SqlInferenceLog(url, root)) as store:
            yield store
        return
    busy = f"{file}: another server writes to this live store"
    hint = "stop it, give this one another inference_log.url, or let both use PostgreSQL"
    with (
        lock.file_lock(file.with_name(file.name + ".lock"), "tunectl serve", busy=busy, hint=hint),
        _closing(SqlInferenceLog(url, root)) as store,
    ):
        yield store


@contextmanager
def _closing(store: SqlInferenceLog) -> Iterator[SqlInferenceLog]:
    try:
        yield store
    finally:
        store.close()


class SqlInferenceLog:
    """See ``inference_log.log_store.InferenceLog``; made by ``open_log``."""

    def __init__(self, url: str, root: Path) -> None:
        self._sa = import_optional("sqlalchemy", extra="inference-log")
        self._tables = inference_log_schema.tables()
        self._engine = inference_log_schema.engine(url, root)
        dialect = import_optional(f"sqlalchemy.dialects.{self._engine.dialect.name}", extra="inference-log")
        self._new = {
            table.name: dialect.insert(table).on_conflict_do_nothing(index_elements=["id"]).returning(table.c.id)
            for table in self._tables.metadata.tables.values()
        }
        with self._transaction() as connection:
            if self._engine.dialect.name == "postgresql":  # two that start at once would both make the tables
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7846273541)")
            self._tables.metadata.create_all(connection)

    @contextmanager
    def _transaction(self, *, writes: bool = True) -> Iterator[Any]:
        """One transaction; errors of the database become ours."""
        with self._errors(), self._engine.connect().execution_options(writes=writes) as connection, connection.begin():
            yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        errors = self._sa.exc
        try:
            yield
        except errors.SQLAlchemyError as error:
            if self._misfit(error):
                raise DataError(f"a row does not fit the live store: {type(error).__name__}") from error
            raise self._wrap_database_error(error) from error

    def _misfit(self, error: Any) -> bool:
        """Whether a row is at fault, not the database: a value of a wrong type, too large, without a time zone."""
        errors = self._sa.exc
        if not isinstance(error, errors.DBAPIError):
            return isinstance(error, errors.StatementError)
        sqlite = self._engine.dialect.name == "sqlite"
        kinds = (errors.DataError, errors.IntegrityError, errors.ProgrammingError)
        return isinstance(error, (*kinds, errors.InterfaceError) if sqlite else kinds)

    def _wrap_database_error(self, error: Any) -> InfrastructureError:
        """The database's refusal: its own first line, never the statement or the values."""
        reason = (str(getattr(error, "orig", None) or type(error).__name__).splitlines() or [type(error).__name__])[0]
        return InfrastructureError(
            f"live store {self._engine.url.render_as_string(hide_password=True)}: {reason}",
            hint="check the free space and the rights of that file, or the server",
        )

    def write(self, entries: Sequence[LogEntry]) -> list[WriteOutcome]:
        with self._transaction() as connection:
            return [self._write(connection, entry) for entry in entries]

    def _write(self, connection: Any, entry: LogEntry) -> WriteOutcome:
        if isinstance(entry, FinishedRequest):
            return self._finish(connection, entry)
        if isinstance(entry, InferenceRecord):
            return self._add(connection, self._tables.exchanges, entry)
        return self._opinion(connection, entry)

    def _add(self, connection: Any, table: Any, row: Any) -> WriteOutcome:
        written = connection.execute(self._new[table.name], inference_log_schema.to_row(row)).first()
        return "known" if written is None else "new"

    def _finish(self, connection: Any, entry: FinishedRequest) -> WriteOutcome:
        table = self._tables.exchanges
        state = self._state(connection, entry.id)
        if state is None:
            return "unknown"
        if state.finished_at is not None:
            return "known"
        values = inference_log_schema.to_row(entry.finish)
        if state.forgotten_at is not None:
            values["response"] = None
        connection.execute(self._sa.update(table).where(table.c.id == entry.id).values(**values))
        return "new"

    def _state(self, connection: Any, name: str) -> Any:
        """Whether an exchange is finished or forgotten; held against others until the transaction ends."""
        table = self._tables.exchanges
        asked = self._sa.select(table.c.finished_at, table.c.forgotten_at).where(table.c.id == name).with_for_update()
        return connection.execute(asked).first()

    def _opinion(self, connection: Any, feedback: Feedback) -> WriteOutcome:
        state = self._state(connection, feedback.exchange_id)
        if state is None or not self._knows_other(connection, feedback):
            return "unknown"
        if state.forgotten_at is not None:
            feedback = replace(feedback, **TEXT_OF_FEEDBACK)
        return self._add(connection, self._tables.feedback, feedback)

    def _knows_other(self, connection: Any, feedback: Feedback) -> bool:
        """Whether the other exchange of a preference is there; what is no id is never kept as one."""
        if feedback.kind != "preference" or feedback.value is None:
            return True
        c = self._tables.exchanges.c
        return connection.execute(self._sa.select(c.id).where(c.id == feedback.value["other"])).first() is not None

    def start_request(self, exchange: InferenceRecord) -> None:
        self.write([exchange])

    def finish(self, name: str, finish: RequestOutcome) -> None:
        if self.write([FinishedRequest(name, finish)]) == ["unknown"]:
            raise unknown_record(name)

    def feedback(self, feedback: Feedback) -> bool:
        outcome = self.write([feedback])[0]
        if outcome == "unknown":
            raise unknown_record(feedback)
        return outcome == "new"

    def _read(self, asked: Any) -> list[Any]:
        with self._transaction(writes=False) as connection:
            return list(connection.execute(asked))

    def exchange(self, name: str) -> InferenceRecord | None:
        found = self._read(self._sa.select(self._tables.exchanges).where(self._tables.exchanges.c.id == name))
        return inference_log_schema.from_row(found[0], InferenceRecord) if found else None

    def find_ids_by_prefix(self, name: str) -> list[str]:
        column = self._tables.exchanges.c.id
        begins = column.startswith(name, autoescape=True)
        return [row.id for row in self._read(self._sa.select(column).where(begins).order_by(column).limit(4))]

    def exchanges(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        release: str | None = None,
        arm: str | None = None,
        user_hash: str | None = None,
        forgotten: bool = False,
    ) -> Iterator[InferenceRecord]:
        asked = self._select_inferences(since, until, release, arm)
        c = self._tables.exchanges.c
        if user_hash is not None:
            asked = asked.where(c.user_hash == user_hash)
        if not forgotten:
            asked = asked.where(c.forgotten_at.is_(None))
        for row in self._pages(asked):
            yield inference_log_schema.from_row(row, InferenceRecord)

    def newest(
        self,
        number: int,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        release: str | None = None,
        arm: str | None = None,
    ) -> list[InferenceRecord]:
        c = self._tables.exchanges.c
        asked = self._select_inferences(since, until, release, arm).where(c.forgotten_at.is_(None))
        asked = asked.order_by(c.accepted_at.desc(), c.id.desc()).limit(number)
        return [inference_log_schema.from_row(row, InferenceRecord) for row in self._read(asked)]

    def _select_inferences(
        self, since: datetime | None, until: datetime | None, release: str | None, arm: str | None
    ) -> Any:
        c = self._tables.exchanges.c
        asked = self._sa.select(self._tables.exchanges).where(*self._between(c.accepted_at, since, until))
        for column, wanted in ((c.release, release), (c.arm, arm)):
            if wanted is not None:
                asked = asked.where(column == wanted)
        return asked

    def _pages(self, asked: Any) -> Iterator[Any]:
        """Rows of exchanges in order, a page a transaction."""
        c = self._tables.exchanges.c
        asked = asked.order_by(c.accepted_at, c.id).limit(PAGE)
        found = self._read(asked)
        while found:
            yield from found
            after = self._sa.tuple_(c.accepted_at, c.id) > self._sa.tuple_(
                self._sa.literal(found[-1].accepted_at, c.accepted_at.type), self._sa.literal(found[-1].id)
            )
            found = self._read(asked.where(after)) if len(found) == PAGE else []

    def _between(self, column: Any, since: datetime | None, until: datetime | None) -> list[Any]:
        return [*([] if since is None else [column >= since]), *([] if until is None else [column < until])]

    def feedback_of(self, exchange_ids: Sequence[str]) -> dict[str, list[Feedback]]:
        table, said = self._tables.feedback, defaultdict(list)
        for some in _in_pages(exchange_ids):
            asked = self._sa.select(table).where(table.c.exchange_id.in_(some)).order_by(table.c.at, table.c.id)
            for row in self._read(asked):
                said[row.exchange_id].append(inference_log_schema.from_row(row, Feedback))
        return dict(said)

    def tombstones(self) -> Iterator[str]:
        c = self._tables.exchanges.c
        for row in self._pages(self._sa.select(c.id, c.accepted_at).where(c.forgotten_at.is_not(None))):
            yield row.id

    def counts(self, since: datetime | None = None, until: datetime | None = None) -> Counts:
        sa, c, said = self._sa, self._tables.exchanges.c, self._tables.feedback
        between = self._between(c.accepted_at, since, until)
        count = sa.func.count
        numbers = sa.select(
            count(c.id),
            count(c.finished_at),
            count(c.forgotten_at),
            count(c.user_hash.distinct()),
            sa.func.min(c.accepted_at, type_=c.accepted_at.type),
            sa.func.max(c.accepted_at, type_=c.accepted_at.type),
        ).where(*between)
        kinds = (
            sa.select(said.c.kind, count(said.c.id))
            .join_from(said, self._tables.exchanges, said.c.exchange_id == c.id)
            .where(*between)
            .group_by(said.c.kind)
            .order_by(said.c.kind)
        )
        exchanges, finished, forgotten, users, first, last = self._read(numbers)[0]
        return Counts(exchanges, finished, forgotten, users, {row[0]: row[1] for row in self._read(kinds)}, first, last)

    def erase(self, user_hash: str) -> ErasureResult:
        """See ``InferenceLog.erase``.

        Exchanges come first: what is being said about them at this moment is waited for, and what comes later finds them
        forgotten.
        """
        sa, table, said = self._sa, self._tables.exchanges, self._tables.feedback
        now = datetime.now(UTC)
        gone = sa.update(table).where(table.c.user_hash == user_hash).values(**TEXT_OF_EXCHANGE, forgotten_at=now)
        told = sa.or_(said.c.value.is_not(None), said.c.annotator.is_not(None))
        opinions = 0
        with self._transaction() as connection:
            mine = [row.id for row in connection.execute(gone.returning(table.c.id))]
            about = [said.c.annotator == user_hash, *(said.c.exchange_id.in_(some) for some in _in_pages(mine))]
            for which in about:
                blank = sa.update(said).where(which, told).values(**TEXT_OF_FEEDBACK)
                opinions += connection.execute(blank).rowcount
            found = ErasureResult(len(mine), opinions)
            event = LogEvent(uuid.uuid4().hex, now, "forgotten", found._asdict())
            self._add(connection, self._tables.events, event)
        self._checkpoint()
        return found

    def retain(self, before: datetime) -> int:
        """See ``InferenceLog.retain``. Tombstones stay: they hold no text, and later builds need them."""
        sa, table, said = self._sa, self._tables.exchanges, self._tables.feedback
        old = table.c.accepted_at < before, table.c.forgotten_at.is_(None)
        some = sa.select(table.c.id).where(*old).limit(PAGE)
        total = 0
        while names := [row.id for row in self._read(some)]:
            gone = sa.delete(table).where(table.c.id.in_(names), *old).returning(table.c.id)
            with (
                self._transaction() as connection
            ):  # in steps, so that the server gets its turn; exchanges first, as above
                deleted = [row.id for row in connection.execute(gone)]
                connection.execute(sa.delete(said).where(said.c.exchange_id.in_(deleted)))
                total += len(deleted)
        self.add_event(
            LogEvent(
                uuid.uuid4().hex, datetime.now(UTC), "retained", {"before": before.isoformat(), "exchanges": total}
            )
        )
        self._checkpoint()
        return total

    def purge(self) -> None:
        """See ``InferenceLog.purge``. On PostgreSQL it locks both tables for as long as they are copied."""
        postgres = self._engine.dialect.name == "postgresql"
        with self._errors(), self._engine.connect() as connection:
            driver = connection.connection.driver_connection  # VACUUM runs outside of transactions
            if postgres:
                driver.autocommit = True
            try:
                driver.execute("VACUUM FULL exchanges, feedback" if postgres else "VACUUM")
            except Exception as error:
                raise self._wrap_database_error(self._sa.exc.DBAPIError("VACUUM", None, error)) from error
            finally:
                if postgres:
                    driver.autocommit = False
        self._checkpoint()

    def _checkpoint(self) -> None:
        """Empty SQLite's journal into the database, where nobody reads it just now: it may hold what was deleted."""
        if self._engine.dialect.name == "sqlite":
            with suppress(TunectlError), self._errors(), self._engine.connect() as connection:
                connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    def add_window(self, window: TimeWindow) -> bool:
        return self._keep(self._tables.windows, window)

    def windows(self, since: datetime | None = None) -> list[TimeWindow]:
        table = self._tables.windows
        asked = self._sa.select(table).where(*self._between(table.c.made_at, since, None))
        return [
            inference_log_schema.from_row(row, TimeWindow)
            for row in self._read(asked.order_by(table.c.made_at, table.c.id))
        ]

    def add_event(self, event: LogEvent) -> bool:
        return self._keep(self._tables.events, event)

    def _keep(self, table: Any, row: TimeWindow | LogEvent) -> bool:
        with self._transaction() as connection:
            return self._add(connection, table, row) == "new"

    def events(self, since: datetime | None = None, kind: str | None = None) -> list[LogEvent]:
        table = self._tables.events
        asked = self._sa.select(table).where(*self._between(table.c.at, since, None))
        if kind is not None:
            asked = asked.where(table.c.kind == kind)
        return [
            inference_log_schema.from_row(row, LogEvent) for row in self._read(asked.order_by(table.c.at, table.c.id))
        ]

    def close(self) -> None:
        self._engine.dispose()


def _in_pages(names: Sequence[str]) -> Iterator[list[str]]:
    """As many at once as one statement takes."""
    return (list(names[start : start + PAGE]) for start in range(0, len(names), PAGE))
