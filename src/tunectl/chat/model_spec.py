"""The model spec: everything that prompt rendering must do in the same way in training and serving."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.core.errors import ArtifactError

NAME = "model_spec.json"


class SpecialToken(Struct, frozen=True):
    """A special token: its text and token id."""

    text: str
    id: int


class ModelSpec(Struct, frozen=True):
    """Content of ``model_spec.json`` in a model folder, and in an adapter's folder."""

    base: str
    """Where the base model came from: Hub id, folder name, or package and file."""
    revision: str
    """Commit, package version, or the hash of the weights for a folder."""
    weights_sha256: str
    """SHA-256 of model.safetensors."""
    template_sha256: str
    """SHA-256 of chat_template.jinja."""
    eot_token: SpecialToken
    """Closes every answer; the last token that is trained on."""
    bos: SpecialToken | None
    """The tokenizer's begin-of-text token; the template writes it where the model needs it."""
    eos: SpecialToken | None
    pad: SpecialToken | None
    """May be the end of turn: rows are masked by length, never by this id."""
    system: str | None
    """System text of conversations that have none; None: the template decides."""
    license: str | None
    parameters: int
    """Number of weights, tied ones counted once."""
    context: int | None
    """Context length of the model in tokens."""


def load(folder: Path) -> ModelSpec:
    """Return the model spec in ``folder``.

    Raises  ArtifactError when it is absent or incomplete.
    """
    model_spec: ModelSpec = atomic_io.read_json(folder / NAME, ModelSpec)
    return model_spec


def save(contract: ModelSpec, folder: Path) -> None:
    """Write the model spec into ``folder``."""
    atomic_io.write_json(folder / NAME, contract)


def check_base_matches(adapter: Path, base: Path) -> None:
    """Raise where the adapter in folder ``adapter`` was trained on other weights than ``base``, or with another chat template.

    Raises  ArtifactError with both values.
    """
    own, its = load(adapter), load(base)
    for what, item, other in (
        ("weights", own.weights_sha256, its.weights_sha256),
        ("chat template", own.template_sha256, its.template_sha256),
    ):
        if item != other:
            raise ArtifactError(
                f"{adapter} does not fit {base}: it was trained with the {what} {item[:12]}…, not {other[:12]}…",
                hint=f"train it again on this model, or use the one that it was trained on ({own.base}, revision {own.revision[:12]})",
            )
