"""All formats in one table, and which of them a row has."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from msgspec.structs import replace

from tunectl.data.formats import chats, flat, logs, raw
from tunectl.data.reading.rows import Parsed, Row, lower


class Format(NamedTuple):
    """One row of the table."""

    name: str
    expects: str
    """Its columns, in words for people."""
    fits: Callable[[dict[str, Any]], bool]
    """Whether a row with these columns (absent and null ones left out) looks like it."""
    parse: Callable[[Row], Parsed]
    uses: Callable[[dict[str, Any]], Collection[str]]
    """The columns that it reads of such a row."""


class Refused(NamedTuple):
    """A format that is known, but is not for supervised tuning."""

    name: str
    what: str
    fits: Callable[[dict[str, Any]], bool]


def _has(*wanted: str) -> Callable[[dict[str, Any]], bool]:
    return lambda columns: all(name in columns for name in wanted)


def _listed(name: str, *keys: str) -> Callable[[dict[str, Any]], bool]:
    """A column that holds a list (or its JSON) whose first item has one of ``keys``; an empty list fits too."""

    def fits(columns: dict[str, Any]) -> bool:
        value = columns.get(name)
        if isinstance(value, str):
            return value.lstrip()[:1] == "[" and (not keys or any(f'"{key}"' in value for key in keys))
        if not isinstance(value, list):
            return False
        return not keys or not value or (isinstance(value[0], dict) and any(key in value[0] for key in keys))

    return fits


def _judged(columns: dict[str, Any]) -> bool:
    label = columns.get("label", columns.get("kto_tag"))
    is_mark = isinstance(label, bool) or (isinstance(label, str) and label.lower() in {"true", "false"})
    return is_mark and ("completion" in columns or "messages" in columns or "conversations" in columns)


def _feedback(columns: dict[str, Any]) -> bool:
    if "metric_name" in columns and "value" in columns:
        return True
    given = columns.get("input")
    return isinstance(given, dict) and "messages" in given and logs.inference_id(columns) is not None


def _only(*names: str) -> Callable[[dict[str, Any]], Collection[str]]:
    return lambda _: names


def _about_a_text(columns: dict[str, Any]) -> bool:
    has_text = any(name in columns for name in flat.ARTICLES)
    return has_text and "question" in columns and any(name in columns for name in flat.REPLIES)


def _instructed(columns: dict[str, Any]) -> bool:
    return "instruction" in columns and any(name in columns for name in flat.REPLIES)


def _pair(columns: dict[str, Any]) -> Collection[str]:
    return (*(flat.pair_of(columns) or ()), "system", "history", "tools")


FORMATS: tuple[Format, ...] = (
    Format(
        "production_log",
        "request, response (OpenAI payloads)",
        _has("request", "response"),
        logs.production_log,
        _only("request", "response"),
    ),
    Format(
        "demonstration",
        "input and id of an inference; metric_name, value and inference_id of feedback",
        _feedback,
        logs.demonstration,
        _only("input", "metric_name", "value", "tools", *logs.INFERENCE_IDS),
    ),
    Format(
        "tokens", "input_ids, labels", _has("input_ids"), raw.tokens, _only("input_ids", "labels", "attention_mask")
    ),
    Format("segments", "segments: [{text, label}]", _listed("segments", "text"), raw.segments, _only("segments")),
    Format(
        "messages",
        "messages: [{role, content}]",
        lambda columns: _listed("messages")(columns) or _listed("conversation", "role", "from")(columns),
        chats.messages,
        _only("messages", "conversation", "tools", "functions", "system"),
    ),
    Format(
        "sharegpt",
        "conversations: [{from, value}]",
        _listed("conversations"),
        chats.sharegpt,
        _only("conversations", "tools", "functions", "system"),
    ),
    Format(
        "sharegpt_pairs",
        "conversation: [{human, assistant}]",
        _listed("conversation"),
        chats.sharegpt_pairs,
        _only("conversation", "tools", "system"),
    ),
    Format(
        "prompt_completion",
        "prompt, completion",
        _has("prompt", "completion"),
        flat.prompt_completion,
        _only("prompt", "completion", "tools", "system"),
    ),
    Format(
        "openorca",
        "system_prompt, question, response",
        _has("system_prompt", "question", "response"),
        flat.openorca,
        _only("system_prompt", "question", "response", "history", "tools"),
    ),
    Format(
        "article_question",
        f"one of {', '.join(flat.ARTICLES)} with question and one of {', '.join(flat.REPLIES)}",
        _about_a_text,
        flat.article_question,
        _only(*flat.ARTICLES, "question", *flat.REPLIES, "system", "history", "tools"),
    ),
    Format(
        "alpaca",
        "instruction, output or response; optional input or context, system, history",
        _instructed,
        flat.alpaca,
        _only("instruction", "input", "context", *flat.REPLIES, "system", "history", "tools"),
    ),
    Format(
        "query_response",
        f"one of {', '.join(flat.INPUTS)} with one of {', '.join(flat.OUTPUTS)}",
        lambda columns: flat.pair_of(columns) is not None,
        flat.query_response,
        _pair,
    ),
    Format("text", "text", _has("text"), flat.text, _only("text")),
)
"""The more telling formats first: the first that fits is taken."""

REFUSED: tuple[Refused, ...] = (
    Refused(
        "stepwise", "steps with a mark each (prompt, completions, labels)", _has("prompt", "completions", "labels")
    ),
    Refused("preference", "pairs of a better and a worse answer (chosen, rejected)", _has("chosen", "rejected")),
    Refused(
        "preference",
        "pairs of a better and a worse answer (chosen_response, rejected_response)",
        _has("chosen_response", "rejected_response"),
    ),
    Refused(
        "preference", "an answer with a worse one (messages, rejected_response)", _has("messages", "rejected_response")
    ),
    Refused(
        "preference", "an answer with a worse one (messages, rejected_messages)", _has("messages", "rejected_messages")
    ),
    Refused("unpaired", "single answers marked good or bad (label or kto_tag)", _judged),
)
"""Formats of preferences; they come before the others."""

PROMPT_ONLY = Refused("prompt_only", "prompts without answers (prompt)", _has("prompt"))
"""Only where no other format fits."""


def find(name: str) -> Format:
    """The format called ``name``; the schema allows no other."""
    return next(item for item in FORMATS if item.name == name)


def recognise(columns: dict[str, Any]) -> Format | Refused | None:
    """The format of a row with these columns, or None."""
    given = {name: value for name, value in columns.items() if value is not None}
    every: tuple[Format | Refused, ...] = (*REFUSED, *FORMATS, PROMPT_ONLY)
    return next((item for item in every if item.fits(given)), None)


def in_any_case(found: Format) -> Format:
    """A format that reads columns whose names are its own but for capitals and blanks around them."""

    def parse(row: Row) -> Parsed:
        return found.parse(replace(row, columns=lower(row.columns)))

    def uses(columns: dict[str, Any]) -> Collection[str]:
        read = found.uses(lower(columns))
        return [name for name in columns if name.strip().lower() in read]

    return found._replace(parse=parse, uses=uses)
