"""The protocol of inference logs: what every store of inferences and feedback guarantees.

A row is on the disk when the method that writes it has returned: it survives ``kill -9`` and a power cut. Ids are idempotent: the same
entry twice is one row. Text must be redacted before it gets here (``inference_log/redact.py``); a server goes through
``inference_log/log_writer.py``, which redacts, commits in groups and applies the policy for a full disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Struct

from tunectl.artifacts.records import Feedback, InferenceRecord

WriteOutcome = Literal["new", "known", "unknown"]
"""new: written. known: the id was there already, nothing changed. unknown: the inference that it is about does not exist."""


class RequestOutcome(Struct, frozen=True, omit_defaults=True):
    """Answer and end of an inference; the fields are those of ``InferenceRecord``."""

    finished_at: datetime
    response: dict[str, Any] | None
    """None where there is no answer, for example after an error."""
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    latency_seconds: float
    mean_logprob: float | None = None
    refusal: bool | None = None
    format_valid: bool | None = None


class FinishedRequest(Struct, frozen=True):
    """A log entry that ends the inference with id ``id``."""

    id: str
    finish: RequestOutcome


LogEntry = InferenceRecord | FinishedRequest | Feedback
"""What can be written. An ``InferenceRecord`` may be a running or a finished one."""


class TimeWindow(Struct, frozen=True):
    """A period of live traffic that the monitor examined or a snapshot holds; the meaning of ``body`` depends on the writer."""

    id: str
    since: datetime
    until: datetime
    created_at: datetime
    body: dict[str, Any]
    """Counts, verdict, or digest of the snapshot: data of the program that made it."""

    @property
    def references(self) -> list[str]:
        """Ids of the accepted windows that the monitor compared it with: ``a+b`` where several were accepted together."""
        return str(self.body.get("reference", "")).split("+")


class LogEvent(Struct, frozen=True):
    """Something that happened to the log or its releases: a promotion, an erasure, a prune."""

    id: str
    created_at: datetime
    kind: str
    body: dict[str, Any]


class Counts(Struct, frozen=True):
    """Numbers of inferences, users and feedback records in a period."""

    inferences: int
    finished: int
    erased: int
    users: int
    feedback: dict[str, int]
    """Feedback on these inferences, by kind."""
    first: datetime | None
    last: datetime | None


class ErasureResult(NamedTuple):
    """Numbers of rows that an erasure deleted."""

    inferences: int
    feedback: int
    """Number of feedback records by the person or about their inferences."""
    journal_busy: bool = False
    """Whether a reader kept SQLite's journal from being emptied: until it has ended, the journal contains the text."""


class InferenceLog(Protocol):
    """A database of inferences and feedback. Thread-safe; every method raises InfrastructureError when disk or server fail."""

    def write(self, entries: Sequence[LogEntry]) -> list[WriteOutcome]:
        """Write all entries in one transaction, in order; durable on return. Returns one outcome per entry.

        An id that exists already changes nothing (``known``). ``unknown``: the inference that an entry ends, comments on or compares with is absent.
        """
        ...

    def inference(self, name: str) -> InferenceRecord | None:
        """Return the inference with id ``name``; None where there is none."""
        ...

    def find_ids_by_prefix(self, name: str) -> list[str]:
        """Return inference ids that begin with ``name``, sorted; at most four."""
        ...

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
        """Return inferences accepted in [since, until), oldest first; without tombstones unless ``erased``.

        Reads in pages, so that a long reader never delays the writer.
        """
        ...

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
        """Return the last ``number`` inferences accepted in [since, until), newest first; without tombstones. Reads only these rows."""
        ...

    def feedback_of(self, inference_ids: Sequence[str]) -> dict[str, list[Feedback]]:
        """Return the feedback on these inferences, oldest first, late or not; ids without feedback are left out."""
        ...

    def last_uses(self) -> dict[str, datetime]:
        """Return the time of the last request or feedback of each key, by its hash; unused keys are left out."""
        ...

    def tombstones(self) -> Iterator[str]:
        """Return ids of erased inferences: no build may use them, also not from an older snapshot."""
        ...

    def counts(self, since: datetime | None = None, until: datetime | None = None) -> Counts:
        """Return the numbers of rows accepted in [since, until)."""
        ...

    def erase(self, user_hash: str, *, by_key: bool = False, until: datetime | None = None) -> ErasureResult:
        """Delete the text of all inferences and feedback of a person, leaving tombstones (rows without text); return the counts.

        ``by_key``: ``user_hash`` is the hash of an API key, and everything sent with that key is erased, for all its users. ``until``: only
        rows received until then; used when an erasure is repeated on a restored backup.
        """
        ...

    def retain(self, before: datetime) -> int:
        """Delete inferences accepted before ``before``, with their feedback; return the number of inferences."""
        ...

    def purge(self) -> bool:
        """Rewrite the files of the database, so that no deleted text is left in free pages or journals, and return True.

        False where another connection was reading, so that SQLite's journal could not be emptied and still has the text.
        """
        ...

    def add_window(self, window: TimeWindow) -> bool:
        """Store a window and return True; False when its id is known."""
        ...

    def windows(self, since: datetime | None = None) -> list[TimeWindow]:
        """Return the windows made since ``since`` (None: all), oldest first."""
        ...

    def add_event(self, event: LogEvent) -> bool:
        """Store an event and return True; False when its id is known."""
        ...

    def events(self, since: datetime | None = None, kind: str | None = None) -> list[LogEvent]:
        """Return the events since ``since`` (None: all), of one ``kind`` or of all, oldest first."""
        ...

    def close(self) -> None:
        """Close the database; idempotent."""
        ...
