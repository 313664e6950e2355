"""The two sides that a release is held between: the trained model, and the engine that will serve it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from tunectl.config.serve import ServeSettings
from tunectl.release.contract import ServingContract
from tunectl.release.manifest import Facts


class Said(Struct, frozen=True):
    """One answer, greedy."""

    ids: list[int]
    """With the stop token that ended it, if one did."""
    logprobs: list[float]
    """Nats, one a token of ``ids``."""
    finished: bool
    """Whether a stop token ended it."""


class Reading(Struct, frozen=True):
    """One given answer, read token by token: what a side thinks at each place, given the tokens before it."""

    choices: list[int]
    """The likeliest token."""
    logprobs: list[float]
    """Nats, of ``choices``."""


class Manner(Struct, frozen=True):
    """How an answer is drawn."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    """Of the first prompt; each that follows has the next."""


GREEDY = Manner()


class Trained(Protocol):
    """A model on the training side."""

    def answers(self, prompts: Sequence[Sequence[int]], limit: int) -> list[Said]:
        """Greedy answers of at most ``limit`` tokens."""
        ...

    def likelihood(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], of: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Nats of the tokens ``of`` at each place of the given ``answers``, all three as long as one another."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class Opened(Protocol):
    """A release in an engine."""

    def answers(self, prompts: Sequence[Sequence[int]], limit: int, how: Manner = GREEDY) -> list[Said]:
        """Answers of at most ``limit`` tokens."""
        ...

    def readings(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[Reading]:
        """What the engine would have said at each place of given answers, on the call that serves requests."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class Tools(Protocol):
    """Everything outside our own code that packaging needs; tests pass fakes."""

    def trained(self, base: Path, adapter: Path | None, stops: Sequence[int], precision: str) -> Trained:
        """The trained model, its adapter added into its weights; None is the base alone."""
        ...

    def export(self, model: Path, out: Path, *, engine: str, weights: str) -> None:
        """Turn a model folder into what an engine loads."""
        ...

    def merge(self, model: Path, adapter: Path, out: Path) -> None:
        """Write ``model`` with ``adapter`` added into its weights."""
        ...

    def bento(self, release: Path, facts: Facts, name: str, out: Path, settings: ServeSettings) -> None:
        """Build the Bento that carries ``release``."""
        ...

    def gguf(self, merged: Path, out: Path, kind: str, contract: ServingContract) -> float:
        """Write a GGUF file of a merged model folder and load it; the share of the probes' tokens that it agrees on, 0 to 1."""
        ...

    def opened(self, release: Path, stops: Sequence[int]) -> Opened:
        """A release in the engine that its contract names."""
        ...
