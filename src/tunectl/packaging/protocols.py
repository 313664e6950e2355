"""Protocols of the two models that packaging compares: the trained model, and the exported one in the engine that will serve it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from tunectl.config.schema.serve import ServeSettings
from tunectl.packaging.serving_contract import ServingContract
from tunectl.registry.release_manifest import BuildFacts


class GreedyOutput(Struct, frozen=True):
    """One greedily generated answer as token ids and log-probabilities."""

    ids: list[int]
    """With the stop token that ended it, if one did."""
    logprobs: list[float]
    """Nats, one per token of ``ids``."""
    finished: bool
    """Whether a stop token ended it."""


class TeacherForced(Struct, frozen=True):
    """A model's prediction at each position of a given answer, given the tokens before it."""

    choices: list[int]
    """The likeliest token."""
    logprobs: list[float]
    """Log-probabilities of ``choices``, nats."""


class SamplingParams(Struct, frozen=True):
    """Temperature, top-p and seed of generation."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    """Seed of the first prompt; the seed of each following prompt is one higher."""


GREEDY = SamplingParams()


class TrainedModel(Protocol):
    """The trained model in memory, in the library that trained it."""

    def generate(self, prompts: Sequence[Sequence[int]], limit: int) -> list[GreedyOutput]:
        """Return one greedy answer of at most ``limit`` tokens per prompt (token ids)."""
        ...

    def likelihood(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], of: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Return, for each answer, the log-probability (nats) of the token that ``of`` has at each position, given what precedes it."""
        ...

    def close(self) -> None:
        """Release the memory."""
        ...


class ReleaseSession(Protocol):
    """A release loaded in the engine that serves it."""

    def generate(
        self, prompts: Sequence[Sequence[int]], limit: int, sampling: SamplingParams = GREEDY
    ) -> list[GreedyOutput]:
        """Return one answer of at most ``limit`` tokens per prompt (token ids)."""
        ...

    def teacher_force(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[TeacherForced]:
        """Return the engine's prediction at each position of the given answers, by the same code that serves requests.

        ``prompts`` and ``answers`` are token ids, one prompt per answer, in one order.
        """
        ...

    def close(self) -> None:
        """Release the memory."""
        ...


class PackagingBackends(Protocol):
    """Libraries that packaging calls: training, export, engine, Bento, GGUF; tests pass fakes."""

    def load_trained_model(
        self, base: Path, adapter: Path | None, stops: Sequence[int], precision: str
    ) -> TrainedModel:
        """Return the trained model with ``adapter`` merged in; None: the base model alone. ``stops``: token ids that end an answer."""
        ...

    def export(self, model: Path, out: Path, *, engine: str, weights: str) -> None:
        """Export a model folder to folder ``out`` in the format of ``engine``; ``weights`` is their precision."""
        ...

    def merge(self, model: Path, adapter: Path, out: Path) -> None:
        """Write ``model`` with ``adapter`` added into its weights to folder ``out``."""
        ...

    def build_bento(self, release: Path, facts: BuildFacts, name: str, out: Path, settings: ServeSettings) -> None:
        """Build the Bento called ``name`` that contains ``release``, in folder ``out``."""
        ...

    def export_gguf(self, merged: Path, out: Path, kind: str, contract: ServingContract) -> float:
        """Write the model folder ``merged`` as GGUF file ``out`` and load it again.

        ``kind`` is llama.cpp's type of weights, such as q8_0. Returns  share (0 to 1) of the answer tokens of ``contract.probes`` that
        the file ranks first, too
        """
        ...

    def open_release(self, release: Path, stops: Sequence[int]) -> ReleaseSession:
        """Return the release in folder ``release``, loaded in the engine that its contract names; ``stops``: token ids that end an answer."""
        ...
