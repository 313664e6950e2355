"""From rows to tensors, and from tensors to a loss: the one forward pass that training, validation and probes share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from tunectl.backends import torch_short
from tunectl.backends.torch_kernels import head_loss
from tunectl.core.lazy import need
from tunectl.training.rows import Flat, Row, flatten


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of some rows; shapes as in ``training.rows.Flat``."""

    ids: Any
    positions: Any
    mask: Any
    """(rows, 1, length, length): bool, True where a place attends; or numbers to add to scores; None where the causal mask is
    enough."""
    sources: Any
    targets: Any
    weights: Any


def batch_of(rows: Sequence[Row], device: str, *, added: Any = None) -> Batch:
    """Lay ``rows`` out on ``device``. A row whose answers share a prompt gets a mask; padding on the right needs none.

    ``added`` is the torch type of a mask that is added to scores, as ``torch_short`` wants for rows that are not too long.
    """
    torch = need("torch", extra="train")
    flat = flatten(rows)
    whole = {"dtype": torch.long, "device": device}
    return Batch(
        torch.tensor(flat.ids, **whole),
        torch.tensor(flat.positions, **whole),
        _mask(flat, device, added),
        torch.tensor(flat.sources, **whole),
        torch.tensor(flat.targets, **whole),
        torch.tensor(flat.weights, dtype=torch.float32, device=device),
    )


def _mask(flat: Flat, device: str, added: Any) -> Any:
    """Each place attends to what is before it in the prompt and in its own answer; padding to itself."""
    torch = need("torch", extra="train")
    short = added is not None and len(flat.ids[0]) <= torch_short.LONGEST
    if not flat.branched and not short:
        return None
    branch = torch.tensor(flat.branch, device=device)
    here, there = branch[:, :, None], branch[:, None, :]
    before = torch.ones(branch.shape[1], branch.shape[1], dtype=torch.bool, device=device).tril()
    seen = (before & ((here == there) | (there == 0)))[:, None]
    return torch.zeros(seen.shape, dtype=added).masked_fill_(~seen, float("-inf")) if short else seen


@dataclass(frozen=True, slots=True)
class Route:
    """How a loss is reached from tokens."""

    decoder: Any
    """Tokens to hidden states."""
    head: Any
    """The output layer."""
    whole: Any
    """Tokens to logits through the model's own forward, or None where decoder and head are the same thing."""
    autocast: AbstractContextManager[Any]
    """Around every forward pass."""
    device: str
    added: Any
    """Type of masks that are added to scores; None where masks are of bool."""

    def batch(self, rows: Sequence[Row]) -> Batch:
        """``rows`` as this route wants them."""
        return batch_of(rows, self.device, added=self.added)


def route_of(model: Any, *, plain_head: bool, autocast: bool) -> Route:
    """The route through a (peft) model.

    ``plain_head`` false goes through the model's own forward, for models that scale or cap their logits; ``autocast``
    computes in bfloat16 where adapter layers mix types.
    """
    torch = need("torch", extra="train")
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = base.device.type
    around = torch.autocast(kind, torch.bfloat16) if autocast else nullcontext()
    whole = None if plain_head else lambda **inputs: type(base).forward(base, **inputs).logits
    short = base.config._attn_implementation == torch_short.NAME  # noqa: SLF001
    return Route(base.base_model, base.get_output_embeddings(), whole, around, kind, base.dtype if short else None)


def loss_of(route: Route, batch: Batch, *, smoothing: float = 0.0) -> Any:
    """Weighted sum of the cross-entropies of a batch, nats; a float32 scalar."""
    inputs = {
        "input_ids": batch.ids,
        "position_ids": batch.positions,
        "attention_mask": batch.mask,
        "use_cache": False,
    }
    with route.autocast:
        if route.whole is None:
            hidden = route.decoder(**inputs).last_hidden_state.flatten(0, 1)
            head, bias = route.head.weight, getattr(route.head, "bias", None)
            return head_loss(hidden, head, batch.sources, batch.targets, batch.weights, bias=bias, smoothing=smoothing)
        logits = route.whole(**inputs).flatten(0, 1)[batch.sources].float()
    functional = need("torch.nn.functional", extra="train")
    losses = functional.cross_entropy(logits, batch.targets, reduction="none", label_smoothing=smoothing)
    return (losses * batch.weights).sum()
