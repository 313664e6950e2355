"""Stage feedback: frozen live traffic and what people said about it -> examples for curate, and the drifted slice for the gate."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunectl.artifacts import atomic_io, manifest, row_counts
from tunectl.artifacts.records import (
    AnnotationMetadata,
    Comparison,
    Example,
    Message,
    ReferenceAnswer,
    RejectedRow,
    Source,
    truncate,
)
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.config.schema.feedback import FeedbackFromLog, FeedbackStage
from tunectl.data.readers.conversation import MAX_TURNS, parse_tool_calls
from tunectl.data.readers.row import RowError
from tunectl.data.split.groups import prompt_key
from tunectl.inference_log import export, training_window
from tunectl.inference_log.feedback import REASONS, FeedbackExample
from tunectl.inference_log.snapshot import Snapshot
from tunectl.inference_log.training_window import FeedbackExamples

EXAMPLES, SLICE, JUDGMENTS, ORIGINS = "examples.jsonl", "slice.jsonl", "judgments.jsonl", "origins.jsonl"
KIND = "inference_log"
NOT_TEXT: Final = "not_text"


@dataclass(frozen=True, slots=True)
class Inputs:
    """No fields: feedback reads no other stage, but the snapshots that ``inference_log/window.json`` lists; compose records the digest of that file."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folder that feedback fills with examples, judgments, the rows kept for the gate, and rejects."""

    artifact: Path
    """examples.jsonl (Example, all in the split train), slice.jsonl (Example: edits of held-out prompts of the newest snapshot, for the
    promotion gate), judgments.jsonl (Comparison: an edit is better than the model's answer), origins.jsonl, row_counts.json,
    rejects.jsonl; or passed_through.json."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers of inferences with feedback, for ``dvc metrics``: examples, edits, rows held out, and skipped ones by reason."""

    snapshots: int
    with_feedback: int
    """Inferences with feedback."""
    examples: int
    edits: int
    """Examples whose answer a person wrote (edits)."""
    held_out: int
    """Rows kept for the gate, of all snapshots."""
    annotators: int
    """People who edited or approved."""
    left_out: dict[str, int]
    """Number of inferences with feedback that are not examples, by reason."""


def run(cfg: FeedbackStage, inputs: Inputs, outputs: Outputs) -> Metrics:  # noqa: ARG001 - every stage is called with the same three
    """Convert answers that users approved or edited into examples for curate, and into judgments for preferences.

    Reads    the window file and the snapshots that it names, relative to the current folder
    Writes   outputs.artifact  see ``Outputs``
    Returns  Metrics

    Raises   ArtifactError     a snapshot is absent or was changed
    """
    section = cfg.feedback.root
    if not isinstance(section, FeedbackFromLog):
        return _pass_through(outputs.artifact, f"feedback.method is {section.method}")
    window = training_window.load_window(Path(section.window))
    if not window.snapshots:
        return _pass_through(outputs.artifact, f"{section.window} names no snapshot")
    return _write(training_window.build_feedback_examples(window, section), outputs.artifact, len(window.snapshots))


def _pass_through(folder: Path, reason: str) -> Metrics:
    atomic_io.write_json(folder / manifest.PASSED_THROUGH, {"reason": reason})
    return Metrics(0, 0, 0, 0, 0, 0, {})


