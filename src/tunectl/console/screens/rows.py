"""Rows and rejects of a stage, page by page, filtered by reason, raw file and text; all filters are in the address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, field

from tunectl.artifacts.records import truncate
from tunectl.artifacts.row_counts import REJECTS
from tunectl.console.read_context import NotFoundError, ProblemList, ReadContext
from tunectl.console.row_index import RowIndex, open_index
from tunectl.core.errors import DataError
from tunectl.data.pipeline_row_counts import WRITES
from tunectl.pipeline.lineage_trace import format_source
from tunectl.pipeline.stages import STAGES

SIZE: Final = 50
LETTERS: Final = 280
MAX_CHOICES: Final = 24
MAX_VALUE: Final = 60
"""Characters of a value that is offered as a filter."""
FIELD: Final = "field."
"""Beginning of the name of a filter on a field: ``field.city=Atlanta``."""


class RowSummary(Struct, frozen=True):
    """One row in a list: its id, source, and the beginning of its texts."""

    id: str
    """Id of the record; empty for a reject, which has none."""
    source: str
    """FILE:ROW of the raw data."""
    label: str
    """Reject reason, or name of the declared source."""
    text: str
    """Beginning of the text."""
    answer: str = ""
    detail: str = ""
    fields: dict[str, str] = field(default_factory=dict)


class RowsScreen(Struct, frozen=True):
    """Content of the screen Rows: one page of a stage's rows or rejects, and the filters' options."""

    stage: str
    stages: list[str]
    """Stages that have rows."""
    file: str
    files: list[tuple[str, int]]
    """Files of the stage and their number of lines; rejects are one of them."""
    rejects: bool
    labels: list[tuple[str, int]]
    """Reasons (of rejects) or kinds, and their number of lines."""
    sources: list[tuple[str, int]]
    label: str
    source: str
    text: str
    fields: dict[str, str]
    """Values of fields that the rows must have."""
    choices: list[tuple[str, str]]
    """Fields of the rows of this page and their values, most frequent first: filters that a page offers."""
    at: int
    size: int
    total: int
    """Number of lines that match the filters."""
    rows: list[RowSummary]
    problems: dict[str, str] = field(default_factory=dict)


def read_rows(context: ReadContext, query: Mapping[str, str]) -> RowsScreen:
    """Return one page of rows; ``query``: stage, part (``rejects`` for rejected rows), file, reason, source, q (text), at (index of the first row).

    ``field.NAME``: the value that the row's field NAME has; with several, a row must have all.

    Raises  NotFoundError for an unknown stage or file.
    """
    problems = ProblemList()
    there = {stage.name: _list_files(context, stage.name, problems) for stage in STAGES}
    stages = [name for name, files in there.items() if files]
    stage = query.get("stage") or (stages[0] if stages else "ingest")
    if stage not in there:
        raise NotFoundError(stage)
    files = there[stage]
    requested = REJECTS if query.get("part") == "rejects" else query.get("file", "")
    file = requested or _choose_file(context, stage, files, query.get("source", ""))
    if requested and requested != REJECTS and requested not in dict(files):
        raise NotFoundError(requested)
    label, source, text = query.get("reason", ""), query.get("source", ""), query.get("q", "")[:200]
    fields = {name.removeprefix(FIELD): value for name, value in query.items() if name.startswith(FIELD) and value}
    index = (
        problems.attempt(file, lambda: open_index(context, context.layout.artifact(stage) / file), None)
        if file
        else None
    )
    nowhere: Sequence[int] = ()
    lines = (
        problems.attempt(file, lambda: index.select(label, source, text, fields), nowhere)
        if index is not None
        else nowhere
    )
    at = _parse_position(query.get("at", ""), len(lines))
    nothing: list[dict[str, Any]] = []
    page = [
        summarize_row(row) for row in problems.attempt(file, lambda: _read_page(index, lines[at : at + SIZE]), nothing)
    ]
    return RowsScreen(
        stage,
        stages,
        file,
        files,
        file == REJECTS,
        index.count_labels() if index is not None else [],
        index.count_sources()[:20] if index is not None else [],
        label,
        source,
        text,
        fields,
        _list_choices(page),
        at,
        SIZE,
        len(lines),
        page,
        problems.problems,
    )


def _list_files(context: ReadContext, stage: str, problems: ProblemList) -> list[tuple[str, int]]:
    folder, files = context.layout.artifact(stage), []
    for name in (*WRITES.get(stage, ()), REJECTS):
        path = folder / name
        if path.is_file() and path.stat().st_size:
            files.append((name, problems.attempt(name, partial(_count_lines, context, path), 0)))
    return files


def _choose_file(context: ReadContext, stage: str, files: list[tuple[str, int]], source: str) -> str:
    """Return the first file of a stage that has rows of a raw file, else its first."""
    for name, _ in files if source else ():
        try:
            index = open_index(context, context.layout.artifact(stage) / name)
        except DataError:
            continue  # the page of that file says what is wrong with it
        if index is not None and index.select(source=source):
            return name
    return files[0][0] if files else ""


def _count_lines(context: ReadContext, path: Path) -> int:
    return len(open_index(context, path) or ())


def _read_page(index: RowIndex | None, lines: Any) -> list[dict[str, Any]]:
    return index.read(lines) if index is not None else []


def _list_choices(page: Sequence[RowSummary]) -> list[tuple[str, str]]:
    counts = Counter(item for row in page for item in row.fields.items() if len(item[1]) <= MAX_VALUE)
    return [item for item, _ in counts.most_common(MAX_CHOICES)]


def _parse_position(text: str, total: int) -> int:
    at = int(text) if text.isdecimal() and len(text) < 12 else 0
    return min(at, max(0, total - 1)) // SIZE * SIZE


def summarize_row(row: Mapping[str, Any]) -> RowSummary:
    """Return the summary of a decoded row: document, example, pair or reject."""
    votes = row.get("annotations") or [{}]
    source = row.get("source") or votes[0].get("source")
    if "reason" in row:
        return RowSummary(
            "",
            format_source(source),
            row["reason"],
            truncate(row.get("sample", ""), LETTERS),
            "",
            row.get("detail", ""),
        )
    messages = row.get("messages") or []
    text = row.get("text") or (messages[-1]["content"] if messages else "")
    text = text or "".join(part["text"] for part in row.get("segments") or ())
    answers = row.get("answers") or []
    chosen = row.get("chosen") or row.get("completion") or []
    answer = answers[0]["text"] if answers else chosen[-1]["content"] if chosen else ""
    return RowSummary(
        str(row.get("id", "")),
        format_source(source),
        str(row.get("kind", "")),
        truncate(text, LETTERS),
        truncate(answer, LETTERS),
        "",
        {str(name): str(value) for name, value in (row.get("fields") or {}).items()},
    )
