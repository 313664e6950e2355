"""Messages of a chat, as in the OpenAI API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct


class ContentPart(Struct, frozen=True):
    """A part of a message's content in OpenAI's API; only text is supported."""

    type: str
    text: str = ""
    refusal: str = ""
    """Text of a part of type ``refusal``."""


class ChatMessage(Struct, frozen=True):
    """One message of a conversation as a client sends it."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    refusal: str | None = None
    """What the assistant answered where it refused; ``content`` is null then."""
    name: Annotated[str, Meta(max_length=200)] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
