"""Windows of live traffic: which inferences are compared, and with what. A closed window never changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from math import inf
from typing import Any, Final

from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import DriftWindow, Feedback, InferenceRecord
from tunectl.monitoring.signals import MonitoredInference

REFERENCE_SET: Final = "reference_set"
"""Kind of the event that makes windows the reference of prompts. Its body: ``windows`` (ids), ``author``, ``message``."""
CHAMPION: Final = "champion"
"""Variant whose answers are compared; those of a challenger are not the champion's."""
CHALLENGER: Final = "challenger"
"""Variant under which a release answered in its canary, for randomly assigned identities."""
EMPTY: Final = "none"
TRAINING: Final = "training"


class TimeSpan(Struct, frozen=True):
    """Start and end of a window: inferences accepted in [since, until)."""

    since: datetime
    until: datetime


def to_monitored_inference(
    inference: InferenceRecord, feedback: Sequence[Feedback] = (), within: float = inf
) -> MonitoredInference:
    """Return the values of an inference that the signals need. Feedback counts when it came at most ``within`` seconds after the request.

    An older window has had more time to get feedback: without the same limit for both, every new window would seem to have less.
    """
    text = answer_text(inference)
    refusal = inference.refusal
    return MonitoredInference(
        id=inference.id,
        prompt=last_user_text(inference) or None,
        answer=text or None,
        prompt_tokens=inference.prompt_tokens,
        answer_tokens=inference.completion_tokens,
        finish_reason=inference.finish_reason,
        refused=True if text is not None and not text.strip() else refusal,
        format_valid=inference.format_valid,
        mean_logprob=inference.mean_logprob,
        feedback=any((item.counted_at - inference.accepted_at).total_seconds() <= within for item in feedback),
    )


def last_user_text(inference: InferenceRecord) -> str:
    """Return the text of the last user turn; empty where there is none."""
    request = inference.request or {}
    messages = request.get("messages")
    if isinstance(messages, list):
        user_turns = [message for message in messages if isinstance(message, dict) and message.get("role") == "user"]
        return extract_text(user_turns[-1].get("content")) if user_turns else ""
    return extract_text(request.get("prompt"))


def answer_text(inference: InferenceRecord) -> str | None:
    """Return the text of the answer; None where generation stopped before the first token, and for tool calls alone."""
    choices = (inference.response or {}).get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    message = choices[0].get("message")
    content = message.get("content") if isinstance(message, dict) else choices[0].get("text")
    return None if content is None else extract_text(content)


def extract_text(content: Any) -> str:
    """Return the text of a message's ``content``: a string, or a list of OpenAI's content parts."""
    if isinstance(content, list):
        return " ".join(
            extract_text(part.get("text")) if isinstance(part, dict) else extract_text(part) for part in content
        ).strip()
    return content if isinstance(content, str) else ""


def select_rows(inferences: Iterable[InferenceRecord], variant: str = CHAMPION) -> list[InferenceRecord]:
    """Return the rows to compare: finished, not erased inferences of one variant, the first of each session.

    Prompts of one session depend on each other, and retries repeat them: tests for independent rows would give too small p-values.
    """
    return list(_iter_eligible_rows(inferences, variant))


def select_window_rows(
    inferences: Iterable[InferenceRecord], rows: int, variant: str = CHAMPION
) -> list[InferenceRecord]:
    """Return the first ``rows`` rows of ``select_rows``, and any further ones with the same time as the last.

    ``inferences`` are oldest first; reading stops after these rows, so that a long backlog is not read for each window.
    """
    records: list[InferenceRecord] = []
    for row in _iter_eligible_rows(inferences, variant):
        if len(records) >= rows and row.accepted_at > records[rows - 1].accepted_at:
            break
        records.append(row)
    return records


def _iter_eligible_rows(inferences: Iterable[InferenceRecord], variant: str) -> Iterator[InferenceRecord]:
    seen: set[tuple[str | None, str]] = set()  # clients choose the names of their sessions: each key has its own
    for inference in inferences:
        usable = (
            inference.variant == variant
            and inference.finished_at is not None
            and inference.erased_at is None
            and inference.request is not None
        )
        if not usable or inference.finish_reason in {"cancelled", "error", "timeout"}:
            continue
        if inference.session is not None:
            session = (inference.key_hash, inference.session)
            if session in seen:
                continue
            seen.add(session)
        yield inference


def closable_window(
    since: datetime, now: datetime, accepted: Sequence[datetime], *, rows: int, hours: float, settle: float
) -> TimeSpan | None:
    """Return the window that can be closed now, or None while it must wait.

    A window ends at its ``rows``-th row, or ``hours`` after ``since``, whichever comes first. It can be closed ``settle`` seconds after
    that, so that running answers are complete. ``accepted``: times of the rows since ``since``, oldest first.
    Where the clock was set back to before ``since``, None.
    """
    end, latest = since + timedelta(hours=hours), now - timedelta(seconds=settle)
    inside = [time for time in accepted if since <= time < min(end, latest)]
    if len(inside) >= rows:
        return TimeSpan(since, inside[rows - 1] + timedelta(microseconds=1))
    return TimeSpan(since, end) if end <= latest else None


def compute_window_id(
    span: TimeSpan, ids: Sequence[str], release: str, reference: str, settings: Mapping[str, Any]
) -> str:
    """Return the id of a window: the first 16 hex digits of the SHA-256 of period, row ids, release, reference and settings.

    The same traffic, examined in the same way, is the same window.
    """
    manifest = {
        "since": span.since.isoformat(),
        "until": span.until.isoformat(),
        "exchanges": sorted(ids),  # the word of 0.1: windows keep their ids
        "release": release,
        "reference": reference,
        "settings": dict(settings),
    }
    return atomic_io.sha256_json(manifest)[:16]


def accept(windows: Sequence[str], *, author: str, message: str) -> dict[str, Any]:
    """Return the body of the event ``REFERENCE_SET``: from now on prompts are compared with those of the windows with these ids.

    Raises  ValueError where no window is named.
    """
    if not windows:
        raise ValueError("no window is named; windows must hold at least one id")
    return {"windows": list(windows), "author": author, "message": message}


def find_accepted_windows(bodies: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids of the windows in the newest of these event bodies (oldest first); none before the first event."""
    if not bodies:
        return []
    return [str(name) for name in bodies[-1]["windows"]]


def is_stale(window: DriftWindow, bodies: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the reference of prompts has changed since ``window`` was examined, so that its verdict is outdated.

    ``bodies`` are those of the events ``REFERENCE_SET`` from the window's end on, oldest first. For windows whose
    reference is accepted windows, not the training prompts.
    """
    return bool(bodies) and window.reference != "+".join(find_accepted_windows(bodies))


def select_streak(windows: Iterable[DriftWindow], release: str, reference: str) -> list[DriftWindow]:
    """Return those of ``windows`` whose rows count as evidence: of the same release and against the same reference of prompts."""
    return [window for window in windows if window.release == release and window.reference == reference]
