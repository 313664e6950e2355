"""Simulated users: they request ads over HTTP and send thumbs or edits. Every request is counted."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from loop_demo.scenario import SyntheticTraffic, UserRequest

FEEDBACK_SHARE = 0.6
"""Share of answers that get feedback."""
EDITORS = ("ines", "marlon", "yuki", "tess", "abel", "noor")
TIMEOUT_SECONDS = 180.0
"""Timeout of a request."""
MAX_ATTEMPTS = 60
"""How often a request is sent that gets status 429."""


@dataclass
class RequestCounts:
    """Counts of requests, answers and feedback."""

    requests: int = 0
    answered: int = 0
    retries: int = 0
    """Retries after status 429."""
    dropped: list[str] = field(default_factory=list)
    """Requests without a complete answer, each with the reason."""
    up: int = 0
    down: int = 0
    edits: int = 0

    @property
    def approval_rate(self) -> float | None:
        """Share of thumbs up; None without thumbs."""
        return self.up / (self.up + self.down) if self.up + self.down else None


@dataclass(frozen=True)
class ChatAnswer:
    """An answer of the chat endpoint."""

    status: int
    text: str = ""
    id: str = ""
    complete: bool = False
    """Whether the stream ended with [DONE]."""
    retry_after: float | None = None
    """Seconds of the header Retry-After."""


class SimulatedUsers:
    """All users of the service."""

    def __init__(
        self, port: int, key: str, model: str, traffic: SyntheticTraffic, *, workers: int, seed: int = 7
    ) -> None:
        self.port, self._key, self._model, self._traffic, self._workers = port, key, model, traffic, workers
        self.counts = RequestCounts()
        self._rng, self._lock, self._visitors = random.Random(seed), threading.Lock(), 0

    def send_requests(self, requests: Iterator[UserRequest], count: int, *, edits: float = 0.0) -> RequestCounts:
        """Send ``count`` requests, each of another user, and return their counts. ``edits``: share of the feedback that is an edit."""
        own = RequestCounts()
        with ThreadPoolExecutor(self._workers) as pool:
            for _ in pool.map(lambda item: self._simulate_user(item, edits, own), list(islice(requests, count))):
                pass
        return own

    @contextmanager
    def send_in_background(self, requests: Iterator[UserRequest], per_second: float) -> Iterator[RequestCounts]:
        """Send requests in a background thread."""
        own, stop = RequestCounts(), threading.Event()

        def send() -> None:
            while not stop.wait(1 / per_second):
                self._simulate_user(next(requests), 0.0, own)

        thread = threading.Thread(target=send, name="background-requests", daemon=True)
        thread.start()
        try:
            yield own
        finally:
            stop.set()
            thread.join(TIMEOUT_SECONDS)

    def _simulate_user(self, request: UserRequest, edits: float, counts: RequestCounts) -> None:
        with self._lock:
            self._visitors += 1
            number, feedback_draw, edit_draw, threshold = self._visitors, *(self._rng.random() for _ in range(3))
        self._add(counts, requests=1)
        answer = self._request_answer(request, f"visitor-{number}", counts)
        if not answer.complete:
            self._record_drop(
                counts, f"visitor {number}: status {answer.status}, {len(answer.text)} characters of an answer"
            )
            return
        self._add(counts, answered=1)
        if feedback_draw < FEEDBACK_SHARE:
            self._send_feedback(request, answer, number, is_edit=edit_draw < edits, threshold=threshold, own=counts)

    def _request_answer(self, request: UserRequest, user: str, counts: RequestCounts) -> ChatAnswer:
        """Request an answer; after status 429 wait and retry, as OpenAI's client does."""
        for _ in range(MAX_ATTEMPTS):
            answer = self._request_stream(request.brief, user)
            if answer.status != 429:
                break
            self._add(counts, retries=1)
            time.sleep(answer.retry_after or 1.0)
        return answer

    def _request_stream(self, brief: str, user: str) -> ChatAnswer:
        body = {"model": self._model, "messages": [{"role": "user", "content": brief}], "user": user, "stream": True}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), self._headers)
            reply = connection.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException) as error:
            return ChatAnswer(0, str(error))
        finally:
            connection.close()
        if reply.status != 200:
            return ChatAnswer(reply.status, retry_after=float(reply.headers.get("Retry-After") or 1))
        return read_stream(data)

    def _send_feedback(
        self,
        request: UserRequest,
        answer: ChatAnswer,
        number: int,
        *,
        is_edit: bool,
        threshold: float,
        own: RequestCounts,
    ) -> None:
        feedback: dict[str, Any] = {"inference_id": answer.id, "annotator": EDITORS[number % len(EDITORS)]}
        is_up = threshold < self._traffic.score_answer(request, answer.text)
        if is_edit and answer.text.strip() != request.ad:
            feedback |= {"kind": "edit", "value": request.ad}
            count = {"edits": 1}
        else:
            feedback |= {"kind": "thumb", "value": "up" if is_up else "down", "annotator": f"visitor-{number}"}
            count = {"up": 1} if is_up else {"down": 1}
        status = self._post("/v1/feedback", feedback)
        if status in (200, 201):
            self._add(own, **count)
        else:
            self._record_drop(own, f"visitor {number}: feedback got status {status}")

    def _post(self, path: str, body: dict[str, Any]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("POST", path, json.dumps(body), self._headers)
            reply = connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()
        return reply.status

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}

    def _add(self, own: RequestCounts, **counts: int) -> None:
        with self._lock:
            for total in (self.counts, own):
                for name, count in counts.items():
                    setattr(total, name, getattr(total, name) + count)

    def _record_drop(self, counts: RequestCounts, reason: str) -> None:
        with self._lock:
            self.counts.dropped.append(reason)
            counts.dropped.append(reason)


def read_stream(data: bytes) -> ChatAnswer:
    """Parse a stream of server-sent events."""
    text: list[str] = []
    name, complete = "", False
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            complete = True
            continue
        event = json.loads(line[6:])
        name = event.get("id", name)
        text += [(choice.get("delta") or {}).get("content") or "" for choice in event.get("choices", ())]
        if "error" in event:
            return ChatAnswer(200, "".join(text), name)
    return ChatAnswer(200, "".join(text), name, complete)


def score_ad(required_phrases: Sequence[str], closing_phrases: Sequence[str], answer: str) -> float:
    """Score an ad from 0 to 1: it has the required phrases, and its invitation fits the tone. Squared, so that one error costs
    more than its share."""
    lowercase = answer.casefold()
    share = sum(piece.casefold() in lowercase for piece in required_phrases) / max(len(required_phrases), 1)
    has_closing = any(ending.casefold() in lowercase for ending in closing_phrases)
    return (0.6 * share + 0.4 * has_closing) ** 2
