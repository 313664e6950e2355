"""Select training examples from feedback on live traffic, with a reason for each skipped inference. Pure.

A model's own words are never an example unless a person approved or edited them. Nobody counts for more than their share, new
opinions wait until others had time to object, and what the golden set asks is never learned. Every inference that somebody said
something about is either an example or has one reason why not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from heapq import heapify, heapreplace
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from tunectl.artifacts.records import Feedback, InferenceRecord, Message
from tunectl.config.schema.feedback import FeedbackFromLog
from tunectl.core.hashing import hash_to_unit
from tunectl.inference_log import export

ExampleKind = Literal["edit", "approved"]
SkipReason = Literal[
    "erased",
    "unfinished",
    "no_chat",
    "quarantined",
    "not_approved",
    "in_golden",
    "user_cap",
    "annotator_cap",
    "annotator_share",
    "prompt_cap",
    "model_text_share",
]
REASONS: Final[dict[SkipReason, str]] = {
    "erased": "somebody asked for erasure",
    "unfinished": "the answer never ended",
    "no_chat": "no conversation, or nothing was answered",
    "quarantined": "what was said is too new: others may still object",
    "not_approved": "nobody approved of it, or somebody objected",
    "in_golden": "the golden set asks the same",
    "user_cap": "this person asked for more than their share of the rows",
    "annotator_cap": "this person approved of more than their share of the rows",
    "annotator_share": "this person would have more than their share of all rows",
    "prompt_cap": "the same was asked often enough",
    "model_text_share": "too much of the model's own text already",
}


class FeedbackRules(Struct, frozen=True):
    """Limits of the selection: age of feedback, and how many rows one person, prompt or model answer may contribute."""

    quarantine: timedelta
    """Age of feedback from which it counts."""
    per_user: int
    """Rows of one person who asks."""
    per_annotator: int
    """Most rows from one person who approves or edits."""
    annotator_share: float
    """Largest share of all rows from one person who approves or edits; 1: no limit."""
    per_prompt: int
    """Rows of one question."""
    model_text_share: float
    """Largest share of all rows that the model wrote and people only approved."""
    holdout: float
    """Share of the prompts that are kept for the gate and not trained on."""


def rules_of(section: FeedbackFromLog) -> FeedbackRules:
    """Return the limits that the section ``feedback`` declares."""
    return FeedbackRules(
        timedelta(hours=section.quarantine_hours),
        section.max_per_user,
        section.max_per_annotator,
        section.max_annotator_share,
        section.max_per_prompt,
        section.max_model_text_share,
        section.holdout,
    )


class FeedbackExample(Struct, frozen=True):
    """An inference that people approved or edited, chosen as an example for training or for the gate."""

    inference: InferenceRecord
    """With the answer as people want it."""
    kind: ExampleKind
    by: str | None
    """Keyed hash of whoever edited or approved it last."""
    prompt: str
    """Digest of the question."""
    holdout: bool
    """Kept for the gate."""


class FeedbackSelection(Struct, frozen=True):
    """Result of ``select_examples``: the examples, and why each other inference with feedback is none."""

    examples: list[FeedbackExample]
    """The oldest first."""
    skipped: list[tuple[str, SkipReason]]
    """Inference and why it is no example."""

    @property
    def reasons(self) -> dict[str, int]:
        """Number of skipped inferences by reason."""
        return dict(sorted(Counter(reason for _, reason in self.skipped).items()))


def digest_prompt(inference: InferenceRecord) -> str:
    """Return the digest of a request's prompt; equal for the same prompt, whatever case, white space and system text."""
    messages = (inference.request or {}).get("messages") or []
    return prompt_digest([(str(turn.get("role")), turn.get("content")) for turn in messages if isinstance(turn, dict)])


def digest_messages(messages: Sequence[Message]) -> str:
    """Return the digest of a conversation before its answer; equal for the same prompt, whatever case, white space and system text."""
    return prompt_digest([(turn.role, turn.content) for turn in messages])


def prompt_digest(turns: Iterable[tuple[str, Any]]) -> str:
    """Return a digest that is equal for conversations with the same prompt, whatever case, white space and system text; turns are (role, content)."""
    plain = [[role, _normalize_content(content)] for role, content in turns if role not in ("system", "developer")]
    return hashlib.blake2b(msgspec.json.encode(plain), digest_size=12).hexdigest()


def _normalize_content(content: Any) -> str:
    text = content if isinstance(content, str) else msgspec.json.encode(content).decode()
    return " ".join(text.casefold().split())


def select_examples(
    inferences: Iterable[InferenceRecord],
    feedback_by_inference: Mapping[str, Sequence[Feedback]],
    rules: FeedbackRules,
    *,
    at: datetime,
    erased: Collection[str] = (),
    golden: Collection[str] = (),
) -> FeedbackSelection:
    """Return the examples among the inferences that somebody gave feedback on, and why each other one is skipped.

    feedback_by_inference  the oldest first
    at                     when the snapshot was frozen; feedback younger than the quarantine does not count
    erased                 ids of inferences in the snapshots that were erased since, and must not be used
    golden                 digests of the golden set's prompts (``digest_prompt``)
    """
    skips: list[tuple[str, SkipReason]] = []
    examples: list[FeedbackExample] = []
    for inference in sorted(inferences, key=lambda item: (item.accepted_at, item.id)):
        if not feedback_by_inference.get(inference.id):
            continue
        result = _classify_inference(
            inference, feedback_by_inference[inference.id], at - rules.quarantine, erased, golden, rules.holdout
        )
        if isinstance(result, FeedbackExample):
            examples.append(result)
        else:
            skips.append((inference.id, result))
    capped_examples, capped = apply_caps(examples, rules)
    return FeedbackSelection(capped_examples, [*skips, *capped])


