"""The serving contract of a release: everything a server must check before it answers, readable without torch.

The training side writes it (stage package); a server is not ready until it has verified each part of it for itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from tunectl.artifacts.record_format import RecordFormat, rename_keys
from tunectl.artifacts.records import Message
from tunectl.chat.literal_tokens import load_special_texts
from tunectl.chat.model_spec import SpecialToken
from tunectl.chat.template import FILE as TEMPLATE
from tunectl.chat.template import Template, digest
from tunectl.core.errors import ArtifactError
from tunectl.registry.registry_formats import LAYOUTS

NAME = "contract.json"
_TOLERANCE: Final = {"logprob": "max_logprob_diff", "agreement": "min_token_agreement"}


def upgrade_contract(record: dict[str, Any]) -> dict[str, Any]:
    """Return a ``contract.json`` of format 1 (tunectl 0.1) as one of format 2.

    The file is in its release's digest, so it is not rewritten on the disk.
    """
    result = rename_keys(record, {"end_of_turn": "eot_token", "route": "layout"})
    result["layout"] = LAYOUTS.get(result.get("layout", ""), result.get("layout"))
    return {**result, "tolerance": rename_keys(result.get("tolerance", {}), _TOLERANCE)}


CONTRACT: Final = RecordFormat("serving contract", (upgrade_contract,), key="format")
ADAPTER, TOKENIZER, MODEL = "adapter", "tokenizer", "model"
"""Folders of a release."""
REFERENCE, CARD = "reference.jsonl", "MODEL_CARD.md"


class BaseModel(Struct, frozen=True):
    """Identity of the weights that the adapter was trained on."""

    source: str
    """Hub id, folder name, or package and file."""
    revision: str
    """Commit, package version, or the hash of the weights for a folder."""
    sha256: str
    """SHA-256 of the training side's model.safetensors."""
    weights: str
    """Type of the weights in the engine: ``bf16``, ``int8`` or ``int4``."""


class DecodingDefaults(Struct, frozen=True):
    """Decoding settings for requests that do not set them."""

    temperature: float
    """0 is greedy."""
    top_p: float
    max_tokens: int


class Tolerance(Struct, frozen=True):
    """Largest difference on the probes between an engine and the training side that a server accepts."""

    max_logprob_diff: float
    """Nats: mean absolute difference of the log-probabilities of a probe's tokens."""
    min_token_agreement: float
    """Share of all the probes' tokens, read teacher-forced, that are the engine's own first choice, too; 0 to 1."""


class RenderFixture(Struct, frozen=True):
    """A rendered conversation: a renderer for this release must give this text and these tokens."""

    messages: list[Message]
    text: str
    """With the assistant's turn opened at its end, and the contract's system text where the conversation has none.

    Where a message spells out a special token, U+FDD2 follows its first letter, so that it is tokenized as plain text.
    """
    token_ids: list[int]


class ParityProbe(Struct, frozen=True):
    """One conversation with the greedy answers of tuned and base model from the training side.

    Chosen so that the two differ. All log-probabilities are nats of a token given those before it.
    """

    messages: list[Message]
    token_ids: list[int]
    """The rendered prompt."""
    answer_ids: list[int]
    """The tuned model's greedy tokens; a stop token at the end is one of them."""
    text: str
    """Those tokens decoded, special tokens left out."""
    logprobs: list[float]
    """One for each of ``answer_ids``."""
    base_ids: list[int]
    """The base model's own greedy tokens."""
    base_text: str
    base_logprobs: list[float]
    """One for each of ``base_ids``, of the base model."""
    answer_under_base: list[float]
    """One for each of ``answer_ids``, by the base model: the values of a server that ignores the adapter."""


class ServingContract(Struct, frozen=True):
    """Content of a release's ``contract.json``: what a server verifies before it answers."""

    project: str
    base: BaseModel
    adapter_sha256: str | None
    """SHA-256 of adapter/adapter_model.safetensors."""
    template_sha256: str
    """SHA-256 of tokenizer/chat_template.jinja."""
    eot_token: SpecialToken
    bos: SpecialToken | None
    eos: SpecialToken | None
    pad: SpecialToken | None
    stop_token_ids: list[int]
    """Each of them ends an answer."""
    context_length: int
    """Most tokens of prompt and answer together."""
    engine: str
    layout: str
    """``adapter``: model/ is the base, and the adapter is applied to it. ``merged``: model/ holds both in one."""
    defaults: DecodingDefaults
    system: str | None
    """System text of conversations without one, as in training; None: the template decides."""
    tolerance: Tolerance
    fixtures: list[RenderFixture]
    probes: list[ParityProbe]


def save(contract: ServingContract, release: Path) -> None:
    """Write ``contract`` into the folder of a release."""
    CONTRACT.write(release / NAME, contract)


def load(release: Path) -> ServingContract:
    """Return the contract of a release folder.

    Raises  ArtifactError when it is absent, incomplete, or of a later format.
    """
    path = release / NAME
    if not path.is_file():
        raise ArtifactError(
            f"{path} does not exist, so {release} is not a release", hint="list them: tunectl release list"
        )
    serving_contract: ServingContract = CONTRACT.read(path, ServingContract)
    return serving_contract


def template_of(release: Path, contract: ServingContract) -> Template:
    """Return the chat template of a release, ready to render (``chat.template``: Jinja in a sandbox).

    Raises  ArtifactError when the file is absent or is not the contract's.
    """
    path = release / TOKENIZER / TEMPLATE
    if not path.is_file():
        raise ArtifactError(
            f"{path}, the chat template of the release, does not exist",
            hint="restore the release from a backup, or build another: tunectl repro --force --to package",
        )
    source = path.read_text()
    if digest(source) != contract.template_sha256:
        raise ArtifactError(
            f"{path} differs from the template that contract.json names: its SHA-256 starts with {digest(source)[:12]}, expected "
            f"{contract.template_sha256[:12]}",
            hint="the file was changed: restore the release from a backup, or build another: tunectl repro --force --to package",
        )
    pad = {"pad_token": contract.pad.text} if contract.pad else {}
    bos, eos = (contract.bos.text if contract.bos else ""), (contract.eos.text if contract.eos else "")
    special = load_special_texts(release / TOKENIZER)
    return Template(source, bos, eos, system=contract.system, extra=pad, special=special)