def _write(selection: FeedbackExamples, folder: Path, snapshots: int) -> Metrics:
    result, snapshot_by_inference, inferences = selection.feedback, selection.newest_snapshots, selection.inferences
    total = row_counts.RowCounter("feedback")
    total.read(len(result.examples) + len(result.skipped))
    examples: list[tuple[FeedbackExample, Example]] = []
    for entry in result.examples:
        example = _example(entry, snapshot_by_inference[entry.inference.id].id)
        if example is None:
            total.reject(_reject(entry.inference.id, snapshot_by_inference, NOT_TEXT, "a turn is no plain text"))
        elif len(example.messages) >= MAX_TURNS:
            detail = f"{len(example.messages) + 1} turns; a conversation has {MAX_TURNS} at most"
            total.reject(_reject(entry.inference.id, snapshot_by_inference, "too_long", detail))
        else:
            examples.append((entry, example))
            total.keep()
    for name, reason in result.skipped:
        total.reject(_reject(name, snapshot_by_inference, reason, REASONS[reason]))
    learned = [(selected, example) for selected, example in examples if not selected.holdout]
    held_out = [(selected, example) for selected, example in examples if selected.holdout]
    atomic_io.write_rows(folder / EXAMPLES, (example for _, example in learned))
    atomic_io.write_rows(
        folder / SLICE,
        (example for selected, example in held_out if _is_used_by_gate(selected, selection.newly_selected)),
    )
    pairs = [_judgment(selected, example, inferences[selected.inference.id]) for selected, example in learned]
    atomic_io.write_rows(folder / JUDGMENTS, (pair for pair in pairs if pair is not None))
    atomic_io.write_rows(
        folder / ORIGINS, (_origin(selected, example, snapshot_by_inference) for selected, example in examples)
    )
    account = total.finish(records_out=len(learned))
    atomic_io.write_rows(folder / row_counts.REJECTS, total.rejects)
    atomic_io.write_json(folder / row_counts.ROW_COUNTS, account)
    return Metrics(
        snapshots,
        account.rows_in,
        len(learned),
        sum(selected.kind == "edit" for selected, _ in learned),
        len(held_out),
        len({selected.by for selected, _ in examples}),
        account.rejected,
    )


def _is_used_by_gate(example: FeedbackExample, new_ids: Collection[str]) -> bool:
    """Return whether the gate uses it. An approved answer is the champion's own: compared with it, the champion would always be better."""
    return example.kind == "edit" and example.inference.id in new_ids


def _example(example: FeedbackExample, snapshot_id: str) -> Example | None:
    """Return an example as a row to learn from; None where a turn is no plain text."""
    row = export.to_openai_row(example.inference)
    messages = _turns(row["messages"]) if row else None
    if row is None or not messages or messages[-1].role != "assistant" or messages[-1].tool_calls:
        return None
    source = Source(f"inference_log/{snapshot_id}/{example.inference.id}")
    return Example(
        id=f"live-{example.inference.id}",
        source=source,
        messages=messages[:-1],
        answers=[ReferenceAnswer(messages[-1].content, source)],
        tools=row.get("tools", []),
        kind=KIND,
        fields={"origin": example.kind},
        split="train",
    )


def _judgment(selected: FeedbackExample, example: Example, before: Any) -> Comparison | None:
    """Compare the edited answer with the original one; return None for an approval."""
    row = export.to_openai_row(before) if selected.kind == "edit" else None
    turns = _turns(row["messages"]) if row else None
    if not turns or turns[-1].content == example.answers[0].text:
        return None
    edited = Message("assistant", example.answers[0].text)
    vote = AnnotationMetadata(example.source, selected.by, before.accepted_at.isoformat())
    name = f"edit-{selected.inference.id}"
    answers = [[edited], [turns[-1]]]
    return Comparison(name, prompt_key(example), example.messages, answers, "first", vote, KIND, tools=example.tools)


def _turns(turns: Sequence[Any]) -> list[Message] | None:
    result = []
    for number, turn in enumerate(turns, 1):
        text = _text(turn.get("content"))
        role = turn.get("role")
        if role == "developer":
            role = "system"
        if role not in ("system", "user", "assistant", "tool") or (text is None and not turn.get("tool_calls")):
            return None
        try:  # arguments are JSON in a string here; the server gave the model an object
            calls = parse_tool_calls(turn["tool_calls"], number) if turn.get("tool_calls") else None
        except RowError:
            return None
        result.append(Message(role, text or "", turn.get("name"), calls))
    return result


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)  # as the server joins them
    return None


def _reject(name: str, snapshots: dict[str, Snapshot], reason: RejectReason, detail: str) -> RejectedRow:
    return RejectedRow(Source(f"inference_log/{snapshots[name].id}/{name}"), reason, truncate(detail))


def _origin(selected: FeedbackExample, example: Example, snapshots: dict[str, Snapshot]) -> dict[str, Any]:
    return {
        "example": example.id,
        "inference": selected.inference.id,
        "snapshot": snapshots[selected.inference.id].id,
        "release": selected.inference.release,
        "kind": selected.kind,
        "by": selected.by,
        "held_out": selected.holdout,
    }
