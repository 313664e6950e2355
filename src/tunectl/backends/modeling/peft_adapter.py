"""Save and read the files of a PEFT adapter: adapter_model.safetensors and adapter_config.json; reading needs no PEFT."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.chat.model_spec import ModelSpec
from tunectl.core.errors import ArtifactError
from tunectl.core.optional import import_optional

NAME = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


class AdapterConfigFields(Struct, frozen=True):
    """The fields of adapter_config.json that matter for applying the adapter."""

    r: int
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, Any] = {}


VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for ``max_lora_rank``."""


def find_max_rank(folder: Path) -> tuple[int, int]:
    """Return the largest rank of an adapter, and the smallest value of vLLM's ``max_lora_rank`` that allows it."""
    fields: AdapterConfigFields = atomic_io.read_json(folder / NAME, AdapterConfigFields)
    most = max([fields.r, *fields.rank_pattern.values()])
    return most, next((size for size in VLLM_RANKS if size >= most), most)


def require_safetensors(folder: Path) -> None:
    """Refuse an adapter folder without safetensors. Call it before PEFT, which would load adapter_model.bin, a pickle.

    Raises  ArtifactError where the file is absent.
    """
    if not (folder / WEIGHTS).is_file():
        raise ArtifactError(
            f"{folder / WEIGHTS} does not exist, and pickled weights are not read",
            hint="rebuild it with: tunectl repro",
        )


def lora_scaling(folder: Path, engine: str) -> float:
    """Return the factor by which the product BA of an adapter is multiplied: alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv 2312.03732).

    Raises  ArtifactError where the file is absent, or ``engine`` cannot apply its settings: patterns of ranks, DoRA.
    """
    fields: AdapterConfigFields = atomic_io.read_json(folder / NAME, AdapterConfigFields)
    if fields.rank_pattern or fields.alpha_pattern or fields.use_dora:
        raise ArtifactError(
            f"{folder / NAME}: {engine} cannot apply an adapter with rank_pattern, alpha_pattern or DoRA",
            hint="package with package.layout=merged",
        )
    return fields.lora_alpha / (math.sqrt(fields.r) if fields.use_rslora else fields.r)


def trainable_state(model: Any) -> dict[str, Any]:
    """Return the trained weights of a torch model by name, detached: they share memory with the model."""
    return {name: weights.detach() for name, weights in model.named_parameters() if weights.requires_grad}


def load_trainable(model: Any, weights: dict[str, Any]) -> None:
    """Copy ``weights`` (name to tensor) into the trained weights of ``model``, in place; weights that it does not name stay.

    Call it under ``torch.no_grad``. Raises  KeyError for a name that is no trained weight.
    """
    current = trainable_state(model)
    for name, value in weights.items():
        current[name].copy_(value)


def save_adapter(model: Any, best: dict[str, Any], out: Path, base: ModelSpec) -> None:
    """Write the adapter of ``model`` with the weights ``best`` to ``out``, naming the base model ``base``; equal weights give equal bytes."""
    torch = import_optional("torch", extra="train")
    with torch.no_grad():
        load_trainable(model, best)
    # only linear layers carry adapters; by default PEFT asks Hugging Face for the base model's vocabulary
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    settings: dict[str, Any] = atomic_io.read_json(out / NAME, dict[str, Any])
    settings |= {"base_model_name_or_path": base.base, "revision": base.revision}
    if isinstance(settings.get("target_modules"), list):
        settings["target_modules"] = sorted(settings["target_modules"])
    atomic_io.write_json(out / NAME, settings)


def read_adapter(folder: Path) -> dict[str, Any]:
    """Return the tensors of the adapter in ``folder`` as numpy arrays, by peft's names."""
    files = import_optional("safetensors.numpy", extra="train")
    result: dict[str, Any] = files.load_file(str(folder / WEIGHTS))
    return result


def write_adapter(folder: Path, weights: dict[str, Any], like: Path) -> None:
    """Write the adapter ``weights`` (numpy arrays by peft's names) to ``folder``, which is replaced, with the adapter_config.json of the folder ``like``."""
    files = import_optional("safetensors.numpy", extra="train")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(like, folder)
    files.save_file({name: weights[name] for name in sorted(weights)}, str(folder / WEIGHTS))


def is_plain_lora(module: Any) -> bool:
    """Return whether a LoRA layer of PEFT has one adapter that is added to its weight as it is: no DoRA, no bias, not merged yet."""
    names = module.active_adapters
    return (
        len(names) == 1
        and not module.merged
        and not module.use_dora.get(names[0], False)
        and not module.lora_bias.get(names[0], False)
        and not getattr(module, "fan_in_fan_out", False)
    )
