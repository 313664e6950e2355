"""Select training examples from feedback on live traffic, with a reason for each skipped inference. Pure.

A model's own answer is never an example unless a person approved or edited it. No person's share exceeds its limit, new
feedback waits until others had time to contradict it, and prompts of the golden set are never trained on. Every inference with
feedback is either an example or has one reason why not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from tunectl.artifacts.records import Feedback, InferenceRecord, Message
from tunectl.core.hashing import hash_to_unit
from tunectl.inference_log import contribution_caps, export
from tunectl.inference_log.feedback_rules import (
    ExampleKind,
    FeedbackExample,
    FeedbackRules,
    FeedbackSelection,
    SkipReason,
)


def digest_prompt(inference: InferenceRecord) -> str:
    """Return the ``prompt_digest`` of a request."""
    messages = (inference.request or {}).get("messages") or []
    return prompt_digest([(str(turn.get("role")), turn.get("content")) for turn in messages if isinstance(turn, dict)])


def digest_messages(messages: Sequence[Message]) -> str:
    """Return the ``prompt_digest`` of a conversation before its answer, as examples have it."""
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
    """Return the examples of all inferences with feedback.

    said       feedback by inference, the oldest first
    at         when the snapshot was frozen; feedback younger than the quarantine does not count
    erased  inferences that may not be used, though an older snapshot has them
    golden     digests of the golden set's prompts (``digest_prompt``)
    """
    left: list[tuple[str, SkipReason]] = []
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
            left.append((inference.id, result))
    capped_examples, capped = contribution_caps.apply_caps(examples, rules)
    return FeedbackSelection(capped_examples, [*left, *capped])


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
    """Return whether a prompt, by its ``prompt_digest``, is kept for the gate; always the same for one prompt."""
    return hash_to_unit(f"held {prompt}") < share
