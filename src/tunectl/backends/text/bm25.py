"""Find the nearest training inputs, offline, by bm25s (Okapi BM25: Robertson and Zaragoza, 2009)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from tunectl.core.optional import import_optional


class Bm25Index:
    """BM25 index of texts in memory, for few-shot examples and the nearest training inputs."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._library = import_optional("bm25s", extra="evaluate")
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # the library sets its logger to DEBUG
        self._size = len(texts)
        self._index = self._library.BM25()
        self._index.index(self._tokens(texts), show_progress=False)

    def nearest(self, queries: Sequence[str], count: int) -> list[list[int]]:
        """Return for each query the indices of the ``count`` texts with the highest BM25 score, best first."""
        if not queries or not count:
            return [[] for _ in queries]
        indexes, _ = self._index.retrieve(self._tokens(queries), k=min(count, self._size), show_progress=False)
        return [[int(index) for index in row] for row in indexes]

    def _tokens(self, texts: Sequence[str]) -> Any:
        # no stop words: "no" and "not" decide what an input is about
        return self._library.tokenize(list(texts), stopwords=None, token_pattern=r"(?u)\w+", show_progress=False)  # noqa: S106
