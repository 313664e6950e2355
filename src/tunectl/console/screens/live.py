"""Screens of live traffic: requests and answers of the variants, newest first, with their feedback; and one inference in full.

Texts are shown as the inference log stores them: personal data was masked before they were written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.artifacts.records import Feedback, InferenceRecord, truncate
from tunectl.backends.storage import open_inference_log
from tunectl.console.read_context import NotFoundError, ProblemList
from tunectl.core import logging_setup
from tunectl.core.errors import UsageError
from tunectl.monitoring import window
from tunectl.stats.proportion_ci import wilson_interval
from tunectl.status.service_metrics import ServiceFigures, read_service_figures

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.console.read_context import ReadContext
    from tunectl.inference_log.log_store import InferenceLog

PAGE_SIZE: Final = 30
MAX_SCAN: Final = 2000
"""Inferences that are read at most for one page."""
SPAN: Final = timedelta(hours=24)
"""Period of the figures by variant."""
RATE_SPAN: Final = timedelta(minutes=5)
"""Period of the rate of requests."""
ASK_SECONDS: Final = 2.0
"""Seconds for which the answers of servers and monitor are kept: several pages may be open, and each follows every request."""
SPANS: Final = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
PREVIEW: Final = 300
"""Characters of a text in the list."""
HASH_DIGITS: Final = 32
"""Hexadecimal digits of the keyed hash of a person."""
FILTERS: Final = ("variant", "release", "feedback", "refused", "slow", "q", "since", "before", "paused", "person")


class FeedbackView(Struct, frozen=True):
    """One feedback record about an answer; ``opinion`` is ``good``, ``bad`` or empty."""

    kind: str
    value: str
    at: datetime
    opinion: str
    """``good``, ``bad``, or empty where it is neither."""


class InferenceRow(Struct, frozen=True):
    """One inference in a list: texts are cut, and erased ones are empty."""

    id: str
    accepted_at: datetime
    variant: str
    release: str
    question: str
    answer: str
    finish_reason: str
    """Finish reason; empty while it runs."""
    seconds: float | None
    tokens: int | None
    refused: bool
    feedback: list[FeedbackView] = field(default_factory=list)


class VariantFigures(Struct, frozen=True):
    """Latency, refusals and ratings of one variant, from the inferences that were read."""

    variant: str
    requests: int
    median_seconds: float | None
    refused: float | None
    """Share of the finished answers that are refusals."""
    liked: float | None
    """Share of the rated answers whose rating is good."""
    liked_low: float | None
    liked_high: float | None
    """Upper end of Wilson's 95 % interval; ``liked_low`` is the lower one."""
    opinions: int


class LiveScreen(Struct, frozen=True):
    """Content of the screen Live: counts of the last day, metrics by variant, and one page of inferences."""

    exists: bool = False
    """Whether anything was logged in this project."""
    inferences: int = 0
    """Inferences of the last 24 hours; the three counts below have the same period."""
    finished: int = 0
    users: int = 0
    feedback: dict[str, int] = field(default_factory=dict)
    per_minute: float = 0.0
    """Requests a minute in the last 5 minutes."""
    services: ServiceFigures = ServiceFigures()
    """Metrics of the servers and the monitor, each since it started."""
    recent: int = 0
    """Inferences that the figures by variant are of: the newest of the last 24 hours, without erased ones."""
    variants: list[VariantFigures] = field(default_factory=list)
    rows: list[InferenceRow] = field(default_factory=list)
    scanned: int = 0
    """Inferences that were read for this page."""
    older: str | None = None
    """Value of ``before`` for the next page; None where there is none."""
    releases: list[str] = field(default_factory=list)
    slow_seconds: float = 0.0
    """Seconds from which an answer counts as slow."""
    query: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


class MessageView(Struct, frozen=True):
    """Role and text of one message of a conversation."""

    role: str
    text: str


class InferenceScreen(Struct, frozen=True):
    """Content of the screen of one inference: conversation, answer, feedback and metadata."""

    row: InferenceRow | None = None
    messages: list[MessageView] = field(default_factory=list)
    answer: str = ""
    erased_at: datetime | None = None
    user_hash: str = ""
    """Keyed hash of the user; names are not stored."""
    session: str = ""
    template_hash: str = ""
    mean_logprob: float | None = None
    format_valid: bool | None = None
    prompt_tokens: int | None = None
    problems: dict[str, str] = field(default_factory=dict)


