"""Iterate over the texts of a record, and replace them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

from msgspec.structs import replace

from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, Segment
from tunectl.chat import tool_calls

TextKind: TypeAlias = Literal["document", "input", "answer", "segment", "argument"]
"""Kind of a text. segment: template-free, every character counts. argument: a string inside a tool call."""
Change: TypeAlias = Callable[[str, TextKind], str]


def all_texts(record: Document | Example) -> Iterator[str]:
    """Yield every text of a record in reading order; none for a row that was already tokenized."""
    if isinstance(record, Document):
        yield record.text
        return
    yield from (message.content for message in record.messages)
    yield from (answer.text for answer in record.answers)
    yield from (segment.text for segment in record.segments)


def map_texts(record: Document | Example, change: Change) -> Document | Example:
    """Return ``record`` with each text replaced by ``change(text, kind)``; the same object where nothing changed."""
    if isinstance(record, Document):
        text = change(record.text, "document")
        return record if text == record.text else replace(record, text=text)
    messages = [_message(message, change, "input") for message in record.messages]
    answers = [_answer(answer, change) for answer in record.answers]
    segments = [_segment(segment, change) for segment in record.segments]
    if (messages, answers, segments) == (record.messages, record.answers, record.segments):
        return record
    return replace(record, messages=messages, answers=answers, segments=segments)


def _message(message: Message, change: Change, kind: TextKind) -> Message:
    parts = [_segment(part, change) for part in message.parts]
    content = "".join(part.text for part in parts) if parts else change(message.content, kind)
    calls = message.tool_calls and [_strings(call, change) for call in message.tool_calls]
    return replace(message, content=content, tool_calls=calls, parts=parts)


def _answer(answer: ReferenceAnswer, change: Change) -> ReferenceAnswer:
    if not answer.calls and not answer.parts:
        return replace(answer, text=change(answer.text, "answer"))
    return tool_calls.to_answer(_message(tool_calls.to_message(answer), change, "answer"), answer.source)


def _segment(segment: Segment, change: Change) -> Segment:
    return replace(segment, text=change(segment.text, "segment"))


def _strings(value: Any, change: Change) -> Any:
    """Return ``value`` with every string below an ``arguments`` key changed; names and ids are kept."""
    if isinstance(value, dict):
        return {
            key: _deep(item, change) if key == "arguments" else _strings(item, change) for key, item in value.items()
        }
    return value


def _deep(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value, "argument")
    if isinstance(value, dict):
        return {key: _deep(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_deep(item, change) for item in value]
    return value


def input_text(example: Example) -> str:
    """Return the text of the user's turns without the shared system text; of segments, those before the first trained one."""
    if example.messages:
        return "\n".join(message.content for message in example.messages if message.role != "system")
    texts = []
    for segment in example.segments:
        if segment.train:
            break
        texts.append(segment.text)
    return "".join(texts)


def text_for_language_id(example: Example) -> str:
    """Return the reference answers as one text, without those that call tools: their JSON has no language."""
    answers = [answer for answer in example.answers if not answer.calls]
    return output_text(replace(example, answers=answers)) if answers or not example.answers else ""


def output_text(example: Example) -> str:
    """Return all reference answers in alphabetical order, or all trained segments, as one text."""
    if example.answers:
        return "\n".join(sorted(answer.text for answer in example.answers))
    return "\n".join(segment.text for segment in example.segments if segment.train)
