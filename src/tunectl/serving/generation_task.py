"""Generate the answers of a request, whole or streamed: logged before they are sent, cancelled when the client leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import ApiKey
from tunectl.core import logging_setup
from tunectl.generation.engine import TokenChunk
from tunectl.serving.http_io import ClientDisconnectedError, RequestContext
from tunectl.serving.request_job import ChatJob, GeneratedAnswer
from tunectl.serving.response_encoding import DONE, ResponseChoice, StreamEncoder, TokenUsage, encode_body
from tunectl.serving.serving_metrics import ServingMetrics
from tunectl.serving.stream_router import TokenStream


class RequestLogger(Protocol):
    """Writes the begin and end of each request to the inference log; see ``InferenceLogger``."""

    async def log_request(self, job: ChatJob, key: ApiKey, request: dict[str, Any]) -> None:
        """Log an admitted request; ``request`` are the fields of its body to be stored."""
        ...

    async def log_response(
        self, job: ChatJob, response: dict[str, Any] | None, reason: str, choices: list[ResponseChoice]
    ) -> None:
        """Log the end of a request: the response that was sent, why it ended (``reason``), and its answers."""
        ...


@dataclass(slots=True)
class GenerationTask:
    """Runs one job in the engine: starts its answers, collects their tokens, and cancels them if need be."""

    job: ChatJob
    metrics: ServingMetrics
    token_stream: TokenStream
    numbers: list[int] = field(default_factory=list)
    over: str | None = None
    """Why it was given up: cancelled or timeout."""
    first: bool = False

    def start(self) -> None:
        """Start all answers of the job in the engine."""
        job = self.job
        for index, ask in enumerate(job.asks):
            self.numbers.append(job.release.router.start(job.release.engine_session, ask, self.token_stream, index))
        self.metrics.prompt_tokens.inc(job.prompt_tokens)

    def give_up(self, reason: str) -> None:
        """Cancel unfinished answers with ``reason`` (cancelled or timeout); safe to call at any time."""
        if self.over is None:
            self.over = reason
            self.cancel()
            self.token_stream.put(0, TokenChunk([], []))  # wakes ``take``

    def cancel(self) -> None:
        """Cancel the running answers in the engine."""
        for number in self.numbers if self.token_stream.open > 0 else ():
            self.job.release.engine_session.cancel(number)

    async def chunks(self) -> AsyncIterator[list[tuple[int, GeneratedAnswer, str]]]:
        """Yield lists of (index of the answer, answer, new text) until every answer is finished.

        Raises  ApiError when the engine fails or the time is over; ClientDisconnectedError when the client has disconnected.
        """
        unfinished = len(self.job.answers)
        while unfinished:
            new_chunks = []
            for index, piece in await self.token_stream.take():
                answer = self.job.answers[index]
                if answer.finish is not None:
                    continue
                self._refuse(piece)
                text = answer.feed(piece)
                self._count(answer, piece)
                if answer.finish is not None:
                    unfinished -= 1
                    if piece.end is None:
                        self.job.release.engine_session.cancel(self.numbers[index])
                new_chunks.append((index, answer, text))
            if self.over is not None and unfinished:
                raise ClientDisconnectedError if self.over == "cancelled" else _timeout()
            if new_chunks:
                yield new_chunks

    def _refuse(self, piece: TokenChunk) -> None:
        if piece.end == "refused" and self.job.asks[0].schema is not None:
            raise ApiError(
                f"response_format cannot be followed: {piece.why}; simplify its schema, or leave it out",
                param="response_format",
            )
        if piece.end in ("refused", "failed"):
            raise ApiError(
                f"the engine failed: {piece.why}; the server's log has the details", "server_error", code="engine"
            )
        if piece.end == "cancelled" and self.over is None:
            raise ApiError("the server cancelled the generation; retry", "unavailable_error", wait=1)

    def _count(self, answer: GeneratedAnswer, piece: TokenChunk) -> None:
        if not piece.ids:
            return
        now = time.monotonic()
        if not self.first:
            self.first = True
            self.metrics.first.observe(now - self.job.arrived)
        elif answer.last:
            self.metrics.between.observe((now - answer.last) / len(piece.ids))
        answer.last = now
        self.metrics.generation_tokens.inc(len(piece.ids))


def _timeout() -> ApiError:
    return ApiError(
        "the answer took longer than this server allows; lower max_tokens, or try again later",
        "server_error",
        code="timeout",
        status=504,
    )


async def respond(
    call: RequestContext, generation: GenerationTask, task: asyncio.Task[None], request_logger: RequestLogger
) -> None:
    """Generate the answers of a job and send them to its client, whole or as a stream; log how it ended.

    ``task`` ends once the request is in the inference log on disk; nothing is sent before. The answers are logged before the last part is sent.
    """
    job = generation.job
    try:
        if job.request.stream:
            await _stream(call, generation, task, request_logger)
        else:
            await _whole(call, generation, task, request_logger)
        _record_metrics(generation, [answer.finish or "error" for answer in job.answers])
    except (ClientDisconnectedError, ApiError, asyncio.CancelledError) as error:
        reason = generation.over or ("error" if isinstance(error, ApiError) else "cancelled")
        _record_metrics(generation, [reason] * len(job.answers))
        await _log_partial_response(job, task, request_logger, reason)
        if isinstance(error, asyncio.CancelledError):
            raise
        if isinstance(error, ApiError):
            await _send_error(call, error)


def _record_metrics(generation: GenerationTask, reasons: list[str]) -> None:
    for reason in reasons:
        generation.metrics.requests.labels(reason).inc()
    generation.metrics.whole.observe(time.monotonic() - generation.job.arrived)


async def _log_partial_response(
    job: ChatJob, task: asyncio.Task[None], request_logger: RequestLogger, reason: str
) -> None:
    """Log the text so far of an answer that was interrupted."""
    choices = [answer.choice(calls=False) for answer in job.answers]
    state_text = (
        encode_body(job.head, choices, TokenUsage(job.prompt_tokens, job.completion_tokens))
        if job.completion_tokens
        else None
    )
    try:
        await task
        await request_logger.log_response(job, state_text, reason, [])
    except ApiError as error:
        logging_setup.get_logger(__name__).error("inference %s: %s", job.head.id, error)


async def _send_error(call: RequestContext, problem: ApiError) -> None:
    if not call.started:
        await call.refuse(problem)
        return
    await call.stream(b"data: " + problem.body() + b"\n\n")
    await call.end()


async def _whole(
    call: RequestContext, generation: GenerationTask, task: asyncio.Task[None], request_logger: RequestLogger
) -> None:
    job = generation.job
    async for _ in generation.chunks():
        pass
    choices = [answer.choice(calls=job.offers_tools) for answer in job.answers]
    body = encode_body(job.head, choices, TokenUsage(job.prompt_tokens, job.completion_tokens))
    await task
    await request_logger.log_response(job, body, choices[0].finish, choices)
    await call.reply(200, msgspec.json.encode(body))


async def _stream(
    call: RequestContext, generation: GenerationTask, task: asyncio.Task[None], request_logger: RequestLogger
) -> None:
    job = generation.job
    chunks, calls = StreamEncoder(job.head, usage=job.request.with_usage), job.offers_tools
    opened = set[int]()
    last: list[bytes] = []
    async for chunk in generation.chunks():
        parts: list[bytes] = []
        for index, answer, text in chunk:
            if index not in opened:
                opened.add(index)
                parts.append(chunks.opening(index))
            if sendable := answer.take_sendable_text(text) if calls else text:
                parts.append(chunks.text(index, sendable, answer.take_unsent_tokens()))
            if answer.finish is not None:
                last += _closing(chunks, index, answer, calls=calls)
        await task
        if any(parts):
            await call.stream(b"".join(parts))
    choices = [item.choice(calls=calls) for item in job.answers]
    usage = TokenUsage(job.prompt_tokens, job.completion_tokens)
    await request_logger.log_response(job, encode_body(job.head, choices, usage), choices[0].finish, choices)
    if job.request.with_usage:
        last.append(chunks.usage(usage))
    await call.stream(b"".join([*last, DONE]))
    await call.end()


def _closing(chunks: StreamEncoder, index: int, answer: GeneratedAnswer, *, calls: bool) -> list[bytes]:
    choice = answer.choice(calls=calls)
    parts: list[bytes] = []
    tokens = answer.take_unsent_tokens()
    text = choice.text[answer.letters_sent :] if calls else ""
    if text or tokens:
        parts.append(chunks.text(index, text, tokens))
    if choice.calls:
        parts.append(chunks.calls(index, choice.calls))
    return [*parts, chunks.closing(index, choice.finish)]
