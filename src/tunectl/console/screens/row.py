"""Screen of one row: its text, its raw line, what each stage did with it, and the releases that were trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from tunectl.console.read_context import NotFoundError, ProblemList, ReadContext
from tunectl.data.pipeline_row_counts import WRITES
from tunectl.pipeline import lineage_trace
from tunectl.pipeline.lineage_trace import FILES, RowStep
from tunectl.registry.release_store import ReleaseRegistry


class RowTurn(Struct, frozen=True):
    """One message or document text of a row, and whether it is trained on."""

    role: str
    """Role of the text: system, user, assistant, tool, document, answer, chosen, rejected."""
    text: str
    learned: bool
    """Whether a model is trained on it."""


class RowScreen(Struct, frozen=True):
    """Content of the screen of one row: its text, its fields, and what each stage did with it."""

    id: str
    source: str
    """FILE:ROW of the raw data."""
    kind: str
    turns: list[RowTurn]
    fields: dict[str, str]
    weight: float
    cluster: str
    """Rows of one cluster stay in one split; empty: it is in none."""
    steps: list[RowStep]
    learned_by: list[str]
    """Releases that were trained on it."""
    problems: dict[str, str] = field(default_factory=dict)


def read_row(context: ReadContext, query: Mapping[str, str]) -> RowScreen:
    """Return the row with the id ``query["id"]``, as written by the latest stage that has it.

    Raises  NotFoundError where no stage has it.
    """
    problems, layout = ProblemList(), context.layout
    row = _find_row(context, query["id"])
    if row is None:
        raise NotFoundError(query["id"])
    votes = row.get("annotations") or [{}]
    source = lineage_trace.format_source(row.get("source") or votes[0].get("source"))
    none: list[RowStep] = []
    steps = problems.attempt("way through the stages", lambda: list(lineage_trace.trace_row(layout, source)), none)
    learned = problems.attempt(
        "releases",
        lambda: lineage_trace.list_learning_releases(ReleaseRegistry(layout.releases), layout, steps),
        list[str](),
    )
    return RowScreen(
        str(row["id"]),
        source,
        str(row.get("kind", "")),
        list(_list_turns(row)),
        {str(name): str(value) for name, value in (row.get("fields") or {}).items()},
        float(row.get("weight", 1.0)),
        str(row.get("cluster") or ""),
        steps,
        learned,
        problems.problems,
    )


def _find_row(context: ReadContext, name: str) -> dict[str, Any] | None:
    """Return the record with that id; only lines that contain it are decoded."""
    needle = b'"id":' + msgspec.json.encode(name)
    files_by_stage = {**FILES, "preferences": WRITES["preferences"]}
    for stage, files in reversed(files_by_stage.items()):
        for file in files:
            for _, line in lineage_trace.find_lines(context.layout.artifact(stage) / file, [needle]):
                row: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
                if row.get("id") == name:
                    return row
    return None


def _list_turns(row: Mapping[str, Any]) -> Iterator[RowTurn]:
    if row.get("text"):
        yield RowTurn("document", row["text"], learned=True)
    for message in row.get("messages") or ():
        yield RowTurn(message["role"], message["content"], learned=bool(message.get("train")))
    for answer in row.get("answers") or ():
        if answer.get("parts"):
            for part in answer["parts"]:
                yield RowTurn("answer", part["text"], learned=part["train"])
        else:
            yield RowTurn("answer", answer["text"], learned=True)
    for role in ("chosen", "rejected", "completion"):
        for message in row.get(role) or ():
            yield RowTurn(role, message["content"], learned=True)
    for segment in row.get("segments") or ():
        yield RowTurn("text", segment["text"], learned=segment["train"])
    tokens = row.get("tokens")
    if tokens:
        learned = sum(label != -100 for label in tokens["labels"])
        yield RowTurn("tokens", f"{len(tokens['ids'])} tokens, {learned} of them learned", learned=learned > 0)
