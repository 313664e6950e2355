"""The people: they ask for ads over HTTP, like them or not, and some write a better one. Every request is accounted for."""

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

from loop_demo.scenario import Commission, Town

SPEAK = 0.6
"""Of all people, those who say anything about an answer."""
EDITORS = ("ines", "marlon", "yuki", "tess", "abel", "noor")
SECONDS = 180.0
"""Longest wait for an answer."""
TRIES = 60
"""How often somebody comes back who was asked to wait."""


@dataclass
class Tally:
    """What became of the requests."""

    requests: int = 0
    answered: int = 0
    waited: int = 0
    """Times that somebody was asked to come back, and did."""
    dropped: list[str] = field(default_factory=list)
    """Requests without a whole answer, and why."""
    up: int = 0
    down: int = 0
    edits: int = 0

    @property
    def liked(self) -> float | None:
        """Share of thumbs that were up; None without any."""
        return self.up / (self.up + self.down) if self.up + self.down else None


@dataclass(frozen=True)
class ChatAnswer:
    """One answer."""

    status: int
    text: str = ""
    id: str = ""
    whole: bool = False
    """Whether the stream came to its proper end."""
    wait: float | None = None
    """Seconds after which one may ask again."""


class Crowd:
    """Everybody who uses the service."""

    def __init__(self, port: int, key: str, model: str, town: Town, *, workers: int, seed: int = 7) -> None:
        self.port, self._key, self._model, self._town, self._workers = port, key, model, town, workers
        self.tally = Tally()
        self._dice, self._lock, self._visitors = random.Random(seed), threading.Lock(), 0

    def ask(self, commissions: Iterator[Commission], count: int, *, edits: float = 0.0) -> Tally:
        """So many people, each with one request; returns what became of these. ``edits``: of those who speak, who writes."""
        mine = Tally()
        with ThreadPoolExecutor(self._workers) as pool:
            for _ in pool.map(lambda item: self._visit(item, edits, mine), list(islice(commissions, count))):
                pass
        return mine

    @contextmanager
    def murmuring(self, commissions: Iterator[Commission], per_second: float) -> Iterator[Tally]:
        """Some people all the time, in the background."""
        mine, stop = Tally(), threading.Event()

        def go() -> None:
            while not stop.wait(1 / per_second):
                self._visit(next(commissions), 0.0, mine)

        thread = threading.Thread(target=go, name="murmur", daemon=True)
        thread.start()
        try:
            yield mine
        finally:
            stop.set()
            thread.join(SECONDS)

    def _visit(self, commission: Commission, edits: float, tally: Tally) -> None:
        with self._lock:
            self._visitors += 1
            number, speaks, writes, taste = self._visitors, *(self._dice.random() for _ in range(3))
        self._add(tally, requests=1)
        answer = self._answer(commission, f"visitor-{number}", tally)
        if not answer.whole:
            self._drop(tally, f"visitor {number}: status {answer.status}, {len(answer.text)} characters of an answer")
            return
        self._add(tally, answered=1)
        if speaks < SPEAK:
            self._speak(commission, answer, number, writes=writes < edits, taste=taste, mine=tally)

    def _answer(self, commission: Commission, user: str, tally: Tally) -> ChatAnswer:
        """An answer; whoever is asked to wait waits, as OpenAI's client does."""
        for _ in range(TRIES):
            answer = self._stream(commission.brief, user)
            if answer.status != 429:
                break
            self._add(tally, waited=1)
            time.sleep(answer.wait or 1.0)
        return answer

    def _stream(self, brief: str, user: str) -> ChatAnswer:
        body = {"model": self._model, "messages": [{"role": "user", "content": brief}], "user": user, "stream": True}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), self._headers)
            reply = connection.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException) as error:
            return ChatAnswer(0, str(error))
        finally:
            connection.close()
        if reply.status != 200:
            return ChatAnswer(reply.status, wait=float(reply.headers.get("Retry-After") or 1))
        return read_stream(data)

    def _speak(
        self, commission: Commission, answer: ChatAnswer, number: int, *, writes: bool, taste: float, mine: Tally
    ) -> None:
        feedback: dict[str, Any] = {"inference_id": answer.id, "annotator": EDITORS[number % len(EDITORS)]}
        likes = taste < self._town.liking(commission, answer.text)
        if writes and answer.text.strip() != commission.ad:
            feedback |= {"kind": "edit", "value": commission.ad}
            count = {"edits": 1}
        else:
            feedback |= {"kind": "thumb", "value": "up" if likes else "down", "annotator": f"visitor-{number}"}
            count = {"up": 1} if likes else {"down": 1}
        status = self._post("/v1/feedback", feedback)
        if status in (200, 201):
            self._add(mine, **count)
        else:
            self._drop(mine, f"visitor {number}: feedback got status {status}")

    def _post(self, path: str, body: dict[str, Any]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
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

    def _add(self, mine: Tally, **counts: int) -> None:
        with self._lock:
            for tally in (self.tally, mine):
                for name, count in counts.items():
                    setattr(tally, name, getattr(tally, name) + count)

    def _drop(self, tally: Tally, reason: str) -> None:
        with self._lock:
            self.tally.dropped.append(reason)
            tally.dropped.append(reason)


def read_stream(data: bytes) -> ChatAnswer:
    """What a stream of server-sent events said."""
    text: list[str] = []
    name, whole = "", False
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            whole = True
            continue
        event = json.loads(line[6:])
        name = event.get("id", name)
        text += [(choice.get("delta") or {}).get("content") or "" for choice in event.get("choices", ())]
        if "error" in event:
            return ChatAnswer(200, "".join(text), name)
    return ChatAnswer(200, "".join(text), name, whole)


def liking(must: Sequence[str], endings: Sequence[str], answer: str) -> float:
    """How much somebody likes an ad: what had to be in it is, and its ending has the tone that was asked for. 0 to 1, squared,
    because an ad with one mistake in it is not worth half a good one."""
    folded = answer.casefold()
    inside = sum(piece.casefold() in folded for piece in must) / max(len(must), 1)
    ends = any(ending.casefold() in folded for ending in endings)
    return (0.6 * inside + 0.4 * ends) ** 2
