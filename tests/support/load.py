"""Clients that ask without a pause, with the stock openai client, and say honestly how each request ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import openai

End = Literal["whole", "refused", "cut"]


@dataclass
class Load:
    """Some threads that ask until they are told to stop, or until the server is gone."""

    address: str
    key: str
    tokens: int = 200
    ended: list[tuple[End, float, str]] = field(default_factory=list)
    """How each request ended, when (monotonic seconds), and the release that answered or what went wrong."""
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, streams: int, others: int) -> None:
        for number in range(streams + others):
            thread = threading.Thread(target=self._ask, args=(number, number < streams), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()

    def of(self, end: End) -> list[tuple[End, float, str]]:
        return [one for one in self.ended if one[0] == end]

    def _ask(self, number: int, stream: bool) -> None:
        client = openai.OpenAI(base_url=f"{self.address}/v1", api_key=self.key, max_retries=0, timeout=120)
        while not self._over.is_set():
            number += 1000
            end, what = _asked(client, self.tokens, number, stream)
            self.ended.append((end, time.monotonic(), what))
            if end != "whole":
                return


def _asked(client: openai.OpenAI, tokens: int, seed: int, stream: bool) -> tuple[End, str]:
    words: dict[str, Any] = {"model": "shop", "messages": [{"role": "user", "content": f"Hello {seed}"}]}
    words |= {"max_tokens": tokens, "temperature": 1.0, "seed": seed}
    said = ""
    try:
        for chunk in _chunks(client, words, stream):
            said = chunk.system_fingerprint or said
            if chunk.choices and chunk.choices[0].finish_reason:
                return "whole", said
    except openai.APIStatusError as error:
        return ("refused" if error.status_code == 503 else "cut"), str(error)
    except openai.APIConnectionError as error:
        # The port of a container is open until the container is gone: who comes after the server's door is closed is
        # let in by Docker and hears nothing. The inference log knows whether the server ever saw such a request.
        gone = type(error.__cause__).__name__ in {"ConnectError", "ReadError", "RemoteProtocolError"}
        return ("refused" if gone and not said else "cut"), repr(error.__cause__)
    except Exception as error:  # of whichever HTTP library openai brings: a stream that broke off
        return "cut", repr(error)
    return "cut", "an answer without an end"


def _chunks(client: openai.OpenAI, words: dict[str, Any], stream: bool) -> Iterable[Any]:
    """The chunks of a stream, or the one answer."""
    made = client.chat.completions.create(**words, stream=stream)
    return made if stream else [made]
