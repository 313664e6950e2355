"""Render requests to the token ids that the model reads, as in training, without transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import msgspec

from tunectl.access.api_errors import ApiError
from tunectl.artifacts.records import Message, Role
from tunectl.chat.template import Template
from tunectl.core.errors import DataError
from tunectl.generation.chat_message import ChatMessage

_ROLES: dict[str, Role] = {"developer": "system", "function": "tool"}


class TokenizerLike(Protocol):
    """Protocol of a tokenizer: text to ids and ids to bytes, as ``chat.tokenizer`` does."""

    strips: bool
    """Whether the decoder removes one space from the start of a text."""

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, in which special tokens are recognized and none are added."""
        ...

    def bytes_of(self, number: int) -> bytes:
        """Return the bytes that one token adds to a text; empty for a special token or an unknown id."""
        ...

    @property
    def size(self) -> int:
        """Size of the vocabulary: all ids are below it."""
        ...


@dataclass(frozen=True, slots=True)
class PromptRenderer:
    """Renders conversations and texts to token ids with a release's chat template and tokenizer."""

    template: Template
    tokenizer: TokenizerLike

    def chat(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Return the ids of a conversation, up to the beginning of the assistant's answer; ``tools`` are OpenAI's tool definitions.

        Raises  ApiError where the chat template refuses it.
        """
        try:
            text = self.template.render(messages, add_generation_prompt=True, tools=tools)
        except DataError as error:
            raise ApiError(error.message, param="messages") from error
        return self.tokenizer.ids(text)

    def encode_text(self, prompt: str | list[int]) -> list[int]:
        """Return the ids of a text to be continued; a prompt of ids is checked and returned.

        Raises  ApiError for an empty prompt, or for an id that the model does not have.
        """
        ids = self.tokenizer.ids(prompt) if isinstance(prompt, str) else prompt
        if not ids:
            raise ApiError("prompt is empty; send at least one token", param="prompt")
        if max(ids) >= self.tokenizer.size:
            raise ApiError(
                f"prompt holds the token id {max(ids)}; ids of this model are 0 to {self.tokenizer.size - 1}",
                param="prompt",
            )
        return ids


def messages(turns: Sequence[ChatMessage]) -> list[Message]:
    """Convert the messages of a request to those that chat templates render, and return them.

    Results of parallel tool calls come in the order of their calls: templates match them by position, clients by ``tool_call_id``.
    Raises  ApiError for content that is not text, or malformed tool calls, naming the turn.
    """
    result = [_message(number, turn) for number, turn in enumerate(turns)]
    return [result[number] for number in _order_tool_results(turns)]


def _order_tool_results(turns: Sequence[ChatMessage]) -> list[int]:
    """Return the numbers of the turns, results that follow one another by the calls of the turn before; unknown ids come last."""
    order, ranks = list[int](), dict[Any, int]()
    for are_results, group in groupby(range(len(turns)), lambda number: turns[number].role == "tool"):
        block = list(group)
        if are_results:
            order += sorted(block, key=lambda number: ranks.get(turns[number].tool_call_id, len(ranks)))
            continue
        calls = turns[block[-1]].tool_calls or ()
        ranks = {str(call.get("id")): rank for rank, call in enumerate(calls)}
        order += block
    return order


def _message(number: int, turn: ChatMessage) -> Message:
    location = f"messages[{number}].content"
    content = turn.refusal if turn.content is None else turn.content
    if content is None and not turn.tool_calls:
        raise ApiError(f"{location} is required in a message without tool_calls", param=location)
    if isinstance(content, list):
        other = next((part.type for part in content if part.type not in ("text", "input_text", "refusal")), None)
        if other is not None:
            raise ApiError(f"{location} has a part of type {other[:40]!r}; this model reads only text", param=location)
        content = "".join(part.text or part.refusal for part in content)
    calls = [_call(f"messages[{number}].tool_calls", call) for call in turn.tool_calls or ()]
    role: Role = _ROLES.get(turn.role) or turn.role  # type: ignore[assignment]
    return Message(role, content or "", name=turn.name, tool_calls=calls or None)


def _call(location: str, call: dict[str, Any]) -> dict[str, Any]:
    """Return a call whose arguments are an object, as templates need it; in the request they are text."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ApiError(f"{location}: each call must have function.name, a text", param=location)
    encoded = function.get("arguments", {})
    try:
        arguments = msgspec.json.decode(encoded) if isinstance(encoded, str) else encoded
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(f"{location}: function.arguments must be a JSON object", param=location) from error
    if not isinstance(arguments, dict):
        raise ApiError(f"{location}: function.arguments must be a JSON object", param=location)
    return {**call, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def max_new_tokens(prompt: int, requested: int | None, *, usual: int, context: int) -> int:
    """Return how many tokens an answer may have: ``requested``; if that is None, ``usual``, or what the context leaves if that is less.

    ``prompt`` is the number of tokens of the prompt, ``context`` the most of prompt and answer together.
    Raises  ApiError where the prompt alone is too long, or the requested number does not fit after it.
    """
    room = context - prompt
    if room < 1 or (requested is not None and requested > room):
        request_note = f" and max_tokens is {requested}" if requested is not None and room >= 1 else ""
        remedy = "lower max_tokens" if request_note else "shorten the prompt"
        raise ApiError(
            f"this model reads and writes at most {context} tokens together; the prompt has {prompt}{request_note}; {remedy}",
            param="messages" if requested is None or room < 1 else "max_tokens",
            code="context_length_exceeded",
        )
    return min(usual, room) if requested is None else requested
