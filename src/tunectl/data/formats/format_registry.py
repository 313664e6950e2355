"""All formats in one table, and detection of the format of a row."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from msgspec.structs import replace

from tunectl.data.formats import conversations, instruction, pretokenized, production_logs
from tunectl.data.readers.row import ParsedRow, RawRow, lower


class InstructionFormat(NamedTuple):
    """A supported format of examples or documents: how it is recognized and parsed."""

    name: str
    expects: str
    """Description of its columns for people."""
    fits: Callable[[dict[str, Any]], bool]
    """Returns whether a row with these columns (absent and null ones left out) may have this format."""
    parse: Callable[[RawRow], ParsedRow]
    uses: Callable[[dict[str, Any]], Collection[str]]
    """Returns the columns that it reads of such a row."""


class UnsupportedFormat(NamedTuple):
    """A known format that is not for supervised fine-tuning, such as preferences; it is recognized to explain the error."""

    name: str
    what: str
    fits: Callable[[dict[str, Any]], bool]


def _has(*names: str) -> Callable[[dict[str, Any]], bool]:
    return lambda columns: all(name in columns for name in names)


def _has_list(name: str, *keys: str) -> Callable[[dict[str, Any]], bool]:
    """Return a test of a column: it holds a list (or its JSON) whose first item has one of ``keys``; an empty list passes, too."""

    def fits(columns: dict[str, Any]) -> bool:
        value = columns.get(name)
        if isinstance(value, str):
            return value.lstrip()[:1] == "[" and (not keys or any(f'"{key}"' in value for key in keys))
        if not isinstance(value, list):
            return False
        return not keys or not value or (isinstance(value[0], dict) and any(key in value[0] for key in keys))

    return fits


def _is_unpaired(columns: dict[str, Any]) -> bool:
    label = columns.get("label", columns.get("kto_tag"))
    is_mark = isinstance(label, bool) or (isinstance(label, str) and label.lower() in {"true", "false"})
    return is_mark and ("completion" in columns or "messages" in columns or "conversations" in columns)


def _only(*names: str) -> Callable[[dict[str, Any]], Collection[str]]:
    return lambda _: names


def _about_a_text(columns: dict[str, Any]) -> bool:
    has_text = any(name in columns for name in instruction.ARTICLES)
    return has_text and "question" in columns and any(name in columns for name in instruction.REPLIES)


def _is_instruction(columns: dict[str, Any]) -> bool:
    return "instruction" in columns and any(name in columns for name in instruction.REPLIES)


def _pair(columns: dict[str, Any]) -> Collection[str]:
    return (*(instruction.pair_of(columns) or ()), "system", "history", "tools")


FORMATS: tuple[InstructionFormat, ...] = (
    InstructionFormat(
        "production_log",
        "request, response (OpenAI payloads)",
        _has("request", "response"),
        production_logs.production_log,
        _only("request", "response"),
    ),
    InstructionFormat(
        "tokens",
        "input_ids, labels",
        _has("input_ids"),
        pretokenized.tokens,
        _only("input_ids", "labels", "attention_mask"),
    ),
    InstructionFormat(
        "segments", "segments: [{text, label}]", _has_list("segments", "text"), pretokenized.segments, _only("segments")
    ),
    InstructionFormat(
        "messages",
        "messages: [{role, content}]",
        lambda columns: _has_list("messages")(columns) or _has_list("conversation", "role", "from")(columns),
        conversations.parse_messages,
        _only("messages", "conversation", "tools", "functions", "system"),
    ),
    InstructionFormat(
        "sharegpt",
        "conversations: [{from, value}]",
        _has_list("conversations"),
        conversations.parse_sharegpt,
        _only("conversations", "tools", "functions", "system"),
    ),
    InstructionFormat(
        "sharegpt_pairs",
        "conversation: [{human, assistant}]",
        _has_list("conversation"),
        conversations.sharegpt_pairs,
        _only("conversation", "tools", "system"),
    ),
    InstructionFormat(
        "prompt_completion",
        "prompt, completion",
        _has("prompt", "completion"),
        instruction.prompt_completion,
        _only("prompt", "completion", "tools", "system"),
    ),
    InstructionFormat(
        "openorca",
        "system_prompt, question, response",
        _has("system_prompt", "question", "response"),
        instruction.openorca,
        _only("system_prompt", "question", "response", "history", "tools"),
    ),
    InstructionFormat(
        "article_question",
        f"one of {', '.join(instruction.ARTICLES)} with question and one of {', '.join(instruction.REPLIES)}",
        _about_a_text,
        instruction.article_question,
        _only(*instruction.ARTICLES, "question", *instruction.REPLIES, "system", "history", "tools"),
    ),
    InstructionFormat(
        "alpaca",
        "instruction, output or response; optional input or context, system, history",
        _is_instruction,
        instruction.alpaca,
        _only("instruction", "input", "context", *instruction.REPLIES, "system", "history", "tools"),
    ),
    InstructionFormat(
        "query_response",
        f"one of {', '.join(instruction.INPUTS)} with one of {', '.join(instruction.OUTPUTS)}",
        lambda columns: instruction.pair_of(columns) is not None,
        instruction.query_response,
        _pair,
    ),
    InstructionFormat("text", "text", _has("text"), instruction.text, _only("text")),
)
"""More specific formats come first: the first that fits is taken."""

REFUSED: tuple[UnsupportedFormat, ...] = (
    UnsupportedFormat(
        "stepwise", "steps with a mark each (prompt, completions, labels)", _has("prompt", "completions", "labels")
    ),
    UnsupportedFormat(
        "preference", "pairs of a better and a worse answer (chosen, rejected)", _has("chosen", "rejected")
    ),
    UnsupportedFormat(
        "preference",
        "pairs of a better and a worse answer (chosen_response, rejected_response)",
        _has("chosen_response", "rejected_response"),
    ),
    UnsupportedFormat(
        "preference", "an answer with a worse one (messages, rejected_response)", _has("messages", "rejected_response")
    ),
    UnsupportedFormat(
        "preference", "an answer with a worse one (messages, rejected_messages)", _has("messages", "rejected_messages")
    ),
    UnsupportedFormat("unpaired", "single answers marked good or bad (label or kto_tag)", _is_unpaired),
)
"""Formats of preferences; they are tested before the others."""

PROMPT_ONLY = UnsupportedFormat("prompt_only", "prompts without answers (prompt)", _has("prompt"))
"""Taken only where no other format fits."""


def find(name: str) -> InstructionFormat:
    """Return the supported format called ``name``; the settings schema allows no other name."""
    return next(item for item in FORMATS if item.name == name)


def detect_format(columns: dict[str, Any]) -> InstructionFormat | UnsupportedFormat | None:
    """Return the format of a row with these columns; None where none fits."""
    present = {name: value for name, value in columns.items() if value is not None}
    every: tuple[InstructionFormat | UnsupportedFormat, ...] = (*REFUSED, *FORMATS, PROMPT_ONLY)
    return next((item for item in every if item.fits(present)), None)


def case_insensitive_match(form: InstructionFormat) -> InstructionFormat:
    """Return the format, changed to ignore case and surrounding blanks of column names."""

    def parse(row: RawRow) -> ParsedRow:
        return form.parse(replace(row, columns=lower(row.columns)))

    def uses(columns: dict[str, Any]) -> Collection[str]:
        columns_read = form.uses(lower(columns))
        return [name for name in columns if name.strip().lower() in columns_read]

    return form._replace(parse=parse, uses=uses)
