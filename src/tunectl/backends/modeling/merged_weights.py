"""Generate with a LoRA adapter as fast as with the plain model: its products are added into a second copy of the weights.

The frozen weights themselves are never changed, because subtracting an update in bfloat16 does not give back what was
there. One matrix product per layer and call costs less than the two small ones per layer and token that it saves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tunectl.backends.modeling.peft_adapter import is_plain_lora
from tunectl.core.optional import import_optional


class MergedWeights:
    """Second copy of a peft model's adapted weights, with the adapter merged in, for generation during a training."""

    def __init__(self, model: Any) -> None:
        """Allocate merged weights for plain LoRA layers; others (DoRA, quantized) stay as they are."""
        torch = import_optional("torch", extra="train")
        layer = import_optional("peft.tuners.lora.layer", extra="train")
        self._linear = torch.nn.functional.linear
        self._layers = [
            (module, torch.empty_like(module.base_layer.weight))
            for module in model.modules()
            if type(module) is layer.Linear and type(module.base_layer) is torch.nn.Linear and is_plain_lora(module)
        ]

    @contextmanager
    def swap_in(self) -> Iterator[None]:
        """Merge the adapter as it is now, and let the adapted layers use the merged weights while the block runs."""
        before = [module.__dict__.get("forward") for module, _ in self._layers]
        for module, room in self._layers:
            name = module.active_adapters[0]
            update = module.lora_B[name].weight.float() @ module.lora_A[name].weight.float()
            room.copy_(update.mul_(module.scaling[name]).add_(module.base_layer.weight))
            module.forward = self._plain(room, module.base_layer.bias)
        try:
            yield
        finally:
            for (module, _), own in zip(self._layers, before, strict=True):
                if own is None:
                    del module.forward
                else:
                    module.forward = own

    def _plain(self, weight: Any, bias: Any) -> Any:
        def forward(x: Any) -> Any:
            return self._linear(x.to(weight.dtype), weight, bias)

        return forward