def _classify_inference(
    inference: InferenceRecord,
    feedback: Sequence[Feedback],
    until: datetime,
    erased: Collection[str],
    golden: Collection[str],
    holdout: float,
) -> FeedbackExample | SkipReason:
    if inference.id in erased or inference.erased_at is not None:
        return "erased"
    if inference.finished_at is None or inference.response is None:
        return "unfinished"
    old = [
        opinion
        for opinion in feedback
        if max(opinion.counted_at, inference.accepted_at) <= until and opinion.value is not None
    ]
    accepted = export.with_accepted_answer(inference, old)
    if (
        accepted is None or export.with_accepted_answer(inference, feedback) is None
    ):  # younger opinions may object, not approve
        waits = (
            accepted is None
            and len(old) < len(feedback)
            and export.with_accepted_answer(inference, feedback) is not None
        )
        return "quarantined" if waits else "not_approved"
    row, prompt = export.to_openai_row(accepted), digest_prompt(inference)
    if row is None or prompt in golden:
        return "no_chat" if row is None else "in_golden"
    edits = [opinion for opinion in old if opinion.kind == "edit"]
    kind: ExampleKind = "edit" if edits and row != export.to_openai_row(inference) else "approved"
    voice = (edits or [opinion for opinion in old if opinion.kind in ("thumb", "rating", "preference")])[-1]
    return FeedbackExample(accepted, kind, voice.person, prompt, is_held_out(prompt, holdout))


def is_held_out(prompt: str, share: float) -> bool:
    """Return whether a prompt (its ``prompt_digest``) is among the ``share`` (0 to 1) of prompts kept for the gate, by a hash of it."""
    return hash_to_unit(f"held {prompt}") < share


def apply_caps(
    examples: Sequence[FeedbackExample], rules: FeedbackRules
) -> tuple[list[FeedbackExample], list[tuple[str, SkipReason]]]:
    """Return (examples within all limits, oldest first; (id, reason) of the others). Where a limit cuts, edits and newer rows are kept first."""
    skips: list[tuple[str, SkipReason]] = []
    counts: Counter[tuple[str, str | None]] = Counter()
    kept_examples: list[FeedbackExample] = []
    caps: tuple[tuple[str, int, SkipReason], ...] = (
        ("user", rules.per_user, "user_cap"),
        ("by", rules.per_annotator, "annotator_cap"),
        ("prompt", rules.per_prompt, "prompt_cap"),
    )
    for example in sorted(examples, key=lambda item: (item.kind == "edit", item.inference.accepted_at), reverse=True):
        names = {"user": example.inference.person, "by": example.by, "prompt": example.prompt}
        full = next((reason for what, most, reason in caps if counts[what, names[what]] >= most), None)
        if full is not None:
            skips.append((example.inference.id, full))
            continue
        for what, name in names.items():
            counts[what, name] += 1
        kept_examples.append(example)
    kept_examples = _enforce_shares(kept_examples, rules, skips)
    return sorted(kept_examples, key=lambda item: (item.inference.accepted_at, item.inference.id)), skips


def _enforce_shares(
    examples: list[FeedbackExample], rules: FeedbackRules, skips: list[tuple[str, SkipReason]]
) -> list[FeedbackExample]:
    """Remove rows, the last first, until no share is exceeded; removing one increases the other shares, so the check is repeated.

    Rows without a name count as one person's, since their people are unknown.
    """
    people, own = Counter(example.by for example in examples), sum(example.kind == "approved" for example in examples)
    indexes_by_person: dict[str | None, list[int]] = {}
    for index, example in enumerate(examples):
        indexes_by_person.setdefault(example.by, []).append(index)
    approved = [index for index, example in enumerate(examples) if example.kind == "approved"]
    remaining = set(range(len(examples)))
    # a heap, whose counts are corrected when they come up: searching all people for each row that is removed takes quadratic time
    largest = [(-people[person], -rank, person) for rank, person in enumerate(sorted(people, key=str))]
    heapify(largest)
    while remaining:
        while (most := people[person := largest[0][2]]) != -largest[0][0]:
            heapreplace(largest, (-most, largest[0][1], person))
        reason: SkipReason = "annotator_share"
        if rules.annotator_share < 1 and most > rules.annotator_share * len(remaining):
            index = _last(indexes_by_person[person], remaining)
        elif own > rules.model_text_share * len(remaining):
            index, reason = _last(approved, remaining), "model_text_share"
        else:
            break
        remaining.remove(index)
        people[examples[index].by] -= 1
        own -= examples[index].kind == "approved"
        skips.append((examples[index].inference.id, reason))
    return [example for index, example in enumerate(examples) if index in remaining]


def _last(indexes: list[int], remaining: Collection[int]) -> int:
    """Remove the last index that is still in ``remaining``."""
    while True:
        index = indexes.pop()
        if index in remaining:
            return index
