"""Contract of a model: everything that prompt rendering must do the same way in training and serving."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.core.errors import ArtifactError

NAME = "model_spec.json"


class SpecialToken(Struct, frozen=True):
    """One special token: its text and number."""

    text: str
    id: int


class ModelSpec(Struct, frozen=True):
    """What lies in ``model_spec.json`` of a model folder, and of an adapter's folder."""

    base: str
    """Where the base model came from: Hub id, folder name, or package and file."""
    revision: str
    """Commit, package version, or the hash of the weights for a folder."""
    weights_sha256: str
    """Of model.safetensors."""
    template_sha256: str
    """Of chat_template.jinja."""
    eot_token: SpecialToken
    """Closes every answer; the last token that is learned."""
    bos: SpecialToken | None
    """What the tokenizer calls the begin of text; the template writes it where the model wants it."""
    eos: SpecialToken | None
    pad: SpecialToken | None
    """May be the end of turn: rows are masked by length, never by this id."""
    system: str | None
    """System text of conversations that bring none; None: the template decides."""
    license: str | None
    parameters: int
    """Weights, tied ones counted once."""
    context: int | None
    """Most tokens that the model was made for."""


def load(folder: Path) -> ModelSpec:
    """Return the contract in ``folder``.

    Raises  ArtifactError when it is absent or cut off.
    """
    model_spec: ModelSpec = atomic_io.read_json(folder / NAME, ModelSpec)
    return model_spec


def save(contract: ModelSpec, folder: Path) -> None:
    """Write ``contract`` into ``folder``."""
    atomic_io.write_json(folder / NAME, contract)


def check_base_matches(adapter: Path, base: Path) -> None:
    """Refuse an adapter that was trained on other weights, or read another chat template.

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
                hint=f"give the model that it was trained on ({own.base}, revision {own.revision[:12]})",
            )
