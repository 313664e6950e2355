"""Admission control: bounded concurrency, a bounded queue and a token budget, checked before tokenization.

    admit -> waiting -> running -> leave        one ticket a request; refused at once or admitted for good

A refused client is told when to retry, and gets a place then (``retry_reservations.py``). Times are monotonic seconds from the caller: nothing here reads a clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tunectl.access.api_errors import ApiError
from tunectl.serving.retry_reservations import Reservations

SOONEST, LATEST = 1.0, 60.0
"""Shortest and longest wait in seconds in the Retry-After of a refused client. OpenAI's own client waits up to 60."""
MARGIN = 1.5
"""Factor on the expected wait of a reservation: a client that comes too early has lost a retry."""
RefusalReason = Literal["queue_full", "token_budget", "rate_limit", "draining", "not_ready"]


@dataclass(frozen=True, slots=True)
class CapacityLimits:
    """Most answers that a server generates and queues at the same time, and most tokens of both together."""

    running: int
    """Answers that the engine generates at once."""
    waiting: int
    """Answers that wait until others have finished."""
    tokens: int
    """Prompt and answer tokens, as estimated, of all running and waiting requests."""


class OverloadedError(ApiError):
    """HTTP 429 or 503 with Retry-After: the server has no room at this moment; ``reason`` labels the metric."""

    def __init__(self, reason: RefusalReason, message: str, wait: float, *, status: int = 429) -> None:
        kind: Literal["rate_limit_error", "unavailable_error"] = (
            "rate_limit_error" if status == 429 else "unavailable_error"
        )
        super().__init__(message, kind, code=reason, status=status, wait=wait)
        self.reason = reason


@dataclass(slots=True)
class AdmissionTicket:
    """Place of an admitted request of one or more answers in the server's capacity, from ``admit`` to ``leave``."""

    number: int
    """In order of arrival."""
    answers: int
    tokens: int
    """Tokens of prompt and answers, as estimated."""
    on_start: Callable[[], None]
    """Called once when all its answers may run; possibly inside ``admit``."""
    started_at: float | None = None
    """None while it waits."""


class AdmissionController:
    """Queue and limits of one server: decides which requests run, wait or are refused. Not thread-safe: for the event loop only."""

    def __init__(self, bounds: CapacityLimits) -> None:
        self.bounds = bounds
        self.running = self.waiting = self.tokens = 0
        self._queue: OrderedDict[int, AdmissionTicket] = OrderedDict()
        self._last = 0
        self._pace = 2.0  # seconds that a request runs, smoothed
        self._samples = 0
        self._promises = Reservations()

    def admit(
        self,
        answers: int,
        tokens: int,
        now: float,
        on_start: Callable[[], None],
        *,
        name: bytes = b"",
        may_be_retry: bool = True,
    ) -> AdmissionTicket:
        """Admit a request of ``answers`` answers and ``tokens`` tokens, to run at once or wait its turn; return its ticket.

        now           monotonic seconds
        on_start      called once when all its answers may run
        name          identifies requests: a retry has the same name
        may_be_retry  False: it is no retry, even if an earlier request had the same name
        Raises  ApiError for a request above the server's limits; OverloadedError, with seconds to wait, where there is no room now.
        """
        self._refuse_impossible(answers, tokens)
        self._promises.forget_expired(now)
        promise = self._promises.of(name) if may_be_retry else None
        entitled = promise is not None and now >= promise.due
        rejection = self._find_rejection(answers, tokens, 0.0 if entitled else self._promises.ahead)
        if promise is not None and (entitled or rejection is None):
            self._promises.close(promise, in_time=True)
        if rejection is not None:
            if promise is not None and not entitled:
                wait = promise.due - now
            else:
                self._promises.make(name, answers, wait := self.estimate_wait_seconds(answers), now)
            raise OverloadedError(*rejection, max(SOONEST, wait))
        self._last += 1
        ticket = AdmissionTicket(self._last, answers, tokens, on_start)
        self.waiting += answers
        self.tokens += tokens
        self._queue[ticket.number] = ticket
        self._advance(now)
        return ticket

    def leave(self, ticket: AdmissionTicket, now: float, *, generated: bool = True) -> None:
        """Release the capacity of a request, running or waiting, and start the next ones. Call it once; ``now`` in monotonic seconds.

        generated  False: it was refused before the engine had it, so its time says nothing about how long requests take
        """
        self.tokens -= ticket.tokens
        if ticket.started_at is None:
            del self._queue[ticket.number]
            self.waiting -= ticket.answers
        else:
            self.running -= ticket.answers
            if generated:
                self._samples += 1
                self._pace += max(0.2, 1 / self._samples) * (now - ticket.started_at - self._pace)
        self._advance(now)

    def estimate_wait_seconds(self, answers: int = 1) -> float:
        """Return the seconds after which there is probably room for ``answers`` answers that is not reserved for another client."""
        turns = (self._promises.ahead + answers) / self.bounds.running
        return min(LATEST, max(SOONEST, MARGIN * self._pace * turns))

    def _refuse_impossible(self, answers: int, tokens: int) -> None:
        bounds = self.bounds
        if answers > bounds.running:
            raise ApiError(
                f"n = {answers} answers: this server writes at most {bounds.running} at once; lower n or send fewer prompts",
                param="n",
            )
        if tokens > bounds.tokens:
            raise ApiError(
                f"the request needs up to {tokens} tokens, but this server takes at most {bounds.tokens}; lower max_tokens",
                param="max_tokens",
            )

    def _find_rejection(self, answers: int, tokens: int, reserved: float) -> tuple[RefusalReason, str] | None:
        """Return why there is no room, or None; ``reserved`` answers in the queue are kept for others, but none that could run."""
        bounds, inside = self.bounds, self.running + self.waiting
        free = bounds.running + max(0.0, bounds.waiting - reserved)
        if inside + answers > free:
            note = (
                f", {reserved:.0f} reserved for retries" if inside + answers <= bounds.running + bounds.waiting else ""
            )
            return "queue_full", (
                f"this server is full: {self.running} answers are being written, {self.waiting} wait{note}; try again later"
            )
        if self.tokens + tokens > bounds.tokens:
            return "token_budget", (
                f"{self.tokens} of {bounds.tokens} tokens are reserved, and this request needs up to {tokens}; retry later"
            )
        return None

    def _advance(self, now: float) -> None:
        while self._queue:
            first = next(iter(self._queue.values()))
            if self.running + first.answers > self.bounds.running:
                return
            del self._queue[first.number]
            self.waiting -= first.answers
            self.running += first.answers
            first.started_at = now
            first.on_start()


def estimate_tokens(letters: int, max_tokens: int, answers: int) -> int:
    """Estimate the tokens of a request before it is tokenized: one per three ``letters`` of its body, plus ``max_tokens`` for each answer."""
    return letters // 3 + max_tokens * answers
