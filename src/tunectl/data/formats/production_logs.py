"""Formats that running systems write: request logs of the NVIDIA flywheel, demonstrations of TensorZero."""

from __future__ import annotations

from typing import Any

import msgspec

from tunectl.artifacts.records import Message
from tunectl.data.readers.conversation import content_of, parse_message, parse_tool_calls, tools_of, with_system
from tunectl.data.readers.row import (
    FormatMismatchError,
    Parsed,
    RawRow,
    RowError,
    kind,
    names,
    object_of,
    parse_json_value,
    scalar,
)

INFERENCE_IDS = ("inference_id", "target_id", "id")
"""Columns with the id of the inference of a row: its own, or the one that feedback is about."""


def production_log(row: RawRow) -> Parsed:
    """Read ``request`` and ``response``: OpenAI payloads as objects or JSON. Several choices with text become several answers.

    Where all choices call tools, the first is the answer.

    Raises  RowError ``no_answer`` where the response has no choices (an error was logged).
    """
    request = object_of(row.columns.get("request"), "request")
    response = object_of(row.columns.get("response"), "response")
    messages = request.get("messages")
    if not isinstance(messages, list):
        raise FormatMismatchError(f"request.messages is {kind(messages)}, not a list")
    turns = [parse_message(item, number) for number, item in enumerate(messages, 1)]
    tools = tools_of(request.get("tools"))
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices:
        raise RowError("no_answer", f"response has no choices; it has {names(response)}")
    said = [
        parse_message({"role": "assistant", **object_of(choice, "choice").get("message", {})}, len(turns) + 1)
        for choice in choices
    ]
    if len(said) == 1:
        return Parsed(turns=[*turns, said[0]], tools=tools)
    answers = [answer.content for answer in said if answer.content.strip() and not answer.tool_calls]
    calling = [answer for answer in said if answer.tool_calls]
    if calling and not answers:
        return Parsed(turns=[*turns, calling[0]], tools=tools)
    if not answers:
        raise RowError("no_answer", f"none of the {len(said)} choices has text")
    return Parsed(turns=turns, answers=answers, tools=tools)


def is_demonstration(columns: dict[str, Any]) -> bool:
    """Return whether a feedback row contains what the answer should have been."""
    return columns.get("metric_name") == "demonstration" and columns.get("value") is not None


def inference_id(columns: dict[str, Any]) -> str | None:
    """Return the id of the inference that a row is, or is about."""
    return next((inference for name in INFERENCE_IDS if (inference := scalar(columns.get(name)))), None)


def demonstration(row: RawRow) -> Parsed:
    """Read ``input: {system, messages}`` of an inference with the demonstration that people gave for it (``value``).

    The stage has joined the two rows by the inference's id; a row with both is taken unchanged.
    Raises  RowError ``no_demonstration``, ``unknown_inference``, ``not_a_demonstration``.
    """
    columns = row.columns
    if columns.get("metric_name") not in (None, "demonstration"):
        raise RowError("not_a_demonstration", f"feedback of metric {columns['metric_name']!r} holds no answer")
    if columns.get("input") is None:
        raise RowError("unknown_inference", f"no row with input for inference {inference_id(columns)}")
    if columns.get("value") is None:
        raise RowError("no_demonstration", f"inference {inference_id(columns)} got no demonstration")
    input_object = object_of(columns["input"], "input")
    items = input_object.get("messages")
    if not isinstance(items, list):
        raise FormatMismatchError(f"input.messages is {kind(items)}, not a list")
    turns = [block for number, item in enumerate(items, 1) for block in _blocks(item, number)]
    system = input_object.get("system")
    system_text = system if isinstance(system, str) or system is None else msgspec.json.encode(system).decode()
    final = _answer(columns["value"])
    return Parsed(turns=with_system([*turns, final], system_text), tools=tools_of(columns.get("tools")))


def _answer(value: Any) -> Message:
    parsed = parse_json_value(value, "value") if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"} else value
    if isinstance(parsed, list):
        blocks = _blocks({"role": "assistant", "content": parsed}, 1)
        return blocks[-1]
    if isinstance(parsed, dict):  # a JSON function: the demonstration is the object itself
        return Message("assistant", msgspec.json.encode(parsed.get("parsed", parsed)).decode())
    text = scalar(parsed)
    if text is None:
        raise FormatMismatchError(f"value is {kind(parsed)}, not an answer")
    return Message("assistant", text)


def _blocks(item: Any, number: int) -> list[Message]:
    """Return the turns of one TensorZero message: its user messages contain results of tools."""
    if not isinstance(item, dict) or not isinstance(item.get("content"), list):
        return [parse_message(item, number)]
    typed = [block for block in item["content"] if isinstance(block, dict)]
    results = [
        Message("tool", content_of(block.get("result"), "tool", number).text, name=block.get("name"))
        for block in typed
        if block.get("type") == "tool_result"
    ]
    called = [call for block in typed if block.get("type") == "tool_call" for call in parse_tool_calls(block, number)]
    rest = [
        block
        for block in item["content"]
        if not isinstance(block, dict) or block.get("type", "text") not in {"tool_result", "tool_call"}
    ]
    if not rest and not called:
        return results
    message = parse_message({**item, "content": rest}, number)
    return [*results, Message(message.role, message.content, tool_calls=called or None)]
