"""Request logs of a running system, as the NVIDIA flywheel writes them."""

from __future__ import annotations

from tunectl.data.readers.conversation import parse_message, tools_of
from tunectl.data.readers.row import (
    FormatMismatchError,
    ParsedRow,
    RawRow,
    RowError,
    format_column_names,
    kind,
    object_of,
)


def production_log(row: RawRow) -> ParsedRow:
    """Return a parsed row of ``request`` and ``response``: OpenAI payloads as objects or JSON. Several choices become several answers.

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
        raise RowError("no_answer", f"response has no choices; it has {format_column_names(response)}")
    replies = [
        parse_message(
            {"role": "assistant", **object_of(object_of(choice, "choice").get("message", {}), "message")},
            len(turns) + 1,
        )
        for choice in choices
    ]
    if len(replies) == 1:
        return ParsedRow(turns=[*turns, replies[0]], tools=tools)
    answers = [answer.content for answer in replies if answer.content.strip() and not answer.tool_calls]
    calling = [answer for answer in replies if answer.tool_calls]
    if calling and not answers:
        return ParsedRow(turns=[*turns, calling[0]], tools=tools)
    if not answers:
        raise RowError("no_answer", f"none of the {len(replies)} choices has text")
    return ParsedRow(turns=turns, answers=answers, tools=tools)