def read_live(context: ReadContext, query: Mapping[str, str]) -> LiveScreen:
    """Return the newest inferences that pass the filters of ``query``, with counts of the last day.

    ``variant``, ``release``: who answered. ``feedback``: any, none, good, bad, or a kind. ``refused``, ``slow``: 1. ``q``: text in prompt
    or answer. ``since``: see ``SPANS``. ``before``: time of the last row of the previous page. ``paused``: 1, the page does not follow. ``person``: keyed hash of a
    user, as stored; who lists the requests of a person is written to the log of the console, as who opens one of them.
    """
    problems = ProblemList()
    picked = {name: query[name] for name in FILTERS if query.get(name)}
    if "person" in picked and not _is_hash(picked["person"]):
        del picked["person"]  # a name has no place in an address
        problems.problems["person"] = "this is no hash of a person: open one of their requests, and follow its link"
        return LiveScreen(query=picked, problems=problems.problems)
    settings = problems.attempt("settings", context.load_settings, None)
    if settings is None:
        return LiveScreen(query=picked, problems=problems.problems)
    services = problems.attempt("metrics", lambda: _ask_services(context, settings), ServiceFigures())
    empty = LiveScreen(services=services, query=picked, problems=problems.problems)
    if "person" in picked:
        logging_setup.get_logger(__name__).info(
            "%s listed the requests of the person %s", context.visitor or "somebody", picked["person"][:16]
        )
    slow = settings.retrain.canary.slow_threshold_seconds if settings.retrain.canary is not None else 10.0

    def read() -> LiveScreen:
        with open_inference_log.open_if_exists(settings.inference_log, context.layout) as log:
            return empty if log is None else _read_page(log, picked, context.now, slow, problems)

    return replace(problems.attempt("inference log", read, empty), services=services)


def _is_hash(text: str) -> bool:
    return len(text) == HASH_DIGITS and set(text) <= set("0123456789abcdef")


def _ask_services(context: ReadContext, settings: TunectlConfig) -> ServiceFigures:
    stamp = (settings.console.servers, settings.console.prometheus, settings.monitor.host, settings.monitor.port)
    return context.cache.get(
        "services", stamp, lambda: read_service_figures(context.layout, settings), max_age=ASK_SECONDS
    )


def _read_page(
    log: InferenceLog, picked: Mapping[str, str], now: datetime, slow: float, problems: ProblemList
) -> LiveScreen:
    counts = log.counts(now - SPAN)
    recent = log.newest(MAX_SCAN, now - SPAN)
    opinions = log.feedback_of([one.id for one in recent])
    until = problems.attempt("before", lambda: _parse_time(picked.get("before", "")), None)
    since = now - SPANS[picked["since"]] if picked.get("since") in SPANS else None
    scan = log.newest(
        MAX_SCAN,
        since,
        until,
        release=picked.get("release"),
        variant=picked.get("variant"),
        user_hash=picked.get("person"),
    )
    # only a filter on feedback needs that of all
    feedback = log.feedback_of([one.id for one in scan]) if "feedback" in picked else {}
    matching = [one for one in scan if _passes(one, feedback.get(one.id, ()), picked, slow)]
    page = matching[:PAGE_SIZE]
    feedback = log.feedback_of([one.id for one in page])
    more = len(matching) > PAGE_SIZE or len(scan) == MAX_SCAN
    last = page[-1] if len(matching) > PAGE_SIZE else scan[-1] if scan else None
    return LiveScreen(
        exists=True,
        inferences=counts.inferences,
        finished=counts.finished,
        users=counts.users,
        feedback=counts.feedback,
        per_minute=log.counts(now - RATE_SPAN).inferences / (RATE_SPAN / timedelta(minutes=1)),
        recent=len(recent),
        variants=list(_summarize_variants(recent, opinions)),
        rows=[build_row(one, feedback.get(one.id, ())) for one in page],
        scanned=len(scan),
        older=last.accepted_at.isoformat() if more and last is not None else None,
        releases=list(dict.fromkeys(one.release for one in recent)),
        slow_seconds=slow,
        query=dict(picked),
        problems=problems.problems,
    )


