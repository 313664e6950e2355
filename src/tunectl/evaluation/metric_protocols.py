"""What evaluation needs from the libraries that compare texts and find near ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tunectl.evaluation.declared_checks import Valid

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TextScorer(Protocol):
    """Compares answers with references."""

    def __call__(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> Mapping[str, NDArray[Any]]:
        """Return sufficient statistics by metric name; each (answers, statistics), as ``metrics`` combines them."""


class Index(Protocol):
    """Finds the nearest of the texts it was built from."""

    def nearest(self, queries: Sequence[str], count: int) -> list[list[int]]:
        """Return for each query the indices of its ``count`` nearest texts, nearest first (fewer where there are fewer)."""


class IndexBuilder(Protocol):
    """Index texts for a nearest-neighbor search, for example BM25."""

    def __call__(self, texts: Sequence[str]) -> Index:
        """Return the index of ``texts``, which must not be empty."""


@dataclass(frozen=True, slots=True)
class MetricBackends:
    """The libraries of one evaluation, behind plain functions."""

    scorers: tuple[TextScorer, ...]
    index: IndexBuilder
    valid: Valid
