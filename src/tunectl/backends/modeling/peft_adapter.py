"""Read the parts of a PEFT adapter and its adapter_config.json without PEFT."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.core.errors import ArtifactError

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
