"""All rows of one source of preferences become judgements, or rejects with a reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.artifacts.records import Example, Judgement, Message, Source, Vote
from tunectl.artifacts.tally import Tally
from tunectl.config.preferences import PreferenceFiles
from tunectl.core import log
from tunectl.core.errors import DataError
from tunectl.data.formats import preference
from tunectl.data.formats.preference import Judged
from tunectl.data.formats.preference_table import PREFERENCE_FORMATS, find, recognise
from tunectl.data.grouping import input_key
from tunectl.data.reading.build import digest, read_split
from tunectl.data.reading.conversation import close, tools_of, with_calls
from tunectl.data.reading.decide import place, shorten
from tunectl.data.reading.files import SourceFile
from tunectl.data.reading.intake import Intake, ReadAs
from tunectl.data.reading.rows import Row, RowError, kind, lookup, names, scalar

SECTION = "preferences.sources"
_NOWHERE = Source("")
_log = log.get(__name__)


class JudgedAs(NamedTuple):
    """How the rows of a file are read."""

    type: str
    format: str
    holds: str
    why: str
    expects: str
    parse: Callable[[Row], Judged]
    unused: tuple[str, ...] = ()


class JudgedReport(Struct, frozen=True):
    """What became of one source of preferences."""

    declared: str
    files: int
    rows: int
    kept: int
    rejected: dict[str, int] = field(default_factory=dict)
    read_as: list[ReadAs] = field(default_factory=list)


class JudgedIntake(Intake[JudgedAs]):
    """Takes the files of one source of preferences in; ``finish`` closes its account."""

    def __init__(
        self,
        kind: str,
        reading: PreferenceFiles,
        *,
        tally: Tally,
        emit: Callable[[Judgement], None],
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

    def decide(self, file: SourceFile, sample: list[Row]) -> JudgedAs:
        """How the rows of a file are read."""
        return decide(self._reading, file, sample, self._key)

    def pins(self) -> str:
        """How a decision that was wrong is set right."""
        known = ", ".join(item.name for item in PREFERENCE_FORMATS)
        return f"pin what it is: {self._key}.format=<{known}>, or the columns: {self._key}.columns.prompt, .chosen and .rejected"

    def make(self, row: Row, decision: JudgedAs) -> None:
        """Build the judgement of one row and hand it on; the row is counted by whoever takes it."""
        made = judgement(row, decision.parse(row), self._reading, self._kind)
        self._counts["kept"] += 1
        self._fields_seen.update(made.fields)
        self._emit(made)

    def finish(self) -> JudgedReport:
        """Close the account of the source.

        Raises  DataError when it held no rows, when all were rejected, or when it was misread.
        """
        self.require_sound()
        counts = self._counts
        _log.info("%s: %d rows, %d judgements", self._kind, counts["rows"], counts["kept"])
        rejected = dict(sorted(self._rejected.items()))
        return JudgedReport(
            self._declared, counts["files"], counts["rows"], counts["kept"], rejected, list(self._decisions.values())
        )


def decide(reading: PreferenceFiles, file: SourceFile, sample: list[Row], key: str) -> JudgedAs:
    """The format of a file from its first rows, or as pinned.

    Raises  DataError when the columns fit no format of preferences; it shows the first row.
    """
    columns, type_ = reading.columns, file.type or "rows"
    if columns.chosen is not None or columns.prompt is not None or reading.format == "columns":
        pins = ", ".join(
            name for name in (columns.prompt, columns.chosen or "chosen", columns.rejected or "rejected") if name
        )
        parse = partial(preference.pinned, columns=columns)
        return JudgedAs(type_, "columns", "preferences", f"pinned: {pins}", pins, parse)
    if reading.format != "auto":
        found = find(reading.format)
        return JudgedAs(type_, found.name, "preferences", "pinned", found.expects, found.parse)
    counts = Counter(recognise(row.columns) for row in sample)
    counts.pop(None, None)
    if not counts:
        raise DataError(
            f"{key}: the columns of {place(sample[0])} fit no format of preferences: {names(sample[0].columns)}\n"
            f"    {shorten(sample[0])}",
            hint=f"pin them: {key}.columns.prompt, {key}.columns.chosen and {key}.columns.rejected",
        )
    likeliest, _ = counts.most_common(1)[0]
    assert likeliest is not None
    why = f"columns {names(sample[0].columns)}"
    return JudgedAs(type_, likeliest.name, "preferences", why, likeliest.expects, likeliest.parse)


def judgement(row: Row, judged: Judged, reading: PreferenceFiles, kind_: str) -> Judgement:
    """The record of one row.

    Raises  RowError ``empty_turn``, ``role_order``, ``last_turn_not_assistant``, ``too_long``, ``bad_margin``,
            ``unknown_split``, ``empty_answer``, ``tools_not_json``.
    """
    judged = replace(judged, turns=with_calls(judged.turns), answers=[with_calls(answer) for answer in judged.answers])
    if all(_blank(answer) for answer in judged.answers):
        raise RowError("empty_answer", "there is no text in any answer")
    for answer in judged.answers:
        _sound(judged.turns, answer)
    offered = tools_of(next(filter(None, (row.columns.get(name) for name in ("tools", "functions"))), None))
    size = sum(len(turn.content) for turns in (judged.turns, *judged.answers) for turn in turns)
    if size > reading.limits.characters:
        raise RowError("too_long", f"{size} characters; limits.characters is {reading.limits.characters}")
    found = {name: scalar(lookup(row.columns, column)) for name, column in reading.fields.items()}
    return Judgement(
        id=digest("j", kind_, row.source.file, row.source.row, judged.turns, judged.answers),
        prompt=prompt_key(judged.turns, offered),
        messages=judged.turns,
        answers=judged.answers,
        choice=judged.choice,
        vote=_vote(row, reading),
        kind=kind_,
        fields={name: value.strip() for name, value in found.items() if value is not None and value.strip()},
        split=read_split(row, reading.columns.split),
        tools=offered,
    )


def prompt_key(messages: list[Message], tools: list[dict[str, Any]]) -> str:
    """The digest that equal inputs share, here and in ``split``."""
    return input_key(Example("", _NOWHERE, messages=messages, tools=tools))


def _blank(answer: list[Message]) -> bool:
    return not any(turn.content.strip() or turn.tool_calls for turn in answer)


def _sound(before: list[Message], answer: list[Message]) -> None:
    """Check roles and their order; an empty answer may well lose or win against another (HH has such)."""
    if not before:
        raise RowError("empty_turn", "there is no prompt")
    if not answer:
        raise RowError("empty_answer", "one answer is an empty list of turns")
    if not answer[-1].content.strip() and not answer[-1].tool_calls:
        answer = [*answer[:-1], replace(answer[-1], content="(nothing)")]
    turns = before if before[0].role != "assistant" else [Message("user", "(the beginning)"), *before]
    close([*turns, *answer], [])


def _vote(row: Row, reading: PreferenceFiles) -> Vote:
    pins = reading.columns

    def said(pinned: str | None, *usual: str) -> str | None:
        found = (scalar(lookup(row.columns, name)) for name in ([pinned] if pinned else usual))
        return next((value.strip() for value in found if value is not None and value.strip()), None)

    tags = lookup(row.columns, pins.tags or "tags")
    listed = [str(item) for item in tags] if isinstance(tags, list) else (said(pins.tags, "tags") or "").split(",")
    return Vote(
        row.source,
        said(pins.annotator, "annotator"),
        said(pins.at, "at", "timestamp"),
        _margin(lookup(row.columns, pins.margin or "margin")),
        [tag.strip() for tag in listed if tag.strip()],
    )


def _margin(value: object) -> float | None:
    """A margin, written as a number or as its text.

    Raises  RowError ``bad_margin`` when it is not a finite number of 0 or more.
    """
    if value is None or value == "":
        return None
    text = scalar(value)
    try:
        found = math.nan if text is None or isinstance(value, bool) else float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or found < 0:
        raise RowError(
            "bad_margin", f"margin is {text if text is not None else kind(value)!r}; allowed is a number of 0 or more"
        )
    return found
