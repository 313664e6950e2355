"""Iterate over the texts of a record, and replace them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

from msgspec.structs import replace

from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, Segment
from tunectl.chat import tool_calls

TextKind: TypeAlias = Literal["document", "input", "answer", "segment"]
"""Kind of a text. segment: template-free, every character counts."""
Change: TypeAlias = Callable[[list[str], TextKind], list[str]]
ChangeValue: TypeAlias = Callable[[Any, str], Any]


def all_texts(record: Document | Example) -> Iterator[str]:
    """Yield every text of a record in reading order; none for a row that was already tokenized."""
    if isinstance(record, Document):
        yield record.text
        return
    yield from (message.content for message in record.messages)
    yield from (answer.text for answer in record.answers)
    yield from (segment.text for segment in record.segments)


def map_texts(
    record: Document | Example, change: Change, change_value: ChangeValue | None = None
) -> Document | Example:
    """Return ``record`` with its texts replaced; the same object where nothing changed.

    change        takes texts that are read one after the other, and their kind
    change_value  takes tool calls, tools and the names of speakers, and the key of each; without it they are kept
    """
    if isinstance(record, Document):
        (text,) = change([record.text], "document")
        return record if text == record.text else replace(record, text=text)
    values = change_value or (lambda value, _: value)
    messages = [_message(message, change, values, "input") for message in record.messages]
    answers = [_answer(answer, change, values) for answer in record.answers]
    segments = _segments(record.segments, change)
    tools = values(record.tools, "tools") if record.tools else record.tools
    if (messages, answers, segments, tools) == (record.messages, record.answers, record.segments, record.tools):
        return record
    return replace(record, messages=messages, answers=answers, segments=segments, tools=tools)


def _message(message: Message, change: Change, values: ChangeValue, kind: TextKind) -> Message:
    parts = _segments(message.parts, change)
    content = "".join(part.text for part in parts) if parts else change([message.content], kind)[0]
    calls = message.tool_calls and values(message.tool_calls, "tool_calls")
    name = message.name and values(message.name, "" if message.role == "tool" else "name")
    return replace(message, content=content, name=name, tool_calls=calls, parts=parts)


def _answer(answer: ReferenceAnswer, change: Change, values: ChangeValue) -> ReferenceAnswer:
    if not answer.calls and not answer.parts:
        return replace(answer, text=change([answer.text], "answer")[0])
    return tool_calls.to_answer(_message(tool_calls.to_message(answer), change, values, "answer"), answer.source)


def _segments(segments: list[Segment], change: Change) -> list[Segment]:
    if not segments:
        return segments
    texts = change([segment.text for segment in segments], "segment")
    return [replace(segment, text=text) for segment, text in zip(segments, texts, strict=True)]


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
