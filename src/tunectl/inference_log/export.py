"""Export inferences in formats of other programs: logs of the NVIDIA data flywheel, and chats for fine-tuning in OpenAI's format.

A model's own words are no example by themselves: ``with_accepted_answer`` keeps inferences that people liked, and puts what they wrote
instead in the place of the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Literal

from msgspec.structs import replace

from tunectl.artifacts.records import Feedback, InferenceRecord

Shape = Literal["flywheel", "chat"]
GOOD_RATING: Final = 4
"""Rating, of 5, from which feedback is approval."""
BATCH: Final = 500
"""Inferences per query for feedback."""
FeedbackLookup = Callable[[Sequence[str]], Mapping[str, Sequence[Feedback]]]


class Export:
    """Converts inferences to rows of an export, and counts those left out: ``unfinished``, ``not_approved``, ``no_chat``."""

    def __init__(self, shape: Shape, *, workload: str, approved_only: bool) -> None:
        self._shape, self._workload, self._approved_only = shape, workload, approved_only
        self.left_out: Counter[str] = Counter()

    def rows(self, inferences: Iterable[InferenceRecord], feedback_of: FeedbackLookup) -> Iterator[dict[str, Any]]:
        """Yield the rows of ``inferences``; ``feedback_of`` returns the feedback on inferences, and is called only where it is needed."""
        todo = iter(inferences)
        while some := list(islice(todo, BATCH)):
            feedback_by_inference = feedback_of([item.id for item in some]) if self._approved_only else {}
            for item in some:
                row = self._row(item, feedback_by_inference.get(item.id, ()))
                if isinstance(row, str):
                    self.left_out[row] += 1
                else:
                    yield row

    def _row(self, inference: InferenceRecord, feedback: Sequence[Feedback]) -> dict[str, Any] | str:
        """Return the row, or the reason why there is none."""
        if inference.finished_at is None or inference.response is None:
            return "unfinished"
        accepted = with_accepted_answer(inference, feedback) if self._approved_only else inference
        if accepted is None:
            return "not_approved"
        row = to_flywheel_row(accepted, self._workload) if self._shape == "flywheel" else to_openai_row(accepted)
        return "no_chat" if row is None else row


def to_flywheel_row(inference: InferenceRecord, workload: str) -> dict[str, Any]:
    """Return one line of a flywheel log: time (Unix seconds), task, client, and OpenAI's two bodies unchanged."""
    return {
        "timestamp": int(inference.accepted_at.timestamp()),
        "workload_id": workload,
        "client_id": inference.user_hash or "unknown",
        "request": inference.request,
        "response": inference.response,
    }


def to_openai_row(inference: InferenceRecord) -> dict[str, Any] | None:
    """Return one line of a fine-tuning file: ``messages`` that end with the answer, and ``tools`` where there were some.

    None where there is nothing to train on: no conversation (a plain completion), or no answer. Of several answers the
    first is taken.
    """
    messages, choices = (inference.request or {}).get("messages"), (inference.response or {}).get("choices")
    if not messages or not choices:
        return None
    message = choices[0].get("message") or {}
    answer = {"role": "assistant", "content": message.get("content")}
    if message.get("tool_calls"):
        answer["tool_calls"] = message["tool_calls"]
    elif not answer["content"]:
        return None
    tools = (inference.request or {}).get("tools")
    return {"messages": [*messages, answer], **({"tools": tools} if tools else {})}


def with_accepted_answer(inference: InferenceRecord, feedback: Sequence[Feedback]) -> InferenceRecord | None:
    """Return the inference with the newest edit as its answer, or unchanged where people approved; None where nobody approved it.

    Approved: at least one person approved and nobody disapproved, by the last feedback of each person and kind. An edit counts even where
    somebody disapproved. ``feedback`` is in order of time.
    """
    edits = [item.value for item in feedback if item.kind == "edit" and isinstance(item.value, str)]
    if edits:
        return _replace_answer(inference, edits[-1])
    last = {(item.person, item.kind): item for item in feedback}
    signs = {sign for item in last.values() if (sign := _sign(item)) is not None}
    return inference if signs == {True} else None


def _sign(feedback: Feedback) -> bool | None:
    """Return whether feedback is positive, negative, or neither."""
    if feedback.kind == "thumb" and feedback.value is not None:
        return bool(feedback.value == "up")
    if feedback.kind == "rating" and feedback.value is not None:
        return bool(feedback.value >= GOOD_RATING)
    if feedback.kind == "preference" and feedback.value is not None:
        return bool(feedback.value["choice"] in ("first", "both_good"))
    return None


def _replace_answer(inference: InferenceRecord, text: str) -> InferenceRecord:
    response = dict(inference.response or {})
    first = dict((response.get("choices") or [{"index": 0}])[0])
    if "text" in first:
        first["text"] = text
    else:
        first["message"] = {"role": "assistant", "content": text}
    return replace(inference, response={**response, "choices": [first]})
