"""Convert all rows of one source of preferences to judgments, or rejects with a reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.artifacts.records import AnnotationMetadata, Comparison, Example, Message, Source
from tunectl.artifacts.row_counts import RowCounter
from tunectl.config.schema.preferences import PreferenceFiles
from tunectl.core import logging_setup
from tunectl.core.errors import DataError
from tunectl.data.formats import preference_formats
from tunectl.data.formats.preference_formats import ParsedPreference
from tunectl.data.formats.preference_registry import PREFERENCE_FORMATS, detect_format, get_format
from tunectl.data.readers.conversation import split_off_answer, tools_of, with_calls
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.format_detection import truncate_row
from tunectl.data.readers.record_builder import digest, read_split
from tunectl.data.readers.row import RawRow, RowError, get_column, kind, names, scalar
from tunectl.data.readers.source_reader import FormatDecision, SourceReader
from tunectl.data.split.groups import prompt_key

SECTION = "preferences.sources"
_NOWHERE = Source("")
_log = logging_setup.get_logger(__name__)


class DetectedPreferenceFormat(NamedTuple):
    """How the rows of a file are read."""

    type: str
    format: str
    holds: str
    why: str
    expects: str
    parse: Callable[[RawRow], ParsedPreference]
    unused: tuple[str, ...] = ()


class PreferenceSourceReport(Struct, frozen=True):
    """Result of reading one source of preferences."""

    declared: str
    files: int
    rows: int
    kept: int
    rejected: dict[str, int] = field(default_factory=dict)
    read_as: list[FormatDecision] = field(default_factory=list)


class PreferenceReader(SourceReader[DetectedPreferenceFormat]):
    """Reads the files of one source of preferences; ``finish`` completes its counts."""

    def __init__(
        self,
        kind: str,
        reading: PreferenceFiles,
        *,
        tally: RowCounter,
        emit: Callable[[Comparison], None],
        max_rejected_share: float,
    ) -> None:
        super().__init__(
            SECTION,
            kind,
            reading.path,
            limits=reading.limits,
            fields=reading.fields,
            tally=tally,
            max_rejected_share=max_rejected_share,
        )
        self._reading, self._emit = reading, emit

    def decide(self, file: SourceFile, sample: list[RawRow]) -> DetectedPreferenceFormat:
        """Return how the rows of a file are read."""
        return decide(self._reading, file, sample, self._key)

    def explain_pinning(self) -> str:
        """Return how to correct a wrong format decision."""
        format_names = ", ".join(item.name for item in PREFERENCE_FORMATS)
        return f"say what it is: {self._key}.format=<{format_names}>, or the columns: {self._key}.columns.prompt, .chosen and .rejected"

    def make(self, row: RawRow, decision: DetectedPreferenceFormat) -> None:
        """Build the judgment of one row and store it; the caller counts the row."""
        comparison = build_comparison(row, decision.parse(row), self._reading, self._kind)
        self._counts["kept"] += 1
        self._fields_seen.update(comparison.fields)
        self._emit(comparison)

    def finish(self) -> PreferenceSourceReport:
        """Complete the counts of the source.

        Raises  DataError when it held no rows, when all were rejected, or when its format was wrong.
        """
        self.require_sound()
        counts = self._counts
        _log.info("%s: %d rows, %d judgments", self._kind, counts["rows"], counts["kept"])
        rejected = dict(sorted(self._rejected.items()))
        return PreferenceSourceReport(
            self._declared, counts["files"], counts["rows"], counts["kept"], rejected, list(self._decisions.values())
        )


def decide(reading: PreferenceFiles, file: SourceFile, sample: list[RawRow], key: str) -> DetectedPreferenceFormat:
    """Return the format of a file from its first rows, or as set.

    Raises  DataError when the columns fit no format of preferences; it shows the first row.
    """
    columns, type_ = reading.columns, file.type or "rows"
    if columns.chosen is not None or columns.prompt is not None or reading.format == "columns":
        pins = ", ".join(
            name for name in (columns.prompt, columns.chosen or "chosen", columns.rejected or "rejected") if name
        )
        parse = partial(preference_formats.parse_pinned_columns, columns=columns)
        return DetectedPreferenceFormat(type_, "columns", "preferences", f"set: {pins}", pins, parse)
    if reading.format != "auto":
        format_ = get_format(reading.format)
        return DetectedPreferenceFormat(type_, format_.name, "preferences", "pinned", format_.expects, format_.parse)
    counts = Counter(detect_format(row.columns) for row in sample)
    counts.pop(None, None)
    if not counts:
        raise DataError(
            f"{key}: the columns of {sample[0].source.location} fit no format of preferences: {names(sample[0].columns)}\n"
            f"    {truncate_row(sample[0])}",
            hint=f"say which columns they are: {key}.columns.prompt, {key}.columns.chosen and {key}.columns.rejected",
        )
    likeliest, _ = counts.most_common(1)[0]
    assert likeliest is not None
    reason = f"columns {names(sample[0].columns)}"
    return DetectedPreferenceFormat(type_, likeliest.name, "preferences", reason, likeliest.expects, likeliest.parse)


def build_comparison(row: RawRow, parsed: ParsedPreference, reading: PreferenceFiles, kind_: str) -> Comparison:
    """Return the record of one row.

    Raises  RowError ``empty_turn``, ``role_order``, ``last_turn_not_assistant``, ``too_long``, ``bad_margin``,
            ``unknown_split``, ``empty_answer``, ``tools_not_json``.
    """
    parsed = replace(parsed, turns=with_calls(parsed.turns), answers=[with_calls(answer) for answer in parsed.answers])
    if all(_blank(answer) for answer in parsed.answers):
        raise RowError("empty_answer", "there is no text in any answer")
    for answer in parsed.answers:
        _sound(parsed.turns, answer)
    offered = tools_of(next(filter(None, (row.columns.get(name) for name in ("tools", "functions"))), None))
    size = sum(len(turn.content) for turns in (parsed.turns, *parsed.answers) for turn in turns)
    if size > reading.limits.max_characters:
        raise RowError("too_long", f"{size} characters; limits.max_characters is {reading.limits.max_characters}")
    fields = {name: scalar(get_column(row.columns, column)) for name, column in reading.fields.items()}
    return Comparison(
        id=digest("j", kind_, row.source.file, row.source.row, parsed.turns, parsed.answers),
        prompt=prompt_key(Example("", _NOWHERE, messages=parsed.turns, tools=offered)),
        messages=parsed.turns,
        answers=parsed.answers,
        choice=parsed.choice,
        annotation=_vote(row, reading),
        kind=kind_,
        fields={name: value.strip() for name, value in fields.items() if value is not None and value.strip()},
        split=read_split(row, reading.columns.split),
        tools=offered,
    )


def _blank(answer: list[Message]) -> bool:
    return not any(turn.content.strip() or turn.tool_calls for turn in answer)


def _sound(before: list[Message], answer: list[Message]) -> None:
    """Check roles and their order; an empty answer is allowed, since it can be compared with another (HH has such)."""
    if not before:
        raise RowError("empty_turn", "there is no prompt")
    if not answer:
        raise RowError("empty_answer", "one answer is an empty list of turns")
    if not answer[-1].content.strip() and not answer[-1].tool_calls:
        answer = [*answer[:-1], replace(answer[-1], content="(nothing)")]
    turns = before if before[0].role != "assistant" else [Message("user", "(the beginning)"), *before]
    split_off_answer([*turns, *answer], [])


def _vote(row: RawRow, reading: PreferenceFiles) -> AnnotationMetadata:
    pins = reading.columns

    def read_column(pinned: str | None, *usual: str) -> str | None:
        texts = (scalar(get_column(row.columns, name)) for name in ([pinned] if pinned else usual))
        return next((value.strip() for value in texts if value is not None and value.strip()), None)

    tags = get_column(row.columns, pins.tags or "tags")
    listed = (
        [str(item) for item in tags] if isinstance(tags, list) else (read_column(pins.tags, "tags") or "").split(",")
    )
    return AnnotationMetadata(
        row.source,
        read_column(pins.annotator, "annotator"),
        read_column(pins.at, "at", "timestamp"),
        _margin(get_column(row.columns, pins.margin or "margin")),
        [tag.strip() for tag in listed if tag.strip()],
    )


def _margin(value: object) -> float | None:
    """Return a margin that is given as a number or as text.

    Raises  RowError ``bad_margin`` when it is not a finite number of 0 or more.
    """
    if value is None or value == "":
        return None
    text = scalar(value)
    try:
        margin = math.nan if text is None or isinstance(value, bool) else float(text)
    except ValueError:
        margin = math.nan
    if not math.isfinite(margin) or margin < 0:
        raise RowError(
            "bad_margin", f"margin is {text if text is not None else kind(value)!r}; allowed is a number of 0 or more"
        )
    return margin
