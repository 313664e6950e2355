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
from tunectl.data.readers.row import RawRow, RowError, format_column_names, get_column, kind, scalar
from tunectl.data.readers.source_reader import FormatDecision, SourceReader
from tunectl.data.split.groups import prompt_key

SECTION = "preferences.sources"
_NOWHERE = Source("")
_log = logging_setup.get_logger(__name__)


class DetectedPreferenceFormat(NamedTuple):
    """Format of a file's preference rows, as detected or set: how they are parsed, and what decided it."""

    type: str
    format: str
    holds: str
    why: str
    expects: str
    parse: Callable[[RawRow], ParsedPreference]
    unused: tuple[str, ...] = ()


class PreferenceSourceReport(Struct, frozen=True):
    """Counts and format decisions of one source of preferences."""

    declared: str
    files: int
    rows: int
    kept: int
    rejected: dict[str, int] = field(default_factory=dict)
    read_as: list[FormatDecision] = field(default_factory=list)


class PreferenceReader(SourceReader[DetectedPreferenceFormat]):
    """Reads the files of one source of preferences into judgments; ``finish`` completes its counts."""

    def __init__(
        self,
        kind: str,
        options: PreferenceFiles,
        *,
        tally: RowCounter,
        emit: Callable[[Comparison], None],
        max_rejected_share: float,
    ) -> None:
        super().__init__(
            SECTION,
            kind,
            options.path,
            limits=options.limits,
            fields=options.fields,
            tally=tally,
            max_rejected_share=max_rejected_share,
        )
        self._options, self._emit = options, emit

    def decide(self, file: SourceFile, sample: list[RawRow]) -> DetectedPreferenceFormat:
        """Return the format of a file's rows, from a sample of them."""
        return decide(self._options, file, sample, self._key)

    def suggest_format_setting(self) -> str:
        """Return a hint how to set a format that was detected wrongly."""
        format_names = ", ".join(item.name for item in PREFERENCE_FORMATS)
        return f"say what it is: {self._key}.format=<{format_names}>, or the columns: {self._key}.columns.prompt, .chosen and .rejected"

    def make(self, row: RawRow, decision: DetectedPreferenceFormat) -> None:
        """Build the judgment of one row and keep it; the caller counts the row."""
        comparison = build_comparison(row, decision.parse(row), self._options, self._kind)
        self._counts["kept"] += 1
        self._fields_seen.update(comparison.fields)
        self._emit(comparison)

    def finish(self) -> PreferenceSourceReport:
        """Complete the counts of the source and return them.

        Raises  DataError when it held no rows, when all were rejected, or when its format was wrong.
        """
        self.require_sound()
        counts = self._counts
        _log.info("%s: %d rows, %d judgments", self._kind, counts["rows"], counts["kept"])
        rejected = dict(sorted(self._rejected.items()))
        return PreferenceSourceReport(
            self._declared, counts["files"], counts["rows"], counts["kept"], rejected, list(self._decisions.values())
        )


def decide(options: PreferenceFiles, file: SourceFile, sample: list[RawRow], key: str) -> DetectedPreferenceFormat:
    """Return the preference format of a file, detected from its first rows or as set. ``key`` is the source's dotted key, for messages.

    Raises  DataError when the columns fit no format of preferences; it shows the first row.
    """
    columns, type_ = options.columns, file.type or "rows"
    if columns.chosen is not None or columns.prompt is not None or options.format == "columns":
        pins = ", ".join(
            name for name in (columns.prompt, columns.chosen or "chosen", columns.rejected or "rejected") if name
        )
        parse = partial(preference_formats.parse_declared_columns, columns=columns)
        return DetectedPreferenceFormat(type_, "columns", "preferences", f"set: {pins}", pins, parse)
    if options.format != "auto":
        format_ = get_format(options.format)
        return DetectedPreferenceFormat(type_, format_.name, "preferences", "pinned", format_.expects, format_.parse)
    counts = Counter(detect_format(row.columns) for row in sample)
    counts.pop(None, None)
    if not counts:
        raise DataError(
            f"{key}: the columns of {sample[0].source.location} fit no format of preferences: {format_column_names(sample[0].columns)}\n"
            f"    {truncate_row(sample[0])}",
            hint=f"say which columns they are: {key}.columns.prompt, {key}.columns.chosen and {key}.columns.rejected",
        )
    likeliest, _ = counts.most_common(1)[0]
    assert likeliest is not None
    reason = f"columns {format_column_names(sample[0].columns)}"
    return DetectedPreferenceFormat(type_, likeliest.name, "preferences", reason, likeliest.expects, likeliest.parse)


def build_comparison(row: RawRow, parsed: ParsedPreference, options: PreferenceFiles, kind_: str) -> Comparison:
    """Return the judgment of one parsed row; ``kind_`` is the name of its source.

    Raises  RowError ``empty_turn``, ``role_order``, ``last_turn_not_assistant``, ``too_long``, ``bad_margin``,
            ``unknown_split``, ``empty_answer``, ``tools_not_json``.
    """
    parsed = replace(parsed, turns=with_calls(parsed.turns), answers=[with_calls(answer) for answer in parsed.answers])
    if all(_blank(answer) for answer in parsed.answers):
        raise RowError("empty_answer", "there is no text in any answer")
    for answer in parsed.answers:
        _check_turns(parsed.turns, answer)
    offered = tools_of(next(filter(None, (row.columns.get(name) for name in ("tools", "functions"))), None))
    size = sum(len(turn.content) for turns in (parsed.turns, *parsed.answers) for turn in turns)
    if size > options.limits.max_characters:
        raise RowError(
            "too_long",
            f"prompt and answers have {size} characters together; raise limits.max_characters ({options.limits.max_characters})",
        )
    fields = {name: scalar(get_column(row.columns, column)) for name, column in options.fields.items()}
    return Comparison(
        id=digest("j", kind_, row.source.file, row.source.row, parsed.turns, parsed.answers),
        prompt=prompt_key(Example("", _NOWHERE, messages=parsed.turns, tools=offered)),
        messages=parsed.turns,
        answers=parsed.answers,
        choice=parsed.choice,
        annotation=_vote(row, options),
        kind=kind_,
        fields={name: value.strip() for name, value in fields.items() if value is not None and value.strip()},
        split=read_split(row, options.columns.split),
        tools=offered,
    )


def _blank(answer: list[Message]) -> bool:
    return not any(turn.content.strip() or turn.tool_calls for turn in answer)


def _check_turns(before: list[Message], answer: list[Message]) -> None:
    """Check roles and their order; an empty answer is allowed, since it can be compared with another (HH has such)."""
    if not before:
        raise RowError("empty_turn", "there is no prompt: no turn comes before the answer")
    if not answer:
        raise RowError("empty_answer", "one answer is an empty list of turns")
    if not answer[-1].content.strip() and not answer[-1].tool_calls:
        answer = [*answer[:-1], replace(answer[-1], content="(nothing)")]
    turns = before if before[0].role != "assistant" else [Message("user", "(the beginning)"), *before]
    split_off_answer([*turns, *answer], [])


def _vote(row: RawRow, options: PreferenceFiles) -> AnnotationMetadata:
    pins = options.columns

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
            "bad_margin",
            f"margin is {text[:80] if text is not None else kind(value)!r}; allowed is a number of 0 or more",
        )
    return margin
