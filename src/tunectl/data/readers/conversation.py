"""Normalize the turns of a conversation: roles, train flags and order, for every input format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from tunectl.artifacts.records import Message, Role, Segment
from tunectl.chat import tool_calls
from tunectl.data.readers.row import (
    FormatMismatchError,
    RowError,
    format_column_names,
    kind,
    object_of,
    parse_json_value,
)

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
"""Our role for every role name of the known formats."""
MAX_TURNS = 1000
"""Turns of a conversation at most: a template without marks renders it once for each turn that is trained on."""
BODIES = ("content", "value", "text")
"""Keys of a turn's content."""
FLAGS = ("train", "training", "loss", "weight")
"""Keys of a turn's train flag (Axolotl, swift, OpenAI)."""
AFTER: dict[str, tuple[str, ...]] = {
    "start": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "call": ("tool",),
    "tool": ("tool", "assistant"),
}
"""Roles that may follow each role; ``call`` is an assistant turn that calls a tool."""


def parse_message(value: Any, number: int) -> Message:
    """Return one turn of any chat format: ``role`` and ``content``, or ``from`` and ``value``. ``number``: of the turn, from 1, for messages.

    Raises  FormatMismatchError when it has another shape; RowError ``unknown_role``, ``not_text``, ``bad_train_flag``,
            ``tool_arguments_not_json``.
    """
    if not isinstance(value, dict):
        raise FormatMismatchError(f"turn {number} is {kind(value)}, not an object with role and content")
    name = value.get("role", value.get("from"))
    if name is None:
        raise FormatMismatchError(f"turn {number} has neither role nor from; it has {format_column_names(value)}")
    role = ROLES.get(str(name).strip().lower())
    if role is None:
        raise RowError("unknown_role", f"turn {number} has the role {str(name)[:80]!r}; known are {', '.join(ROLES)}")
    key = next((key for key in BODIES if key in value), None)
    body = value[key] if key is not None else None
    if name == "function_call":
        return Message(role, "", tool_calls=parse_tool_calls(body, number), train=train_flag(value, number))
    content = content_of(body, role, number)
    flag = train_flag(value, number)
    calls = value.get("tool_calls") or value.get("function_call")
    if key is None and not calls:
        raise FormatMismatchError(f"turn {number} has neither content nor value; it has {format_column_names(value)}")
    return Message(
        role,
        content.text,
        name=value.get("name") if isinstance(value.get("name"), str) else None,
        tool_calls=parse_tool_calls(calls, number) if calls else None,
        train=content.train if content.train is not None else flag,
        parts=content.parts if role == "assistant" and flag is not False else [],
    )


def train_flag(value: dict[str, Any], number: int) -> bool | None:
    """Return the train flag of a turn; None where it has none. ``number``: of the turn, from 1, for messages.

    Raises  RowError ``bad_train_flag`` when it is not true, false, 1 or 0.
    """
    flag = next((value[key] for key in FLAGS if value.get(key) is not None), None)
    if flag is None:
        return None
    if flag in (True, False):  # 1 and 0 too
        return bool(flag)
    raise RowError(
        "bad_train_flag", f"turn {number} has the train flag {repr(flag)[:80]}; allowed are true, false, 1 and 0"
    )


class Content(NamedTuple):
    """Text of one turn, with the train flags of the turn or of its parts."""

    text: str
    train: bool | None
    """The flag that all its parts have."""
    parts: list[Segment]
    """Pieces of the text, where only some are trained on."""


def content_of(body: Any, role: Role, number: int) -> Content:
    """Return the text of a turn and the train flags of its parts; ``body`` is text, null, or a list of typed parts."""
    if body is None:
        return Content("", None, [])
    if isinstance(body, str):
        return Content(body, None, [])
    if isinstance(body, list):
        return _parts(body, number)
    if role == "tool" and isinstance(body, dict | int | float | bool):
        return Content(msgspec.json.encode(body).decode(), None, [])  # results of tools are often kept as objects
    raise FormatMismatchError(f"the content of turn {number} is {kind(body)}, not text or a list of parts")


def _parts(parts: list[Any], number: int) -> Content:
    """Return the parts with their flags: a part without a flag is trained on unless another part of the turn has a flag that is true."""
    flagged_texts = [(text, flag) for text, flag in _iter_flagged_parts(parts, number) if text]
    text, flags = "".join(text for text, _ in flagged_texts), {flag for _, flag in flagged_texts}
    if len(flags) == 1:
        return Content(text, flags.pop(), [])
    if not flagged_texts:
        return Content("", None, [])
    rest = True not in flags
    pieces = [Segment(text, rest if flag is None else flag) for text, flag in flagged_texts]
    same = len({piece.train for piece in pieces}) == 1
    return Content(text, pieces[0].train, []) if same else Content(text, None, pieces)


def _iter_flagged_parts(parts: list[Any], number: int) -> Iterator[tuple[str, bool | None]]:
    for part in parts:
        if isinstance(part, str):
            yield part, None
            continue
        if not isinstance(part, dict):
            raise FormatMismatchError(f"a part of turn {number} is {kind(part)}, not an object with type and text")
        text = part.get("text", part.get("content", part.get("value")))
        # a tuple: a set would have to hash the value, which a list or an object cannot be
        if part.get("type", "text") not in ("text", "input_text", "output_text") or not isinstance(text, str):
            raise RowError(
                "not_text",
                f"turn {number} has a part of type {str(part.get('type'))[:80]!r}; only parts of type text, with a text, can be trained on",
            )
        yield text, train_flag(part, number) if text else None


