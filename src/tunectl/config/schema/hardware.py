"""The machine that a run is tuned for: ``conf/hardware/cpu.yaml`` or ``gpu.yaml``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunectl.config.schema.base import StrictModel


class HardwareProfile(StrictModel):
    """How heavy work uses the machine."""

    device: Literal["cpu", "cuda"]
    """Where tensors live."""
    threads: int | None = Field(ge=1, le=1024)
    """Threads of one process on the CPU. Null: all cores this process may use."""
    dtype: Literal["float32", "bfloat16", "auto"]
    """Of the frozen weights. auto: bfloat16 where the processor or card computes in it, else float32."""
    train_batch_tokens: int = Field(ge=64, le=1_048_576)
    """Most tokens of one forward and backward pass, padding included; larger steps are accumulated."""
    generate_batch: int = Field(ge=1, le=4096)
    """Most answers generated together."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: less memory, about a third more time."""
