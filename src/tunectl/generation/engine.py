"""What the server asks of an engine: token ids in, token ids with log-probabilities out, while others run beside it.

One pipeline serves one variant: its weights and its adapter are fixed when it is opened. ``start`` may be called from any thread.
Everything that a pipeline has to say goes through ``deliver``, once a step for all its requests together, from its own
thread: so a step of 32 streams wakes the server's loop once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

FinishReason = Literal["stop", "length", "cancelled", "failed"]
"""Why an answer ended: a stop token, ``max_tokens``, the server, or the engine itself."""


class GenerationRequest(Struct, frozen=True, array_like=True):
    """One answer that is wanted."""

    prompt: list[int]
    """Token ids of the rendered prompt."""
    max_tokens: int
    temperature: float
    """0 is greedy."""
    top_p: float
    stop_ids: frozenset[int]
    """Tokens that end the answer; the one that did is not among the ids that come back. Empty: only ``max_tokens`` ends it."""
    seed: int | None = None
    """Of the draws; None: another one each time."""
    presence: float = 0.0
    """Taken off the logit of every token that the answer holds already: -2 to 2."""
    frequency: float = 0.0
    """The same, once for each time that it holds it: -2 to 2."""
    schema: str | None = None
    """JSON Schema that the text must fit, as JSON; None leaves it free. ``{}`` is any JSON object."""
    logprobs: bool = True
    """Whether log-probabilities come with the tokens. They cost time in each step and change no token."""


class TokenChunk(Struct, frozen=True, array_like=True):
    """What one step added to one answer."""

    ids: list[int]
    logprobs: list[float]
    """Natural logarithms, one a token of ``ids``, under the distribution that it was drawn from; none where the request wants none."""
    end: FinishReason | None = None
    """Set on the last piece."""
    why: str = ""
    """What the engine said, where ``end`` is failed."""


Deliver = Callable[[Sequence[tuple[int, TokenChunk]]], None]
"""Takes what one step made: the number of each answer and its piece."""


class EngineSession(Protocol):
    """Weights and an adapter in memory, ready to answer."""

    broken: str | None
    """Why it can answer no more, until it is opened anew; None while it works."""

    def start(self, number: int, request: GenerationRequest) -> None:
        """Begin an answer under a number that its owner chose; its pieces follow through ``deliver``, the last with its end."""
        ...

    def cancel(self, number: int) -> None:
        """Stop an answer within a step and free what it holds; its last piece says ``cancelled``. Unknown numbers are ignored."""
        ...

    def close(self) -> None:
        """Cancel what runs, end the thread and give the memory back. Safe to call twice."""
        ...


class Engine(Protocol):
    """Opens pipelines."""

    @property
    def name(self) -> str:
        """As in the contract of a release."""
        ...

    def open(self, release: Path, deliver: Deliver, *, adapter: bool) -> EngineSession:
        """Load a release's ``model/`` and, where it is kept apart and wanted, its adapter; blocks while it loads.

        Raises  ArtifactError for files that this engine cannot load, with its words.
        """
        ...

    def cancel_open(self) -> None:
        """End an ``open`` that nobody waits for any more, where that can be done from outside, and open nothing from now on."""
        ...
