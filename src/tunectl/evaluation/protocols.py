"""Protocols of generators, scorers and indexes, which backends implement for the evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tunectl.config.schema.evaluate import BeamSearch, Greedy, Sampling
from tunectl.evaluation.declared_checks import Valid

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class GenerationPrompt:
    """One prompt, rendered by the chat template up to where the answer begins."""

    prompt: str
    references: tuple[str, ...] = ()
    """Rendered right answers, end of turn included, whose likelihood after this prompt is needed."""


@dataclass(frozen=True, slots=True)
class LogProb:
    """Log-likelihood of one reference answer after its prompt, and its number of tokens."""

    nats: float
    """Sum of the natural logarithms of its tokens' probabilities; zero or below."""
    tokens: int


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """One answer of a Generator, with its tokens and time."""

    text: str
    prompt_tokens: int
    tokens: int
    """Number of generated tokens, end of turn included."""
    seconds: float
    """This answer's share of its batch's time; the sum over answers is the wall time of generation."""
    finished: bool
    """False where the answer was cut at ``max_new_tokens``."""
    references: tuple[LogProb, ...] = ()


class TokenCounter(Protocol):
    """Counts tokens as a model does, and knows its limit."""

    @property
    def context(self) -> int | None:
        """Most tokens of prompt and answer together; None where the model has no limit."""

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each prompt."""


class Generator(TokenCounter, Protocol):
    """A model in memory that generates answers and measures the likelihood of references."""

    def answer(
        self, requests: Sequence[GenerationPrompt], decoding: Greedy | BeamSearch | Sampling, *, seed: int, label: str
    ) -> list[GeneratedText]:
        """Return one answer per request, in their order. Equal arguments give equal texts; ``label`` names the progress bar."""

    def close(self) -> None:
        """Release the memory."""


class ModelLoader(Protocol):
    """Loads the model in ``folder`` into memory, with the adapter merged in where one is given."""

    def __call__(self, folder: Path, adapter: Path | None) -> Generator:
        """Return the model, loaded and with the adapter merged in (None: the model alone).

        Raises  UsageError when the folder holds no model, or the adapter belongs to another one.
        """


class TextScorer(Protocol):
    """Computes the statistics of one or several metrics from answers and references, for example of BLEU."""

    def __call__(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> Mapping[str, NDArray[Any]]:
        """Return by metric name the sufficient statistics (answers, statistics) that ``metrics`` combines.

        ``references`` has the references of each answer.
        """


class Index(Protocol):
    """A nearest-neighbor index over texts, for example BM25."""

    def nearest(self, queries: Sequence[str], count: int) -> list[list[int]]:
        """Return for each query the indices of its ``count`` nearest texts, nearest first (fewer where there are fewer)."""


class IndexBuilder(Protocol):
    """Builds a nearest-neighbor index over texts."""

    def __call__(self, texts: Sequence[str]) -> Index:
        """Return the index of ``texts``, which must not be empty."""


@dataclass(frozen=True, slots=True)
class MetricBackends:
    """The library functions that an evaluation calls: scorers, nearest-neighbor index, JSON schema check."""

    scorers: tuple[TextScorer, ...]
    index: IndexBuilder
    valid: Valid
