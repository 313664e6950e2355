"""Formats whose rows hold whole conversations: OpenAI messages, ShareGPT, and swift's pairs."""

from __future__ import annotations

from typing import Any

from tunectl.artifacts.records import Message
from tunectl.data.readers.conversation import parse_message, tools_of, with_calls, with_system
from tunectl.data.readers.row import FormatMismatchError, ParsedRow, RawRow, list_of, optional_text


def parse_messages(row: RawRow) -> ParsedRow:
    """Return a row with ``messages: [{role, content}]``, train flags and tool calls parsed; optional ``tools`` and ``system``.

    The column may be called ``conversation`` too (LMSYS-Chat).
    """
    is_other = row.columns.get("messages") is None and row.columns.get("conversation") is not None
    return _conversation(row.columns, "conversation" if is_other else "messages")


def parse_sharegpt(row: RawRow) -> ParsedRow:
    """Return a row with ``conversations: [{from, value}]`` parsed; optional ``tools`` and ``system``."""
    return _conversation(row.columns, "conversations")


def _conversation(columns: dict[str, Any], name: str) -> ParsedRow:
    turns = with_calls([parse_message(item, number) for number, item in enumerate(list_of(columns, name), 1)])
    tools = tools_of(columns.get("tools") if columns.get("tools") is not None else columns.get("functions"))
    return ParsedRow(turns=with_system(turns, optional_text(columns, "system")), tools=tools)


def sharegpt_pairs(row: RawRow) -> ParsedRow:
    """Return a row with ``conversation: [{human, assistant}]`` (swift) parsed; optional ``system``."""
    turns: list[Message] = []
    for number, pair in enumerate(list_of(row.columns, "conversation"), 1):
        if not isinstance(pair, dict) or not {"human", "assistant"} <= set(pair):
            raise FormatMismatchError(f"item {number} of conversation is not an object with human and assistant")
        for role in ("human", "assistant"):
            turns.append(parse_message({"role": role, "content": pair[role]}, len(turns) + 1))
    return ParsedRow(
        turns=with_system(turns, optional_text(row.columns, "system")), tools=tools_of(row.columns.get("tools"))
    )
