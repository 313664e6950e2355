"""Load a model folder, with or without an adapter, through transformers and peft."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunectl.backends.modeling import peft_adapter
from tunectl.backends.system import malloc
from tunectl.chat import model_spec
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import ArtifactError, InfrastructureError
from tunectl.core.optional import import_optional


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory, in evaluation mode, and its tokenizer (transformers objects)."""

    model: Any
    tokenizer: Any


def load(
    folder: Path, *, adapter: Path | None, profile: HardwareProfile, four_bit: bool = False, device: str | None = None
) -> LoadedModel:
    """Return the model in ``folder`` (safetensors only, no code from the folder), with the adapter in the folder ``adapter`` on it.

    Its answers end at the end-of-turn token that the contract of the folder declares, if there is one.
    ``four_bit`` holds the base in NF4, for QLoRA on CUDA. ``device`` is where other weights go, by default that of ``profile``.
    Raises  ArtifactError when a file is absent, damaged or of another model; InfrastructureError when the device is not there;
            MissingExtraError for an absent library.
    """
    torch = import_optional("torch", extra="train")
    transformers = import_optional("transformers", extra="train")
    broken = import_optional("safetensors", extra="train").SafetensorError
    transformers.utils.logging.disable_progress_bar()
    set_threads(profile)
    malloc.retain_freed_memory()
    _check_device(torch, profile)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file() and not list(folder.glob("model-*.safetensors")):
            raise ArtifactError(
                f"{folder / name} does not exist, so {folder} is not a model folder", hint="build it: tunectl repro"
            )
    if adapter is not None:
        peft_adapter.require_safetensors(adapter)
    options: dict[str, Any] = {"quantization_config": _nf4(torch, transformers)} if four_bit else {}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype(profile),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _end_turns(model, folder)
        if adapter is not None:
            model = import_optional("peft", extra="train").PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, KeyError, RuntimeError, broken) as error:
        raise ArtifactError(
            f"{adapter or folder} cannot be loaded: {str(error)[:500]}", hint="rebuild it with: tunectl repro"
        ) from error
    return LoadedModel(model if four_bit else model.to(device or profile.device).eval(), tokenizer)


def _end_turns(model: Any, folder: Path) -> None:
    """Add the contract's end of turn to the tokens that end an answer.

    A base model with a chat template of another family knows only the end of a text: its answers would continue into the next turn.
    """
    if not (folder / model_spec.NAME).is_file():
        return
    end, eos = model_spec.load(folder).eot_token.id, model.generation_config.eos_token_id
    eos_ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if end not in eos_ids:
        model.generation_config.eos_token_id = [*eos_ids, end]


def dtype(profile: HardwareProfile) -> Any:
    """Return the torch dtype of frozen weights: the declared one, or by default bfloat16 if the machine has instructions for it."""
    torch = import_optional("torch", extra="train")
    if profile.dtype != "auto":
        return getattr(torch, profile.dtype)
    fits = torch.cuda.is_bf16_supported() if profile.device == "cuda" else _has_fast_bfloat16(torch)
    return torch.bfloat16 if fits else torch.float32


def _has_fast_bfloat16(torch: Any) -> bool:
    """Return whether the CPU multiplies in bfloat16.

    oneDNN supports it with any AVX512, but emulates it without AVX512-BF16 and AMX (Skylake, Cascade Lake, Ice Lake), 3.5 times slower than float32.
    """
    supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
    if platform.machine() not in ("x86_64", "AMD64"):
        return supported
    return supported and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001


def set_threads(profile: HardwareProfile) -> int:
    """Give torch the number of CPU threads that ``profile`` declares; return that number."""
    threads = profile.threads or len(os.sched_getaffinity(0))
    import_optional("torch", extra="train").set_num_threads(threads)
    return threads


def _check_device(torch: Any, profile: HardwareProfile) -> None:
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise InfrastructureError(
            f"hardware.device = cuda, but torch {torch.__version__} sees no CUDA device",
            hint="use the CPU: hardware=cpu, or install torch for CUDA and check nvidia-smi",
        )


def _nf4(torch: Any, transformers: Any) -> Any:
    if not torch.cuda.is_available():
        raise InfrastructureError(
            "sft.method = qlora needs a CUDA device, and torch sees none", hint="on the CPU use: sft=lora"
        )
    import_optional("bitsandbytes", extra="gpu")
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
