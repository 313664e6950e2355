"""The machine: ``conf/hardware/cpu.yaml`` or ``gpu.yaml``."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, field_validator

from tunectl.config.schema.base import StrictModel

REFUSED: Final = {
    "mps": "Apple's GPUs",
    "xpu": "Intel's GPUs",
    "tpu": "TPUs, which torch reaches through torch_xla,",
}
"""Devices that people ask for by these names, and what they are."""


class HardwareProfile(StrictModel):
    """The section ``hardware``: device, precision, and batch sizes of training and generation."""

    device: Literal["cpu", "cuda"]
    """Device of the tensors."""
    threads: int | None = Field(ge=1, le=1024)
    """Threads of one process on the CPU; fewer leave cores to other programs. Null: all cores this process may use."""
    dtype: Literal["float32", "bfloat16", "auto"]
    """Type of the frozen weights. auto: bfloat16 where the CPU or GPU has instructions for it, else float32."""
    train_batch_tokens: int = Field(ge=64, le=1_048_576)
    """Tokens in one forward and backward pass at most, with padding; larger steps are accumulated. Halve it on out of memory."""
    generate_batch: int = Field(ge=1, le=4096)
    """Answers generated together at most; more are faster and take more memory."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @field_validator("device", mode="before")
    @classmethod
    def _refuse_by_name(cls, device: Any) -> Any:
        if isinstance(device, str) and device in REFUSED:
            raise ValueError(
                f"must be one of cpu, cuda; {REFUSED[device]} are refused: seeds, number types and the connections of processes "
                "are set for cpu and cuda alone, and nothing was run elsewhere"
            )
        return device
