"""Normalize a downloaded model folder for ``artifacts/model``: one weights file, a fast tokenizer, no code."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class _WeightIndex(msgspec.Struct, frozen=True):
    """The index of weights in several files."""

    weight_map: dict[str, str]
    """Name of the file of each weight."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts read from the files of a model folder: parameters, context (tokens), special tokens and chat template; None if absent."""

    parameters: int
    context: int | None
    bos: str | None
    eos: str | None
    pad: str | None
    template: str | None
    """The chat template's text; None for a base model."""


def normalize(source: Path, out: Path) -> None:
    """Copy the model in the folder ``source`` into ``out`` as one weights file with config and a fast tokenizer.

    Raises  UsageError when there is no config, no safetensors, only pickled weights, or the model wants to run its own code.
    """
    if not (source / "config.json").is_file():
        raise UsageError(
            f"{source} has no config.json, so it is not a model folder",
            hint="set model.source to a model in the layout of transformers: config.json, *.safetensors, tokenizer.json",
        )
    settings = json.loads((source / "config.json").read_text())
    if "auto_map" in settings and not _is_known_architecture(settings):
        raise UsageError(
            f"{source.name} needs its own code (auto_map in config.json), and tunectl runs no code from a model",
            hint="set model.source to a model whose architecture transformers supports",
        )
    _weights(source, out)
    shutil.copyfile(source / "config.json", out / "config.json")
    if (source / "generation_config.json").is_file():
        shutil.copyfile(source / "generation_config.json", out / "generation_config.json")
    _tokenizer(source, out)


def _is_known_architecture(settings: dict[str, Any]) -> bool:
    auto = import_optional("transformers.models.auto.configuration_auto", extra="train")
    return settings.get("model_type") in auto.CONFIG_MAPPING_NAMES


def _weights(source: Path, out: Path) -> None:
    files = _find_weight_files(source)
    if not files:
        pickled = [path.name for pattern in PICKLES for path in sorted(source.glob(pattern))]
        if pickled:
            raise UsageError(
                f"{source} holds pickled weights ({pickled[0]}), which can run code when they are read",
                hint="convert them on a machine that may run them: model.save_pretrained(FOLDER, safe_serialization=True); then model=folder model.source.path=FOLDER",
            )
        raise UsageError(
            f"{source} has no .safetensors file",
            hint="set model.source to a model in the layout of transformers: config.json, *.safetensors, tokenizer.json",
        )
    if len(files) == 1:
        shutil.copyfile(files[0], out / WEIGHTS)
        return
    safetensors = import_optional("safetensors.torch", extra="train")
    joined: dict[str, Any] = {}
    for path in files:
        joined |= safetensors.load_file(str(path))
    safetensors.save_file(joined, str(out / WEIGHTS), metadata={"format": "pt"})


def _find_weight_files(source: Path) -> list[Path]:
    """Return the files that hold the weights: one file, else those of the index, else every one that there is.

    A model may have the same weights a second time, in another layout under other names (consolidated.safetensors).
    Raises  UsageError where the index is broken, or names what is no file of the folder.
    """
    if (source / WEIGHTS).is_file():
        return [source / WEIGHTS]
    index = source / INDEX
    if not index.is_file():
        return sorted(source.glob("*.safetensors"))
    hint = "fetch or copy all files of the model again"
    try:
        names = sorted(set(msgspec.json.decode(index.read_bytes(), type=_WeightIndex).weight_map.values()))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{index} does not say which files hold the weights: {error}", hint=hint) from error
    for name in names:
        if "/" in name or "\\" in name or not name.endswith(".safetensors") or not (source / name).is_file():
            raise UsageError(f"{index} names {name[:80]!r}, which is no .safetensors file beside it", hint=hint)
    return [source / name for name in names]


def _tokenizer(source: Path, out: Path) -> None:
    transformers = import_optional("transformers", extra="train")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(
            f"{source} has no tokenizer that transformers can read: {first}",
            hint="set model.source to a model with a tokenizer.json",
        ) from error
    tokenizer.save_pretrained(out)
    if not (out / "tokenizer.json").is_file():
        raise UsageError(
            f"the tokenizer of {source} is not a fast tokenizer (no tokenizer.json)",
            hint="set model.source to a model that has one",
        )


def read_model_facts(folder: Path) -> ModelFacts:
    """Return the parameters, context, special tokens and template that the files of a normalized model folder declare."""
    transformers = import_optional("transformers", extra="train")
    safetensors = import_optional("safetensors", extra="train")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    text = config.get_text_config()
    with safetensors.safe_open(str(folder / WEIGHTS), framework="pt") as file:
        sizes = {name: _product(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  no mapping
    if getattr(text, "tie_word_embeddings", False) and any("embed" in name for name in sizes):
        sizes.pop("lm_head.weight", None)  # some files hold the tied matrix twice
    chat_template = tokenizer.chat_template
    template = chat_template.get("default") if isinstance(chat_template, dict) else chat_template
    limit = getattr(text, "max_position_embeddings", None)
    return ModelFacts(
        sum(sizes.values()), limit, tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, template
    )


def _product(shape: list[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def declare_template(folder: Path, template: str) -> None:
    """Write the chat template ``template`` to ``folder`` so that transformers uses it as well."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    if settings.pop("chat_template", None) is not None:
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
    (folder / "chat_template.jinja").write_text(template)
