"""A request in progress: its prompt, its variant, and each of its growing answers."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from tunectl.access.api_errors import ApiError
from tunectl.artifacts.canary_state import Variant
from tunectl.chat import tool_calls
from tunectl.core.hashing import hash_to_unit
from tunectl.generation import json_schema_grammar
from tunectl.generation.engine import GenerationRequest, TokenChunk
from tunectl.generation.prompt import max_new_tokens, messages
from tunectl.serving import requests
from tunectl.serving.detokenizer import IncrementalDetokenizer
from tunectl.serving.loaded_release import LoadedRelease
from tunectl.serving.requests import ChatRequest, CompletionRequest
from tunectl.serving.response_encoding import Finish, ResponseChoice, ResponseHead, Token

LONG = 20_000
"""Bytes of a body from which its prompts are rendered and tokenized outside the event loop, and letters from which a schema is compiled there."""
COLDEST = 1e-3
"""Temperature below which sampling is greedy: a logit divided by it may overflow."""
Request = ChatRequest | CompletionRequest
T = TypeVar("T")


@dataclass(slots=True)
class GeneratedAnswer:
    """One answer of a request while it is generated: its text and tokens so far, and how it ended."""

    growing: IncrementalDetokenizer
    release: LoadedRelease
    wants: bool
    """Whether the client wants log-probabilities."""
    count: int = 0
    total: float = 0.0
    """Sum of log-probabilities, nats."""
    parts: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    tokens_sent: int = 0
    """How many of ``tokens`` were sent in the stream."""
    letters_sent: int = 0
    """How many letters of the text were sent in the stream."""
    unsent: str = ""
    """Text that is not sent yet, because a tool call may begin in it."""
    one_call: bool = False
    """Whether the client takes one tool call at most."""
    finish: Finish | None = None
    last: float = 0.0
    """Time of its last token; monotonic seconds."""
    call_id_prefix: str = field(default_factory=lambda: secrets.token_hex(3))
    """Beginning of the ids of its tool calls: a client that keeps a conversation must not get an id twice."""

    def feed(self, piece: TokenChunk) -> str:
        """Add the tokens of one engine step; return the new text that no later token can change."""
        self.count += len(piece.ids)
        self.total += sum(piece.logprobs)
        text = self.growing.push(piece.ids, last=piece.end in ("stop", "length"))
        if self.wants:
            bytes_of = self.release.prompts.tokenizer.bytes_of
            for number, logprob in zip(piece.ids, piece.logprobs, strict=True):
                data = bytes_of(number)
                self.tokens.append(Token(data.decode(errors="replace"), data, logprob))
        if text:
            self.parts.append(text)
        if self.growing.done:
            self.finish = "stop"
        elif piece.end in ("stop", "length"):
            self.finish = "stop" if piece.end == "stop" else "length"
        return text

    def take_unsent_tokens(self) -> Sequence[Token] | None:
        """Return the tokens with log-probabilities that were not sent in the stream yet; None if the client wants none."""
        if not self.wants:
            return None
        result, self.tokens_sent = self.tokens[self.tokens_sent :], len(self.tokens)
        return result

    def take_sendable_text(self, text: str) -> str:
        """Return what can be sent now that ``text`` has come: all before the first tool call, or before what may become one."""
        result, self.unsent = tool_calls.split_before_call(self.unsent + text)
        self.letters_sent += len(result)
        return result

    @property
    def text(self) -> str:
        """The text of the answer so far."""
        return "".join(self.parts)

    def choice(self, *, calls: bool) -> ResponseChoice:
        """Return the finished answer for the response; with ``calls`` the tool calls at its end are parsed."""
        content, result = tool_calls.parse_tool_calls(self.text, self.call_id_prefix) if calls else (self.text, [])
        if self.one_call:
            result = result[:1]
        finish: Finish = "tool_calls" if result else self.finish or "error"
        return ResponseChoice(content, finish, self.tokens if self.wants else None, result)


@dataclass(slots=True)
class ChatJob:
    """One admitted request to the server: its release, its engine requests and its answers, from admission to the log."""

    head: ResponseHead
    variant: Variant
    release: LoadedRelease
    request: Request
    asks: list[GenerationRequest]
    answers: list[GeneratedAnswer]
    prompt_tokens: int
    arrived: float
    """Monotonic seconds."""
    key_hash: str | None = None
    """Hash of the API key, once the request is logged."""

    @property
    def offers_tools(self) -> bool:
        """Whether the answers may call tools, so that tool calls are parsed."""
        return isinstance(self.request, ChatRequest) and self.request.offers_tools

    @property
    def mean_logprob(self) -> float | None:
        """Mean log-probability (nats) per token over all answers; None without tokens, or where log-probabilities were not computed."""
        count = sum(answer.count for answer in self.answers) if all(ask.logprobs for ask in self.asks) else 0
        return sum(answer.total for answer in self.answers) / count if count else None

    @property
    def completion_tokens(self) -> int:
        """Number of tokens of all answers."""
        return sum(answer.count for answer in self.answers)


def is_logprob_sampled(inference_id: str, share: float) -> bool:
    """Return whether an inference is among the ``share`` (0 to 1) whose log-probabilities are computed; depends on the id alone."""
    return hash_to_unit(f"logprobs\0{inference_id}") < share


def count_answers(request: Request) -> int:
    """Return the number of answers that a request asks for: ``n`` per prompt."""
    prompts = len(request.prompts) if isinstance(request, CompletionRequest) else 1
    return prompts * (request.n or 1)


async def build_job(
    request: Request,
    variant: Variant,
    release: LoadedRelease,
    arrived: float,
    model: str,
    *,
    size: int,
    logprob_share: float = 1.0,
) -> ChatJob:
    """Return the job of a validated request for a variant; ``arrived`` in monotonic seconds, ``size`` of the body in bytes.

    ``model`` is the name in the request.
    ``logprob_share``: share of inferences whose answers get log-probabilities although the client does not want them.
    Raises  ApiError for a prompt that cannot be rendered or is too long, or a schema that is too large.
    """
    prompts = await _offload_large(partial(_prompts, request, release), size)
    contract, times = release.contract, request.n or 1
    form = requests.schema_of(request.response_format)
    if form is not None:  # an unsupported schema is refused before the engine gets the request
        await _offload_large(partial(json_schema_grammar.schema_to_ebnf, form), len(form))
    chat = isinstance(request, ChatRequest)
    wants = bool(request.logprobs) if chat else request.logprobs is not None
    head = ResponseHead(
        f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}", int(time.time()), model, release.id, chat
    )
    temperature = contract.defaults.temperature if request.temperature is None else request.temperature
    top_p = contract.defaults.top_p if request.top_p is None else request.top_p
    asks = [
        GenerationRequest(
            prompt=prompt,
            max_tokens=max_new_tokens(
                len(prompt), request.limit, usual=contract.defaults.max_tokens, context=contract.context_length
            ),
            temperature=temperature if temperature >= COLDEST and top_p > 0 else 0.0,
            top_p=top_p if top_p > 0 else 1.0,
            stop_ids=frozenset() if request.ignore_eos else release.stops,
            seed=None if request.seed is None else request.seed + turn,
            presence=request.presence_penalty or 0.0,
            frequency=request.frequency_penalty or 0.0,
            schema=form,
            logprobs=wants or is_logprob_sampled(head.id, logprob_share),
        )
        for prompt in prompts
        for turn in range(times)
    ]
    one_call = isinstance(request, ChatRequest) and request.parallel_tool_calls is False
    answers = [
        GeneratedAnswer(
            IncrementalDetokenizer(release.prompts.tokenizer, request.stops, continues=not chat),
            release,
            wants,
            one_call=one_call,
        )
        for _ in asks
    ]
    return ChatJob(head, variant, release, request, asks, answers, sum(map(len, prompts)), arrived)


def _prompts(request: Request, release: LoadedRelease) -> list[list[int]]:
    prompts = release.prompts
    if isinstance(request, ChatRequest):
        tools = (request.tools or ()) if request.offers_tools else ()
        if tools and prompts.template.renders_other_tool_calls:
            raise ApiError(
                "tools is not supported with this model: its chat template writes tool calls in another format than <tool_call>, "
                "the only one that this server reads; leave tools out",
                param="tools",
                code="unsupported_parameter",
            )
        return [prompts.chat(messages(request.messages), tools)]
    return [prompts.encode_text(prompt) for prompt in request.prompts]


async def _offload_large(work: Callable[[], T], size: int) -> T:
    """Return the result of ``work``; large work runs in a thread, so that it does not delay other requests."""
    return await asyncio.to_thread(work) if size > LONG else work()
