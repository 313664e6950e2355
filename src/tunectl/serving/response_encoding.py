"""Encode OpenAI's responses: whole bodies, and the chunks of a stream, of which everything but the new text is encoded only once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

Finish = Literal["stop", "length", "tool_calls", "error"]
DONE = b"data: [DONE]\n\n"


class Token(Struct, frozen=True):
    """One token of an answer with its bytes and its log-probability (nats), for ``logprobs``."""

    text: str
    data: bytes
    logprob: float


class ResponseHead(Struct, frozen=True):
    """Fields of a response that each chunk of its stream repeats."""

    id: str
    created: int
    """Unix seconds."""
    model: str
    fingerprint: str
    """Id of the release."""
    chat: bool


class ResponseChoice(Struct, frozen=True):
    """One finished answer, as it becomes an element of ``choices`` in a response."""

    text: str
    finish: Finish
    tokens: list[Token] | None = None
    """None where the client does not want log-probabilities."""
    calls: list[dict[str, Any]] = []


class TokenUsage(Struct, frozen=True):
    """Numbers of prompt and answer tokens of a request, for ``usage`` in its response."""

    prompt_tokens: int
    completion_tokens: int

    def body(self) -> dict[str, int]:
        """Return the object ``usage`` of OpenAI's API."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


def encode_body(head: ResponseHead, choices: Sequence[ResponseChoice], usage: TokenUsage) -> dict[str, Any]:
    """Return the body of a whole response, to be encoded as JSON."""
    kind = "chat.completion" if head.chat else "text_completion"
    return {
        **_head(head, kind),
        "choices": [_choice(head, *item) for item in enumerate(choices)],
        "usage": usage.body(),
    }


def _head(head: ResponseHead, kind: str) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": kind,
        "created": head.created,
        "model": head.model,
        "system_fingerprint": head.fingerprint,
    }


def _choice(head: ResponseHead, index: int, choice: ResponseChoice) -> dict[str, Any]:
    common = {"index": index, "finish_reason": choice.finish, "logprobs": logprobs(head.chat, choice.tokens)}
    if not head.chat:
        return {**common, "text": choice.text}
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.calls:
        message |= {"content": choice.text or None, "tool_calls": encode_tool_calls(choice.calls)}
    return {**common, "message": message}


def encode_tool_calls(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return tool calls in OpenAI's format, with the arguments as JSON text."""
    return [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in calls
    ]


def logprobs(chat: bool, tokens: Sequence[Token] | None, offset: int = 0) -> dict[str, Any] | None:
    """Return the object ``logprobs`` of a chat response (``chat``) or a text completion; None if ``tokens`` is.

    The only alternative listed for a token is itself. ``offset``: letters of the answer before ``tokens``.
    """
    if tokens is None:
        return None
    if chat:
        return {
            "content": [
                {"token": token.text, "logprob": token.logprob, "bytes": list(token.data), "top_logprobs": []}
                for token in tokens
            ],
            "refusal": None,
        }
    offsets = list[int]()
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{token.text: token.logprob} for token in tokens],
        "text_offset": offsets,
    }


class StreamEncoder:
    """Encodes the chunks of one streamed response as server-sent events."""

    def __init__(self, head: ResponseHead, *, usage: bool) -> None:
        self._head = head
        start = _head(head, "chat.completion.chunk" if head.chat else "text_completion")
        self._start = b"data: " + msgspec.json.encode(start)[:-1] + b',"choices":['
        self._end = b'],"usage":null}\n\n' if usage else b"]}\n\n"
        self._text_start = b',"delta":{"content":' if head.chat else b',"text":'
        self._text_end = b"}" if head.chat else b""
        self._offsets: Counter[int] = Counter()
        """Letters of the tokens sent so far, by answer."""

    def opening(self, index: int) -> bytes:
        """Return the first chunk of answer ``index``, which has the role; empty for text completions."""
        return self._event(index, b',"delta":{"role":"assistant","content":""}', None, None) if self._head.chat else b""

    def text(self, index: int, text: str, tokens: Sequence[Token] | None) -> bytes:
        """Return a chunk with new text of answer ``index``, and its tokens if log-probabilities are wanted."""
        return self._event(index, self._text_start + msgspec.json.encode(text) + self._text_end, tokens, None)

    def calls(self, index: int, calls: Sequence[dict[str, Any]]) -> bytes:
        """Return a chunk with the complete tool calls of answer ``index``."""
        indexed_calls = [{"index": index, **call} for index, call in enumerate(encode_tool_calls(calls))]
        return self._event(index, b',"delta":' + msgspec.json.encode({"tool_calls": indexed_calls}), None, None)

    def closing(self, index: int, finish: Finish) -> bytes:
        """Return the chunk with the finish reason of answer ``index``."""
        return self._event(index, b',"delta":{}' if self._head.chat else b',"text":""', None, finish)

    def usage(self, usage: TokenUsage) -> bytes:
        """Return the chunk with the token counts, which has no choices."""
        return self._start + b'],"usage":' + msgspec.json.encode(usage.body()) + b"}\n\n"

    def _event(self, index: int, body: bytes, tokens: Sequence[Token] | None, finish: Finish | None) -> bytes:
        logprob_json = b"null"
        if tokens is not None:
            logprob_json = msgspec.json.encode(logprobs(self._head.chat, tokens, self._offsets[index]))
            self._offsets[index] += sum(len(token.text) for token in tokens)
        end = b"null" if finish is None else b'"' + finish.encode() + b'"'
        return b"".join(
            (
                self._start,
                b'{"index":%d' % index,
                body,
                b',"logprobs":',
                logprob_json,
                b',"finish_reason":',
                end,
                b"}",
                self._end,
            )
        )
