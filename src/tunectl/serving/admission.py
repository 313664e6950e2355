"""Who may come in: bounded running, bounded waiting and a budget of tokens, decided before anything is tokenised.

    admit -> waiting -> running -> leave        one ticket an answer; refused at the door or let in for good

Times are monotonic seconds that the caller gives, so that nothing here reads a clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tunectl.serving.wire import Problem

Reason = Literal["queue_full", "token_budget", "rate_limit", "draining", "not_ready"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the server takes on."""

    running: int
    """Answers that the engine works on at once."""
    waiting: int
    """Answers that wait for one of those places."""
    tokens: int
    """Prompt and answer tokens, as far as they can be foreseen, of all that run or wait."""


class Refused(Problem):
    """Not now; the reason is for the metrics."""

    def __init__(self, reason: Reason, message: str, wait: float, *, status: int = 429) -> None:
        kind: Literal["rate_limit_error", "unavailable_error"] = (
            "rate_limit_error" if status == 429 else "unavailable_error"
        )
        super().__init__(message, kind, code=reason, status=status, wait=wait)
        self.reason = reason


@dataclass(slots=True)
class Ticket:
    """A request of one or more answers that was let in."""

    number: int
    answers: int
    tokens: int
    admitted_at: float
    go: Callable[[], None]
    """Called once when all its answers may run; it may be called inside ``admit``."""
    started_at: float | None = None


class Admission:
    """Counts of one server. Not safe for threads: it belongs to the event loop."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.running = self.waiting = self.tokens = 0
        self._queue: OrderedDict[int, Ticket] = OrderedDict()
        self._last = 0
        self._pace = 1.0  # seconds that an answer has run, smoothed

    def admit(self, answers: int, tokens: int, now: float, go: Callable[[], None]) -> Ticket:
        """Let a request in, or raise Refused with seconds to wait: it starts at once or waits its turn.

        Raises  Problem for what could never come in; Refused for what may come in later.
        """
        self._refuse(answers, tokens)
        self._last += 1
        ticket = Ticket(self._last, answers, tokens, now, go)
        self.waiting += answers
        self.tokens += tokens
        self._queue[ticket.number] = ticket
        self._advance(now)
        return ticket

    def leave(self, ticket: Ticket, now: float) -> None:
        """A request is over, in whatever state; whoever waits moves up. Call it once."""
        self.tokens -= ticket.tokens
        if ticket.started_at is None:
            del self._queue[ticket.number]
            self.waiting -= ticket.answers
        else:
            self.running -= ticket.answers
            self._pace += 0.2 * (now - ticket.started_at - self._pace)
        self._advance(now)

    def wait(self) -> float:
        """Seconds after which a place is likely to be free: 1 to 60."""
        turns = (self.waiting + 1) / max(1, self.bounds.running)
        return min(60.0, max(1.0, self._pace * turns))

    def _refuse(self, answers: int, tokens: int) -> None:
        bounds = self.bounds
        if answers > bounds.running:
            raise Problem(
                f"n asks for {answers} answers; this server writes at most {bounds.running} at once", param="n"
            )
        if tokens > bounds.tokens:
            raise Problem(
                f"the request may take {tokens} tokens; this server's budget is {bounds.tokens}", param="max_tokens"
            )
        if self.running + self.waiting + answers > bounds.running + bounds.waiting:
            raise Refused(
                "queue_full",
                f"{self.running} answers are being written and {self.waiting} wait, which is all this server takes; try again",
                self.wait(),
            )
        if self.tokens + tokens > bounds.tokens:
            raise Refused(
                "token_budget",
                f"{self.tokens} tokens of {bounds.tokens} are spoken for and this request may take {tokens}; try again",
                self.wait(),
            )

    def _advance(self, now: float) -> None:
        while self._queue:
            first = next(iter(self._queue.values()))
            if self.running + first.answers > self.bounds.running:
                return
            del self._queue[first.number]
            self.waiting -= first.answers
            self.running += first.answers
            first.started_at = now
            first.go()


def foreseen(letters: int, max_tokens: int, answers: int) -> int:
    """Tokens that a request may take, before it is tokenised: a token for three letters of JSON, and all that it may write."""
    return letters // 3 + max_tokens * answers