def _parse_time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError as error:
        raise UsageError("before is no time of a page, so the newest requests are shown") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _passes(one: InferenceRecord, feedback: Sequence[Feedback], picked: Mapping[str, str], slow: float) -> bool:
    filter_kind = picked.get("feedback", "")
    if filter_kind == "none" and feedback:
        return False
    if filter_kind and filter_kind not in {"none", "any"}:
        if not any(filter_kind in (record.kind, judge_opinion(record)) for record in feedback):
            return False
    elif filter_kind == "any" and not feedback:
        return False
    if picked.get("refused") and not one.refusal:
        return False
    if picked.get("slow") and (one.latency_seconds or 0.0) < slow:
        return False
    text = picked.get("q", "").casefold()
    return (
        not text or text in window.last_user_text(one).casefold() or text in (window.answer_text(one) or "").casefold()
    )


def judge_opinion(one: Feedback) -> str:
    """Return ``good`` for feedback in favor of the answer, ``bad`` for feedback against it, else an empty text."""
    if one.kind == "thumb":
        return {"up": "good", "down": "bad"}.get(str(one.value), "")
    if one.kind == "rating" and isinstance(one.value, int | float):
        return "good" if one.value >= 4 else "bad" if one.value <= 2 else ""
    if one.kind == "preference" and isinstance(one.value, dict):
        return {"first": "good", "both_good": "good", "second": "bad", "both_bad": "bad"}.get(
            one.value.get("choice", ""), ""
        )
    return {"edit": "bad", "conversion": "good"}.get(one.kind, "")


def _summarize_variants(
    recent: Sequence[InferenceRecord], opinions: Mapping[str, Sequence[Feedback]]
) -> Iterator[VariantFigures]:
    for variant in sorted({one.variant for one in recent}):
        rows = [one for one in recent if one.variant == variant]
        seconds = [one.latency_seconds for one in rows if one.latency_seconds is not None]
        finished = [one for one in rows if one.refusal is not None]
        verdicts = [judge_opinion(record) for one in rows for record in opinions.get(one.id, ())]
        good, total = verdicts.count("good"), sum(1 for verdict in verdicts if verdict)
        low, high = wilson_interval(good, total) if total else (None, None)
        yield VariantFigures(
            variant,
            len(rows),
            median(seconds) if seconds else None,
            sum(bool(one.refusal) for one in finished) / len(finished) if finished else None,
            good / total if total else None,
            low,
            high,
            total,
        )


def build_row(one: InferenceRecord, feedback: Sequence[Feedback]) -> InferenceRow:
    """Return one inference for a list: texts are cut, and erased ones are empty."""
    return InferenceRow(
        one.id,
        one.accepted_at,
        one.variant,
        one.release,
        truncate(window.last_user_text(one), PREVIEW),
        truncate(window.answer_text(one) or "", PREVIEW),
        one.finish_reason or "",
        one.latency_seconds,
        one.completion_tokens,
        bool(one.refusal),
        [
            FeedbackView(record.kind, _show_value(record.value), record.created_at, judge_opinion(record))
            for record in feedback
        ],
    )


def _show_value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {text}" for name, text in value.items())
    return "" if value is None else str(value)


def read_inference(context: ReadContext, query: Mapping[str, str]) -> InferenceScreen:
    """Return one inference in full, given by its id or the beginning of it.

    Raises  NotFoundError where there is none.
    """
    problems = ProblemList()
    name = query.get("inference", "")

    def read() -> tuple[InferenceRecord, list[Feedback]] | None:
        with open_inference_log.open_if_exists(context.load_settings().inference_log, context.layout) as log:
            one = None if log is None or not name else open_inference_log.inference(log, name)
            return None if log is None or one is None else (one, log.feedback_of([one.id]).get(one.id, []))

    entry = problems.attempt("inference log", read, None)
    if entry is None:
        if problems.problems:
            return InferenceScreen(problems=problems.problems)
        raise NotFoundError(name)
    one, feedback = entry
    context.log_opened(one.id)
    return InferenceScreen(
        row=build_row(one, feedback),
        messages=list(_list_messages(one)),
        answer=window.answer_text(one) or "",
        erased_at=one.erased_at,
        user_hash=one.user_hash or "",
        session=one.session or "",
        template_hash=one.template_hash,
        mean_logprob=one.mean_logprob,
        format_valid=one.format_valid,
        prompt_tokens=one.prompt_tokens,
        problems=problems.problems,
    )


def _list_messages(one: InferenceRecord) -> Iterator[MessageView]:
    messages = (one.request or {}).get("messages")
    for turn in messages if isinstance(messages, list) else ():
        if isinstance(turn, dict):
            yield MessageView(str(turn.get("role", "")), window.extract_text(turn.get("content")) or "")