def parse_tool_calls(value: Any, number: int) -> list[dict[str, Any]]:
    """Return tool calls in OpenAI shape, with ``arguments`` as an object. ``number``: of the turn, from 1, for messages.

    Raises  RowError ``tool_arguments_not_json``; FormatMismatchError when a call has no name.
    """
    try:
        parsed = parse_json_value(value, "the tool call")
    except FormatMismatchError as error:
        raise RowError("tool_arguments_not_json", f"turn {number}: {error.detail}") from error
    return [_call(item, number) for item in (parsed if isinstance(parsed, list) else [parsed])]


def _call(value: Any, number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatMismatchError(f"a tool call of turn {number} is {kind(value)}, not an object")
    function = value.get("function", value)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise FormatMismatchError(f"a tool call of turn {number} has no name")
    encoded = function.get("arguments", function.get("parameters"))
    try:
        arguments = object_of({} if encoded in (None, "") else encoded, "arguments")
    except FormatMismatchError as error:
        raise RowError("tool_arguments_not_json", f"turn {number}, {function['name'][:80]}: {error.detail}") from error
    id_field = {"id": value["id"]} if isinstance(value.get("id"), str) else {}
    return {**id_field, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def tools_of(value: Any) -> list[dict[str, Any]]:
    """Return the tool definitions of a conversation from a list, or JSON in a string; empty where absent or blank.

    Raises  RowError ``tools_not_json``.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    try:
        parsed = parse_json_value(value, "tools")
    except FormatMismatchError as error:
        raise RowError("tools_not_json", error.detail) from error
    if isinstance(parsed, dict):
        parsed = [parsed]
    if not isinstance(parsed, list) or not all(isinstance(item, dict) for item in parsed):
        raise RowError("tools_not_json", f"tools holds {kind(parsed)}, not a list of objects")
    return [item if "function" in item else {"type": "function", "function": item} for item in parsed]


def split_off_answer(turns: list[Message], answers: list[str]) -> tuple[list[Message], list[Message]]:
    """Return (turns before the answer, the answer or answers as turns), after checking roles and their order.

    Turns after the last trained assistant turn have no effect and are removed.
    Raises  RowError ``too_long``, ``empty_turn``, ``role_order``, ``last_turn_not_assistant``, ``nothing_trained``.
    """
    if len(turns) > MAX_TURNS:
        raise RowError("too_long", f"{len(turns)} turns; a conversation has {MAX_TURNS} at most")
    if turns and turns[0].role == "system" and not turns[0].content.strip():
        turns = turns[1:]  # tools that always write a system turn leave it blank where there is none
    if not turns:
        raise RowError("empty_turn", "the conversation has no turns; it must end with a turn of the assistant")
    if answers:
        turns = [*turns, *(Message("assistant", answer) for answer in answers[:1])]
    _check_turn_order(turns)
    if turns[-1].role != "assistant":
        raise RowError(
            "last_turn_not_assistant",
            f"the last of {len(turns)} turns is {turns[-1].role}; it must be assistant, the answer to learn",
        )
    indexes = [index for index, item in enumerate(turns) if item.role == "assistant" and item.train is not False]
    if not indexes:
        raise RowError(
            "nothing_trained", "every assistant turn is marked as not trained on; at least one must be trained on"
        )
    before, final = turns[: indexes[-1]], turns[indexes[-1]]
    if any(not answer.strip() for answer in answers):
        raise RowError("empty_turn", "one of the answers is empty")
    return before, [Message("assistant", answer) for answer in answers] or [final]


def with_calls(turns: list[Message]) -> list[Message]:
    """Return the turns with tool calls and results that are text (Hermes) converted to objects."""
    return [_with_calls(turn) for turn in turns]


def _with_calls(turn: Message) -> Message:
    if turn.role == "assistant" and not turn.tool_calls and not turn.parts:
        content, calls = tool_calls.parse_tool_calls(turn.content)
        return replace(turn, content=content, tool_calls=calls) if calls else turn
    if turn.role == "tool":
        return replace(turn, content=tool_calls.strip_result_tags(turn.content))
    return turn


def _check_turn_order(turns: list[Message]) -> None:
    state = "start"
    for number, item in enumerate(turns, 1):
        if item.role not in AFTER[state]:
            allowed = " or ".join(AFTER[state])
            position = "first" if state == "start" else f"after {'a tool call' if state == 'call' else state}"
            raise RowError("role_order", f"turn {number} is {item.role}; {position} comes {allowed}")
        if not item.content.strip() and not item.tool_calls:
            raise RowError("empty_turn", f"turn {number} ({item.role}) is empty")
        state = "call" if item.role == "assistant" and item.tool_calls else item.role


def with_system(turns: list[Message], system: str | None) -> list[Message]:
    """Return the turns, with ``system`` in front where they have no system turn of their own."""
    if system is None or not system.strip() or (turns and turns[0].role == "system"):
        return turns
    return [Message("system", system), *turns]


def with_last_user(turns: list[Message], content: str) -> list[Message]:
    """Return the turns with ``content`` as the text of the last one."""
    return [*turns[:-1], replace(turns[-1], content=content)]
