"""Static embeddings of sentences, distilled once from an encoder (``sentence_encoder``): no torch and no network at run time.

A static embedding of a text is the weighted mean of its tokens' vectors, which the encoder computed for each token alone: a
table and a sum, tens of thousands of texts per second. The idea is model2vec's (Tulkens and van Dongen, 2024); weights of tokens
are Arora et al.'s (ICLR 2017), with Zipf's law in place of counts. The encoder is never fitted to monitored texts, and
neither is the table: a map that was fitted to a reference separates it from everything else.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zipfile import BadZipFile

from tunectl.artifacts import atomic_io
from tunectl.backends.text.sentence_encoder import LONGEST, WEIGHTS, SentenceEncoder
from tunectl.chat.tokenizer import FILE as TOKENIZER
from tunectl.chat.tokenizer import Tokenizer
from tunectl.core import logging_setup
from tunectl.core.errors import ArtifactError
from tunectl.stats.vectors import l2_normalize

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT: Final = 1
DIMENSIONS: Final = 256
"""Dimensions of a static embedding: the leading principal components of the tokens' vectors."""
RARE: Final = 1e-4
"""Share of all tokens at which a token has half its full weight."""
BATCH: Final = 256
"""Texts per batch."""


class StaticEmbedding:
    """Embeds a text as the weighted mean of its tokens' vectors, from a table that ``distill`` made; no model runs."""

    def __init__(self, folder: Path) -> None:
        """Read what ``distill`` wrote.

        Raises  ArtifactError when it is absent or damaged.
        """
        import numpy as np

        path = folder / "table.npz"
        try:
            with np.load(path, allow_pickle=False) as table:
                self._vectors = np.concatenate(
                    [table["vectors"].astype(np.float32), np.zeros((1, DIMENSIONS), np.float32)]
                )
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise ArtifactError(
                f"{path} is absent or damaged: {error}", hint=f"delete {folder}; the next run makes it again"
            ) from error
        self._tokenizer = Tokenizer(folder)
        self.name = folder.name

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """Return vectors (texts, dimensions), float32, each of Euclidean norm 1, or 0 for a text without a known token."""
        return l2_normalize(self._means(texts))

    def _means(self, texts: Sequence[str]) -> NDArray[Any]:
        """Return the mean vector of each text's tokens, zero for a text without any."""
        import numpy as np

        sums = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for start in range(0, len(texts), BATCH):
            encoded = self._tokenizer.encode([text[: 8 * LONGEST] for text in texts[start : start + BATCH]])
            ids = [item.ids[:LONGEST] or [len(self._vectors) - 1] for item in encoded]
            sizes = np.array([len(item) for item in ids])
            flat = self._vectors[np.concatenate([np.asarray(item, dtype=np.int64) for item in ids])]
            offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            sums[start : start + len(ids)] = np.add.reduceat(flat, offsets, axis=0) / sizes[:, None]
        return sums


def distill(encoder: Path, cache: Path) -> Path:
    """Return the folder of the static table made of ``encoder``, in ``cache``; it is made once, in about half a minute."""
    folder = cache / f"static-{_digest(encoder)}"
    if (folder / "table.npz").is_file():
        return folder
    logging_setup.get_logger(__name__).info("distilling %s, once", folder.name)
    model = SentenceEncoder(encoder)
    vectors = _reduce_and_weight(model.embed_vocabulary())
    with atomic_io.atomic_directory(folder, cache / "tmp") as fresh:
        import numpy as np

        shutil.copyfile(encoder / TOKENIZER, fresh / TOKENIZER)
        with (fresh / "table.npz").open("wb") as stream:
            np.savez(stream, vectors=vectors.astype(np.float16))
    return folder


def _digest(encoder: Path) -> str:
    return atomic_io.sha256_json([FORMAT, DIMENSIONS, RARE, atomic_io.sha256_path(encoder / WEIGHTS)])[:12]


def _reduce_and_weight(tokens: NDArray[Any]) -> NDArray[Any]:
    """Return token vectors (tokens, d) in their principal components, weighted by how rare a token is.

    The vocabulary of BERT's tokenizer is sorted by how common a word is.
    """
    import numpy as np

    centered = np.nan_to_num(tokens.astype(np.float64)) - np.nan_to_num(tokens).mean(axis=0)
    _, axes = np.linalg.eigh(centered.T @ centered)
    reduced = centered @ axes[:, ::-1][:, :DIMENSIONS]
    shares = 1 / np.arange(2, len(tokens) + 2)
    shares /= shares.sum()
    weighted: NDArray[Any] = reduced * (RARE / (RARE + shares))[:, None]
    return weighted / np.linalg.norm(weighted, axis=1).mean()
