"""Writer of the inference log: redaction, group commit, and retries while the disk is full.

One thread writes. Rows that arrive during its fsync go into its next transaction (group commit), so a hundred concurrent requests
cost one fsync, and a single one has no added delay. Callers are coroutines; they wait until their row is durable, at most
``timeout_seconds`` seconds.

Redaction of dense text takes up to 13 s per MB. Keys take turns, and large rows are redacted by a second thread, so that one key's do not
delay the rows of others. Feedback on one inference keeps its order.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from typing import Final, Literal

import msgspec

from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.core import logging_setup
from tunectl.core.errors import DataError, InfrastructureError
from tunectl.inference_log.fair_queue import FairQueue
from tunectl.inference_log.log_store import FinishedRequest, InferenceLog, LogEntry, RequestOutcome, WriteOutcome

DiskFullPolicy = Literal["serve_and_count", "refuse"]
LARGEST_BATCH: Final = 256
"""Most rows of one transaction."""
LARGEST_BATCH_BYTES: Final = 32_768
"""Most bytes that are redacted before one transaction. A larger single row is redacted in the second thread, and no transaction waits for it."""
RETRY: Final = 1.0
"""Seconds between two tries while writing fails and no new row arrives."""
PAUSE: Final = 0.05
"""Seconds between two tries while writing fails and new rows arrive: the disk may work again."""
_ENCODE: Final = msgspec.json.Encoder(enc_hook=repr).encode


class LogWriteError(InfrastructureError):
    """A row could not be made durable, and by the policy the request is refused."""


@dataclass(slots=True)
class _PendingWrite:
    """An entry in the queue, with the future of its caller."""

    entry: LogEntry
    size: int
    """Bytes as JSON; in memory the entry takes a few times as many."""
    key: str | None = None
    """Hash of the API key: the rows of one key take turns with those of others."""
    redacted: Future[None] | None = None
    """Future of a row that the second thread redacts: this time does not count as waiting for the disk."""
    answer: Future[WriteOutcome] = field(default_factory=Future)
    counted: bool = False
    clean: bool = False
    """Whether the entry has been redacted."""


class Writer:
    """Writes entries to an inference log. Call ``accept``, ``finish`` and ``feedback`` in an event loop, the rest in any thread."""

    def __init__(
        self,
        store: InferenceLog,
        redact: Callable[[LogEntry], LogEntry],
        *,
        policy: DiskFullPolicy,
        timeout_seconds: float,
        waiting: int,
        waiting_bytes: float = inf,
        on_error: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Start the threads that redact and write; the queue is empty.

        policy           of ``inference_log.disk_full``: serve_and_count or refuse
        timeout_seconds  seconds that a request waits for its row to be durable
        waiting          most rows in the queue
        waiting_bytes    most bytes (as JSON) in the queue and the running transaction
        on_error         called with the number of further rows that were not durable in time, for ``tunectl_inference_log_errors_total``
        """
        self._store, self._redact, self._policy = store, redact, policy
        self._timeout_seconds, self._most, self._most_bytes, self._on_error = (
            timeout_seconds,
            waiting,
            waiting_bytes,
            on_error,
        )
        self._new: FairQueue[_PendingWrite] = FairQueue()
        self._late: deque[_PendingWrite] = deque()
        self._large: FairQueue[_PendingWrite] = FairQueue()
        self._redacting: _PendingWrite | None = None
        """Large rows, with later feedback on their inferences, and the one that is being redacted."""
        self._queued_bytes = self._writing_bytes = 0
        """Bytes in the queue, and of the running transaction."""
        self._wake = threading.Condition()
        self._closing = False
        self.trouble: str | None = None
        """Why the last transaction failed; None when it went well."""
        self.lost = 0
        """Rows that were dropped because the queue was full."""
        self._thread = threading.Thread(target=self._run, name="inference log", daemon=True)
        self._thread.start()
        threading.Thread(target=self._redact_large, name="inference log redaction", daemon=True).start()

    async def accept(self, inference: InferenceRecord) -> bool:
        """Write a new inference; return True once it is durable, False where it could not be written and the policy is serve_and_count.

        Rows that are lost are counted in the metric of log errors.
        Raises  LogWriteError where it could not be written and the policy is refuse.
        """
        return await self._confirm_write(self.submit(inference))

    async def finish(self, name: str, finish: RequestOutcome, key_hash: str | None = None) -> bool:
        """Write the end of the inference with id ``name``; return True or False as ``accept`` does.

        ``key_hash``: hash of the API key that sent the request, in whose queue the row is.
        Raises  LogWriteError as ``accept``.
        """
        return await self._confirm_write(self.submit(FinishedRequest(name, finish), key_hash))

    async def feedback(self, feedback: Feedback) -> bool:
        """Write feedback; return False where its id is known.

        Raises  DataError for feedback on an unknown inference; LogWriteError where it could not be written, under either policy: the client
                can send it again.
        """
        ticket = self.submit(feedback)
        outcome = await self._wait(ticket)
        if isinstance(outcome, LogWriteError):
            raise outcome
        if outcome == "unknown":
            raise unknown_record(feedback)
        return outcome == "new"

    def submit(self, entry: LogEntry, key_hash: str | None = None) -> _PendingWrite:
        """Queue an entry without waiting; for callers without an event loop. ``key_hash``: hash of the API key, for an entry that has none.

        Returns a ticket whose ``answer``, a ``concurrent.futures.Future``, gives the outcome or raises LogWriteError.
        """
        key = key_hash if isinstance(entry, FinishedRequest) else entry.key_hash
        ticket = _PendingWrite(entry, _size(entry), key)
        ticket.answer.set_running_or_notify_cancel()  # a caller that stops waiting does not cancel the write
        with self._wake:
            if self._closing:
                self._fail(ticket, "the store is closed")
            elif not self._fits(waiting := self._count_waiting(), self._queued_bytes + self._writing_bytes, ticket):
                self._fail(ticket, f"{waiting} rows wait for the disk already")
                self._count_lost(1)
            else:
                self._queue(ticket)
                self._queued_bytes += ticket.size
                self._wake.notify_all()
        return ticket

    def _queue(self, ticket: _PendingWrite) -> None:
        """Queue an entry: after those about the same inference, else with the others of its key."""
        before = None if isinstance(ticket.entry, InferenceRecord) else self._find_waiting(ticket.entry)
        if before is not None:
            ticket.key = before.key
        behind_large = before is not None and before.redacted is not None and not before.redacted.done()
        # An answer shares the placeholders of its question, so that is redacted first
        if behind_large or (ticket.size > LARGEST_BATCH_BYTES and (before is None or before.clean)):
            ticket.redacted = Future()
            ticket.redacted.set_running_or_notify_cancel()
            self._large.append(ticket.key, ticket)
        else:
            self._new.append(ticket.key, ticket)

    def _find_waiting(self, entry: LogEntry) -> _PendingWrite | None:
        """Return a queued entry about the same inference."""
        subject = _subject(entry)
        redacting = [self._redacting] if self._redacting else []
        return next(
            (each for each in chain(redacting, self._large, self._new) if _subject(each.entry) == subject), None
        )

    def _count_waiting(self) -> int:
        return len(self._new) + len(self._late) + len(self._large) + (self._redacting is not None)

    def _redact_large(self) -> None:
        """Redact large rows, one after the other, and queue them for writing."""
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._large or self._closing)
                if not self._large:
                    return
                (ticket,) = self._large.take(1, 0)
                self._redacting = ticket
            ready = self._redact_entry(ticket)
            with self._wake:
                self._redacting = None
                if ready:
                    self._new.append(ticket.key, ticket)
                else:
                    self._queued_bytes -= ticket.size
                if ticket.redacted is not None:
                    ticket.redacted.set_result(None)
                self._wake.notify_all()

    def _fits(self, rows: int, size: int, ticket: _PendingWrite) -> bool:
        """Return whether one more may be queued beside ``rows`` of ``size`` bytes; a single one always may."""
        return rows < self._most and (size == 0 or size + ticket.size <= self._most_bytes)

    def close(self, timeout: float = 10.0) -> bool:
        """Write all queued entries, then stop; return whether everything was written within ``timeout`` seconds. The store stays open."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(timeout)
        waiting = self._count_waiting()
        complete = not self._thread.is_alive() and not waiting
        if not complete:
            reason = self.trouble or "there was no time left"
            logging_setup.get_logger(__name__).error(
                "the inference log is closed and %d rows or more are not in it: %s", waiting, reason
            )
        return complete

    async def _confirm_write(self, ticket: _PendingWrite) -> bool:
        outcome = await self._wait(ticket)
        if isinstance(outcome, LogWriteError) and self._policy == "refuse":
            raise outcome
        return outcome in ("new", "known")

    async def _wait(self, ticket: _PendingWrite) -> WriteOutcome | LogWriteError:
        """Return the outcome, or the error of a row that is not durable in time."""
        if ticket.redacted is not None:
            await asyncio.shield(asyncio.wrap_future(ticket.redacted))
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(ticket.answer)), self._timeout_seconds)
        except TimeoutError:
            with self._wake:
                self._count(ticket)
            return _not_kept(self.trouble or f"the disk took longer than {self._timeout_seconds:g} s")
        except LogWriteError as error:
            return error

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            if batch:
                self._write(batch)

    def _take(self) -> list[_PendingWrite] | None:
        """Return the next entry: first those to be retried, then new ones. None: stop."""
        with self._wake:
            self._writing_bytes = 0
            while not self._new and (not self._closing or self._large or self._redacting):
                if not self._wake.wait(RETRY if self._late else None):
                    break
            if self._closing and not self._new and (not self._late or self.trouble is not None):
                return None
            # Everything that arrived during the last fsync becomes one transaction; retried rows first, to keep their order
            batch = self._take_late()
            if not self._late:
                batch += self._new.take(LARGEST_BATCH - len(batch), LARGEST_BATCH_BYTES)
            self._writing_bytes = sum(ticket.size for ticket in batch)
            self._queued_bytes -= self._writing_bytes
            return batch

    def _take_late(self) -> list[_PendingWrite]:
        batch: list[_PendingWrite] = []
        size = 0
        while self._late and len(batch) < LARGEST_BATCH:
            size += 0 if self._late[0].clean else self._late[0].size
            if batch and size > LARGEST_BATCH_BYTES:
                break
            batch.append(self._late.popleft())
        return batch

    def _write(self, batch: list[_PendingWrite]) -> None:
        ready = [ticket for ticket in batch if self._redact_entry(ticket)]
        try:
            self._put(ready)
        except InfrastructureError as error:
            self._handle_write_failure(ready, error.message)
        except Exception:  # noqa: BLE001  one entry cannot be written: find it, write the others
            self._one_by_one(ready)

    def _put(self, batch: list[_PendingWrite]) -> None:
        """Write one transaction, and resolve the futures of its entries."""
        outcomes = self._store.write([ticket.entry for ticket in batch])
        if self.trouble is not None:
            logging_setup.get_logger(__name__).warning("the inference log writes again")
        self.trouble = None
        for ticket, outcome in zip(batch, outcomes, strict=True):
            _answer(ticket, outcome)

    def _one_by_one(self, batch: list[_PendingWrite]) -> None:
        """Write entries one at a time, to reject only the broken one. If the disk fails, the rest is queued again in order."""
        for index, ticket in enumerate(batch):
            try:
                self._put([ticket])
            except InfrastructureError as error:
                self._handle_write_failure(batch[index:], error.message)
                return
            except Exception as error:  # noqa: BLE001  whatever it is, it is this row's
                self._refuse(ticket, error)

    def _redact_entry(self, ticket: _PendingWrite) -> bool:
        if ticket.clean:
            return True
        try:
            ticket.entry, ticket.clean = self._redact(ticket.entry), True
        except Exception as error:  # noqa: BLE001  a text that breaks the masker must not be written, nor stop the others
            self._refuse(ticket, error)
        return ticket.clean

    def _handle_write_failure(self, batch: list[_PendingWrite], reason: str) -> None:
        if self.trouble is None:
            logging_setup.get_logger(__name__).error("the inference log does not write: %s", reason)
        self.trouble = reason
        with self._wake:
            self._writing_bytes = 0
            if self._policy == "serve_and_count":
                self._put_off(batch, reason)
            for ticket in batch:
                self._fail(ticket, reason)
            self._wake.wait_for(lambda: self._closing, PAUSE)
            self._wake.wait_for(lambda: self._closing or self._new, RETRY - PAUSE)

    def _put_off(self, batch: list[_PendingWrite], reason: str) -> None:
        """Queue failed and new entries again, in order. Their callers are released: they must not wait for a broken disk."""
        for ticket in self._new:
            self._fail(ticket, reason)
        line = [*batch, *self._late, *self._new]
        self._new.clear()
        elsewhere = [*self._large, *([self._redacting] if self._redacting else [])]
        self._late, self._queued_bytes = deque(), sum(ticket.size for ticket in elsewhere)
        for ticket in line:
            if self._fits(len(self._late), self._queued_bytes, ticket):
                self._late.append(ticket)
                self._queued_bytes += ticket.size
        self._count_lost(len(line) - len(self._late))

    def _count_lost(self, count: int) -> None:
        if count > 0 and self.lost == 0:
            logging_setup.get_logger(__name__).error(
                "rows are lost from now on: more wait for the disk than inference_log.max_buffered_rows = %d or inference_log.max_buffered_bytes = %s",
                self._most,
                self._most_bytes,
            )
        self.lost += count

    def _refuse(self, ticket: _PendingWrite, error: Exception) -> None:
        """Reject an entry that can never be written. Only the type of the error is logged: its text may be personal data."""
        logging_setup.get_logger(__name__).error("a row cannot be written: %s", type(error).__name__)
        with self._wake:
            self._fail(ticket, f"it cannot be written: {type(error).__name__}")

    def _fail(self, ticket: _PendingWrite, reason: str) -> None:
        self._count(ticket)
        if not ticket.answer.done():
            ticket.answer.set_exception(_not_kept(reason))

    def _count(self, ticket: _PendingWrite) -> None:
        if not ticket.counted:
            ticket.counted = True
            self._on_error(1)


def _subject(entry: LogEntry) -> str:
    """Return the id of the inference that the entry is about."""
    return entry.inference_id if isinstance(entry, Feedback) else entry.id


def _size(entry: LogEntry) -> int:
    """Return the bytes of an entry as JSON; 0 for one that cannot be encoded, which will be rejected."""
    try:
        return len(_ENCODE(entry))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return 0


def _answer(ticket: _PendingWrite, outcome: WriteOutcome) -> None:
    if not ticket.answer.done():
        ticket.answer.set_result(outcome)


def _not_kept(reason: str) -> LogWriteError:
    return LogWriteError(f"this inference cannot be logged: {reason}", hint="try again later")


def unknown_record(feedback: Feedback) -> DataError:
    """Return the error for feedback on an inference that does not exist."""
    name, other = feedback.inference_id, feedback.kind == "preference"
    return DataError(
        f"inference {name[:100]!r}{', or the other one of the preference,' if other else ''} is not in the inference log",
        hint="take the id of an answer, for example chatcmpl-...",
    )
