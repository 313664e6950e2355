"""Bound what arena votes teach: whoever has a key to chat may vote, so their votes pass the limits that feedback passes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from tunectl.artifacts.records import Comparison, RejectedRow
from tunectl.artifacts.reject_reasons import REJECT_REASONS, RejectReason
from tunectl.config.schema.feedback import FeedbackDisabled, FeedbackFromLog
from tunectl.core.errors import DataError
from tunectl.preferences.annotation_store import ARENA


def limit_arena_votes(
    judgments: Sequence[Comparison], limits: FeedbackFromLog | FeedbackDisabled
) -> tuple[list[Comparison], list[RejectedRow]]:
    """Return the judgments of a store without the arena votes over the limits of ``feedback``, in their order, and those votes.

    A vote waits ``quarantine_hours``, until the newest judgment of the store is that much younger: the clock would give
    another result with each build. Where a limit cuts, newer votes are kept first.
    Raises  DataError where a judgment's time is none.
    """
    votes = [item for item in judgments if item.kind == ARENA]
    reasons: dict[str, RejectReason] = {}
    if isinstance(limits, FeedbackDisabled):
        reasons = dict.fromkeys((vote.id for vote in votes), "feedback_off")
    elif votes:
        until = max(map(_read_time, judgments)) - timedelta(hours=limits.quarantine_hours)
        old = sorted((vote for vote in votes if _read_time(vote) <= until), key=_read_time, reverse=True)
        reasons = _find_excess(old, limits)
        for vote in votes:
            if _read_time(vote) > until:
                reasons[vote.id] = "quarantined"
    return (
        [item for item in judgments if item.kind != ARENA or item.id not in reasons],
        [
            RejectedRow(vote.annotation.source, reasons[vote.id], REJECT_REASONS[reasons[vote.id]])
            for vote in votes
            if vote.id in reasons
        ],
    )


def _find_excess(votes: Sequence[Comparison], limits: FeedbackFromLog) -> dict[str, RejectReason]:
    """Return the reason against each vote over a limit, by its id; ``votes`` are the newest first. Who votes has also asked."""
    caps: tuple[tuple[RejectReason, int], ...] = (
        ("user_cap", limits.max_per_user),
        ("annotator_cap", limits.max_per_annotator),
        ("prompt_cap", limits.max_per_prompt),
    )
    counts: Counter[tuple[str, str | None]] = Counter()
    reasons: dict[str, RejectReason] = {}
    kept: list[Comparison] = []
    for vote in votes:
        keys = [(reason, vote.prompt if reason == "prompt_cap" else vote.annotation.annotator) for reason, _ in caps]
        full = next((reason for (reason, most), key in zip(caps, keys, strict=True) if counts[key] >= most), None)
        if full is None:
            counts.update(keys)
            kept.append(vote)
        else:
            reasons[vote.id] = full
    most = _find_fair_cap(Counter(vote.annotation.annotator for vote in kept).values(), limits.max_annotator_share)
    people: Counter[str | None] = Counter()
    for vote in kept:
        people[vote.annotation.annotator] += 1
        if people[vote.annotation.annotator] > most:
            reasons[vote.id] = "annotator_share"
    return reasons


def _find_fair_cap(counts: Collection[int], share: float) -> int:
    """Return the most votes per person with which nobody has more than ``share`` of all; ``counts`` are the votes of each person."""
    return next(
        (cap for cap in range(max(counts, default=0), 0, -1) if cap <= share * sum(min(n, cap) for n in counts)), 0
    )


def _read_time(judgment: Comparison) -> datetime:
    text = judgment.annotation.created_at or ""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(
            f"{judgment.annotation.source.location}: created_at = {text!r} must be a time in ISO 8601",
            hint="the file was changed by hand; restore it from Git",
        ) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)
