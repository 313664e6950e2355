"""Formats whose columns hold plain text: prompt/completion, Alpaca, question/answer, and columns that the user declares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from tunectl.artifacts.records import Message
from tunectl.config.schema.ingest import ColumnMapping
from tunectl.data.readers.conversation import BODIES, parse_message, tools_of, with_calls, with_system
from tunectl.data.readers.row import (
    FormatMismatchError,
    ParsedRow,
    RawRow,
    format_column_names,
    get_column,
    list_of,
    optional_text,
    parse_json_value,
    scalar,
    text_of,
)

INPUTS = ("query", "question", "problem", "prompt", "input", "inputs", "mr")
OUTPUTS = (
    "response",
    "solution",
    "answer",
    "answers",
    "targets",
    "target",
    "output",
    "completion",
    "answer_key",
    "references",
    "reference",
    "ref",
)
"""Column names of one input and its answer, likely ones first: those of swift and Axolotl, of evaluation files, and of
the E2E corpus."""
ARTICLES = ("article", "context", "passage")
"""Column names of a text that a question is about (Axolotl, Dolly, SQuAD)."""
REPLIES = ("output", "response", "answer", "answers")
"""Column names of the answer to an instruction or a question about a text."""
ANSWER_LISTS = frozenset({"answers", "references", "targets"})
"""Column names whose text may be a list of answers as JSON, as in CSV files; in other columns that is the answer."""
SPEAKER_KEYS = frozenset({"role", "from"})
CONTENT_KEYS = frozenset({*BODIES, "tool_calls", "function_call"})
"""Keys of a turn: who speaks, and what is in it."""
_TURN = re.compile(r"""["'](?:role|from)["']""")


def text(row: RawRow) -> ParsedRow:
    """Return a row with ``text``, raw text, parsed as a document."""
    return ParsedRow(text=text_of(row.columns, "text"))


def prompt_completion(row: RawRow) -> ParsedRow:
    """Return a row with ``prompt`` and ``completion`` parsed: two texts, or two lists of messages (TRL). Only the completion is trained on."""
    before = _messages(row.columns, "prompt", "user", train=False)
    after = _messages(row.columns, "completion", "assistant", train=None)
    tools = tools_of(row.columns.get("tools"))
    if len(after) == 1 and after[0].role == "assistant" and after[0].tool_calls is None and not after[0].parts:
        turns = with_system(before, optional_text(row.columns, "system"))
        return ParsedRow(turns=turns, answers=[after[0].content], tools=tools)
    return ParsedRow(turns=with_system([*before, *after], optional_text(row.columns, "system")), tools=tools)


def _messages(columns: dict[str, Any], name: str, role: str, *, train: bool | None) -> list[Message]:
    value = get_column(columns, name)
    result = scalar(value)
    if result is not None and (not result.lstrip().startswith("[{") or is_json_data(result)):
        return [parse_message({"role": role, "content": result}, 1)]
    items = list_of(columns, name)
    if items and all(isinstance(item, str) for item in items):
        raise FormatMismatchError(
            f"column {name!r} holds a list of texts; rename it to answers, or set ingest.sources.NAME.columns.answer to it"
        )
    turns = with_calls([parse_message(item, number) for number, item in enumerate(items, 1)])
    if train is None:
        return turns
    return [Message(t.role, t.content, t.name, t.tool_calls, train if t.role == "assistant" else None) for t in turns]


def is_json_data(text: str) -> bool:
    """Return whether JSON, whole or broken, is itself an answer or an input: none of its objects looks like a turn."""
    try:
        decoded = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return not _TURN.search(text)
    return not any(_looks_like_turn(item) for item in (decoded if isinstance(decoded, list) else [decoded]))


def _looks_like_turn(item: Any) -> bool:
    """Return whether an object has a speaker and a content, or nothing else: a text with its label is data."""
    if not isinstance(item, dict) or not item:
        return False
    keys = item.keys()
    has_both = not keys.isdisjoint(SPEAKER_KEYS) and not keys.isdisjoint(CONTENT_KEYS)
    return has_both or keys <= SPEAKER_KEYS | CONTENT_KEYS


def alpaca(row: RawRow) -> ParsedRow:
    """Return a parsed row with ``instruction``, optional ``input`` or ``context``, ``output`` or ``response``, ``system``, ``history``."""
    columns = row.columns
    return _parse_question_answer(
        columns, alpaca_input(columns), _first(columns, REPLIES), system=optional_text(columns, "system")
    )


def _first(columns: dict[str, Any], choices: tuple[str, ...]) -> str:
    """Return the first of these columns that exists; the first name where none does."""
    return next((name for name in choices if get_column(columns, name) is not None), choices[0])


def alpaca_input(columns: dict[str, Any]) -> str:
    """Return the text of ``instruction``, with that of ``input`` or ``context`` on the next line where there is one."""
    instruction = text_of(columns, "instruction")
    extra = optional_text(columns, "input") or optional_text(columns, "context")
    return f"{instruction}\n{extra}" if extra and instruction.strip() else extra or instruction


def openorca(row: RawRow) -> ParsedRow:
    """Return a row with ``system_prompt``, ``question``, ``response`` parsed."""
    return _parse_question_answer(
        row.columns, text_of(row.columns, "question"), "response", system=optional_text(row.columns, "system_prompt")
    )


def article_question(row: RawRow) -> ParsedRow:
    """Return a row with ``article`` (or ``context``, ``passage``), ``question``, ``answer`` parsed; the article comes first in the input."""
    columns = row.columns
    article, question = text_of(columns, _first(columns, ARTICLES)), text_of(columns, "question")
    prompt = f"{article}\n\n{question}" if article.strip() else question
    return _parse_question_answer(
        columns, prompt, _first(columns, ("answer", *REPLIES)), system=optional_text(columns, "system")
    )


def query_response(row: RawRow) -> ParsedRow:
    """Return a row with one input and one answer column of usual names parsed; optional ``system`` and ``history`` (swift)."""
    pair = pair_of(row.columns)
    if pair is None:
        raise FormatMismatchError(
            f"it needs an input column ({', '.join(INPUTS)}) and an answer column ({', '.join(OUTPUTS)}); it has {format_column_names(row.columns)}"
        )
    return _parse_question_answer(
        row.columns, text_of(row.columns, pair[0]), pair[1], system=optional_text(row.columns, "system")
    )


def pair_of(columns: dict[str, Any]) -> tuple[str, str] | None:
    """Return the names of the input and answer columns, where both have usual names; else None."""
    input_column = next((name for name in INPUTS if columns.get(name) is not None), None)
    answer = next((name for name in OUTPUTS if columns.get(name) is not None and name != input_column), None)
    return (input_column, answer) if input_column and answer else None


def _parse_question_answer(
    columns: dict[str, Any], question_column: str, answer: str, *, system: str | None
) -> ParsedRow:
    turns = [*history(columns), Message("user", question_column)]
    return ParsedRow(
        turns=with_system(turns, system), answers=answers_of(columns, answer), tools=tools_of(columns.get("tools"))
    )


def history(columns: dict[str, Any]) -> Iterator[Message]:
    """Yield the earlier turns in a ``history`` column: a list of pairs of texts.

    Raises  FormatMismatchError when it holds something else.
    """
    if columns.get("history") in (None, ""):
        return
    for number, pair in enumerate(list_of(columns, "history"), 1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise FormatMismatchError(f"item {number} of history is not a pair of texts")
        yield Message("user", pair[0])
        yield Message("assistant", pair[1])


def answers_of(columns: dict[str, Any], name: str) -> list[str]:
    """Return the answer in a column, or those of a list of texts, in a column of ``ANSWER_LISTS`` also as JSON."""
    value = get_column(columns, name)
    if isinstance(value, dict) and "text" in value:  # SQuAD keeps the places of its answers beside them
        value = value["text"]
    is_list_name = name.rpartition(".")[2] in ANSWER_LISTS
    if is_list_name and isinstance(value, str) and value.lstrip().startswith('["'):
        try:
            value = parse_json_value(value, name)
        except FormatMismatchError:  # an answer may well begin like that
            return [text_of(columns, name)]
    if not isinstance(value, list):
        return [text_of(columns, name)]
    texts = [scalar(item) for item in value]
    if not texts or None in texts:
        raise FormatMismatchError(
            f"column {name!r} must hold a text or a list of texts; its list is empty, or not all of it is text"
        )
    return [item for item in texts if item is not None]


def parse_declared_columns(row: RawRow, columns: ColumnMapping) -> ParsedRow:
    """Return a row parsed by the columns that the source's ``columns`` setting names."""
    if columns.text is not None:
        return ParsedRow(text=join_columns(row.columns, columns.text))
    if columns.prompt is None or columns.answer is None:
        raise FormatMismatchError(
            "no column is declared: set columns.text, or columns.prompt and columns.answer, of ingest.sources.NAME"
        )
    turns = [Message("user", join_columns(row.columns, columns.prompt))]
    system = None if columns.system is None else optional_text(row.columns, columns.system)
    return ParsedRow(turns=with_system(turns, system), answers=answers_of(row.columns, columns.answer))


def join_columns(columns: dict[str, Any], names: list[str]) -> str:
    """Return the texts of several columns with an empty line between them; blank ones are left out."""
    texts = [text_of(columns, name) for name in names]
    return "\n\n".join(item for item in texts if item.strip())
