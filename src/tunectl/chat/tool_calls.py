"""Tool calls as text in the Hermes format, for chat templates without tool support.

A call is one JSON object with name and arguments between ``<tool_call>`` and ``</tool_call>``; a result is the tool's output
between ``<tool_response>`` and ``</tool_response>``, in a turn of the user; the tools on offer are at the end of the system
text between ``<tools>`` and ``</tools>``, one JSON object per line.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from msgspec.structs import replace

from tunectl.artifacts.records import Message, ReferenceAnswer, Source
from tunectl.core.json_depth import exceeds_depth

OFFER = (
    "# Tools\n\nThese functions may be called; each is described by one JSON object:\n<tools>\n{tools}\n</tools>\n\n"
    "To call one, write a JSON object with its name and its arguments between two tags:\n"
    '<tool_call>\n{{"name": "...", "arguments": {{...}}}}\n</tool_call>'
)
_MAX_DEPTH: Final = 100
"""Limit on nested lists and objects of a call."""
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


def render_tool_calls(turn: Message) -> str:
    """Return the text of a turn, followed by its tool calls as text."""
    blocks = [f"<tool_call>\n{_json(_bare(call))}\n</tool_call>" for call in turn.tool_calls or ()]
    return "\n".join([*([turn.content] if turn.content.strip() or not blocks else []), *blocks])


def parse_tool_calls(text: str, id_prefix: str = "call00") -> tuple[str, list[dict[str, Any]]]:
    """Return (content, tool calls at the end of the text in OpenAI's format); without valid calls all of it is content.

    Arguments may also be Python literals, as in some data sets. Each call gets an id of nine letters and digits, because some templates
    ask for one: ``id_prefix`` of six, and its number.
    """
    content, result = _split_calls(text)
    if not result or any(piece.strip() for piece in content[1:]):
        return text, []
    calls = [_call(inside.strip(), f"{id_prefix}{number:03d}") for number, inside in enumerate(result)]
    parsed = [call for call in calls if call is not None]
    return (content[0].rstrip(), parsed) if len(parsed) == len(calls) else (text, [])


def contains_call(text: str, name: str) -> bool:
    """Return whether a call of the tool ``name`` stands anywhere in the text."""
    calls = [_call(inside.strip(), "") for inside in _split_calls(text)[1]]
    return any(call is not None and call["function"]["name"] == name for call in calls)


def split_before_call(text: str) -> tuple[str, str]:
    """Return (text that belongs to no tool call whatever follows, the rest); for answers that are sent while they are written."""
    start = text.find(_OPEN)
    if start < 0:  # the end of the text may be the beginning of the tag
        start = next(
            (len(text) - size for size in range(len(_OPEN) - 1, 0, -1) if text.endswith(_OPEN[:size])), len(text)
        )
    end = len(text[:start].rstrip())  # the blanks before a call are left out
    return text[:end], text[end:]


def _split_calls(text: str) -> tuple[list[str], list[str]]:
    """Return the texts outside the pairs of tags (one more than there are pairs) and the texts inside each pair.

    Searched without a pattern, in one pass: a pattern with blanks on both sides of anything takes cubic time for blanks alone, and a client
    may control what the model writes.
    """
    outside, inside, end = list[str](), list[str](), 0
    while (start := text.find(_OPEN, end)) >= 0 and (close := text.find(_CLOSE, start + len(_OPEN))) >= 0:
        outside.append(text[end:start])
        inside.append(text[start + len(_OPEN) : close])
        end = close + len(_CLOSE)
    return [*outside, text[end:]], inside


def to_answer(turn: Message, source: Source) -> ReferenceAnswer:
    """Return an assistant turn as a reference answer."""
    return ReferenceAnswer(render_tool_calls(turn), source, calls=bool(turn.tool_calls), parts=turn.parts)


def to_message(answer: ReferenceAnswer) -> Message:
    """Return a reference answer as the turn that a template renders."""
    content, calls = parse_tool_calls(answer.text) if answer.calls else (answer.text, [])
    return Message("assistant", content, tool_calls=calls or None, parts=answer.parts)


def inline_tools(
    messages: Sequence[Message], offered: Sequence[dict[str, Any]], *, own_calls: bool, own_tools: bool
) -> list[Message]:
    """Return the conversation with tools, calls and results as text, except for what the template writes itself.

    own_calls  the template writes calls and their results     own_tools  it writes the tools on offer
    """
    turns: list[Message] = []
    for are_results, group in groupby(messages, lambda message: message.role == "tool" and not own_calls):
        if are_results:
            turns.append(Message("user", "\n".join(_result(message.content) for message in group)))
        else:
            turns += [message if own_calls or not message.tool_calls else _with_call_text(message) for message in group]
    return turns if own_tools or not offered else _offering(turns, offered)


def _with_call_text(turn: Message) -> Message:
    return replace(turn, content=render_tool_calls(turn), tool_calls=None)


def strip_result_tags(text: str) -> str:
    """Return a tool's result without the ``<tool_response>`` tags around it."""
    bare = text.strip()
    inner = bare.removeprefix("<tool_response>").removesuffix("</tool_response>")
    is_one = len(inner) == len(bare) - len("<tool_response></tool_response>") and "tool_response>" not in inner
    return inner.strip() if is_one else text


def _result(content: str) -> str:
    if content.lstrip().startswith("<tool_response>"):
        return content
    return f"<tool_response>\n{content}\n</tool_response>"


def _offering(turns: list[Message], offered: Sequence[dict[str, Any]]) -> list[Message]:
    """Return the turns with the tools in the system text, unless it contains them already."""
    has_system = bool(turns) and turns[0].role == "system"
    if has_system and "<tools>" in turns[0].content:
        return turns
    text = OFFER.format(tools="\n".join(map(_json, offered)))
    if has_system:
        return [replace(turns[0], content=f"{turns[0].content}\n\n{text}"), *turns[1:]]
    return [Message("system", text), *turns]


def _bare(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    return {"name": function["name"], "arguments": function.get("arguments", {})}


def _json(value: Any) -> str:
    # the closing tag inside a text of the arguments would end the call; JSON allows the stroke to be escaped
    return json.dumps(value, ensure_ascii=False).replace("</tool", "<\\/tool")


def _call(text: str, call_id: str) -> dict[str, Any] | None:
    result = _value(text)
    arguments = result.get("arguments", {}) if isinstance(result, dict) else None
    if isinstance(arguments, str):
        arguments = _value(arguments)
    if not isinstance(result, dict) or not isinstance(result.get("name"), str) or not isinstance(arguments, dict):
        return None
    function = _as_json_values({"name": result["name"], "arguments": arguments})
    return function and {"id": call_id, "type": "function", "function": function}


def _as_json_values(function: dict[str, Any]) -> dict[str, Any] | None:
    """Return a function as JSON has it; None for what JSON lacks, such as sets and NaN, and for what is nested too deep for a writer."""
    try:
        text = json.dumps(function, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return None
    return None if exceeds_depth(text, _MAX_DEPTH) else json.loads(text)


def _value(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None
