"""The protocol of inference engines: token ids in, token ids with log-probabilities out, for many requests at a time.

One session serves one variant: its weights and its adapter are fixed when it is opened. ``start`` may be called from any thread.
A session reports everything through ``deliver``, once per step for all its requests together, from its own
thread: so a step of 32 streams wakes the server's event loop once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

FinishReason = Literal["stop", "length", "cancelled", "refused", "failed"]
"""Why an answer ended: a stop token, ``max_tokens``, the server, a request that the engine does not take, or a fault of the engine."""


class GenerationRequest(Struct, frozen=True, array_like=True):
    """Request to an engine for one answer: prompt token ids, limits and sampling parameters."""

    prompt: list[int]
    """Token ids of the rendered prompt."""
    max_tokens: int
    temperature: float
    """0 is greedy."""
    top_p: float
    stop_ids: frozenset[int]
    """Tokens that end the answer; the one that did is not in the returned ids. Empty: only ``max_tokens`` ends it."""
    seed: int | None = None
    """Seed of the sampling; None: a different one each time."""
    presence: float = 0.0
    """Subtracted from the logit of every token that the answer contains already: -2 to 2."""
    frequency: float = 0.0
    """The same, once for each time that the answer contains the token: -2 to 2."""
    schema: str | None = None
    """JSON Schema that the text must fit, as JSON; None leaves it free."""
    logprobs: bool = True
    """Whether log-probabilities come with the tokens. They take time in each step and change no token."""


class TokenChunk(Struct, frozen=True, array_like=True):
    """Tokens that one engine step added to one answer, with log-probabilities (nats); ``end`` of an answer's last chunk is its finish reason."""

    ids: list[int]
    logprobs: list[float]
    """Natural logarithms, one per token of ``ids``, under the sampled distribution; none where the request does not ask for them."""
    end: FinishReason | None = None
    """Set on the last chunk of an answer."""
    why: str = ""
    """The engine's message, where ``end`` is refused or failed."""


Deliver = Callable[[Sequence[tuple[int, TokenChunk]]], None]
"""Takes the output of one step: the number of each answer and its piece."""


class EngineSession(Protocol):
    """One release in memory (weights and adapter) that generates answers; made by ``Engine.open``."""

    broken: str | None
    """Why it cannot answer any more, until it is opened again; None while it works."""

    def start(self, number: int, request: GenerationRequest) -> None:
        """Start an answer to ``request`` under ``number``, which the caller chooses; ``deliver`` of ``Engine.open`` gets its tokens."""
        ...

    def cancel(self, number: int) -> None:
        """Cancel the answer ``number`` after the current step; ``end`` of its last chunk is ``cancelled``. Unknown numbers are ignored."""
        ...

    def close(self) -> None:
        """Cancel running requests, end the session's thread and release its memory. Safe to call twice."""
        ...


class Engine(Protocol):
    """An inference library: opens sessions on releases."""

    @property
    def name(self) -> str:
        """Name of the engine, as contract.json of a release has it (such as ``vllm``)."""
        ...

    def open(self, release: Path, deliver: Deliver, *, adapter: bool) -> EngineSession:
        """Return a session on ``release/model``, with its adapter if ``adapter``; blocks until it is loaded.

        ``deliver`` is called after each step with (number, chunk) of each answer that got tokens.
        Raises  ArtifactError with the engine's error message for files that it cannot load.
        """
        ...

    def cancel_open(self) -> None:
        """Cancel a call of ``open`` that runs in another thread, where the engine can; later calls of ``open`` fail."""
        ...
