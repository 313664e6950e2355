"""Convert rows to tensors, and tensors to a loss: the one forward pass that training, validation and probes share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from tunectl.backends.modeling import short_attention
from tunectl.backends.modeling.lora_kernels import fused_cross_entropy
from tunectl.core.optional import import_optional
from tunectl.training.prefix_sharing import PackedRow, PaddedBatch, collate


@dataclass(frozen=True, slots=True)
class TensorBatch:
    """Tensors of one micro-batch of rows; shapes as in ``training.prefix_sharing.PaddedBatch``."""

    ids: Any
    positions: Any
    mask: Any
    """(rows, 1, length, length): bool, True where a position may attend; or numbers to add to scores; None where the causal mask is
    enough."""
    sources: Any
    targets: Any
    weights: Any


def to_tensor_batch(rows: Sequence[PackedRow], device: str, *, added: Any = None) -> TensorBatch:
    """Return ``rows`` as tensors on ``device``. A row whose answers share a prompt gets a mask; padding on the right needs none.

    ``added`` is the torch dtype of masks that are added to the scores, as ``short_attention`` needs them; None: masks are of bool.
    """
    torch = import_optional("torch", extra="train")
    flat = collate(rows)
    options = {"dtype": torch.long, "device": device}
    return TensorBatch(
        torch.tensor(flat.ids, **options),
        torch.tensor(flat.positions, **options),
        _mask(flat, device, added),
        torch.tensor(flat.sources, **options),
        torch.tensor(flat.targets, **options),
        torch.tensor(flat.weights, dtype=torch.float32, device=device),
    )


def _mask(flat: PaddedBatch, device: str, added: Any) -> Any:
    """Return the mask: each position attends to what is before it in the prompt and in its own answer; padding to itself."""
    torch = import_optional("torch", extra="train")
    short = added is not None and len(flat.ids[0]) <= short_attention.LONGEST
    if not flat.branched and not short:
        return None
    branch = torch.tensor(flat.branch, device=device)
    query_branch, key_branch = branch[:, :, None], branch[:, None, :]
    before = torch.ones(branch.shape[1], branch.shape[1], dtype=torch.bool, device=device).tril()
    visible = (before & ((query_branch == key_branch) | (key_branch == 0)))[:, None]
    return torch.zeros(visible.shape, dtype=added).masked_fill_(~visible, float("-inf")) if short else visible


@dataclass(frozen=True, slots=True)
class ForwardPath:
    """Functions that compute a model's loss: decoder and output layer, or the model's own forward (``whole``)."""

    decoder: Any
    """From tokens to hidden states."""
    head: Any
    """The output layer."""
    whole: Any
    """From tokens to logits through the model's own forward; None where decoder and head together do the same."""
    autocast: AbstractContextManager[Any]
    """Context of every forward pass."""
    device: str
    added: Any
    """Type of masks that are added to scores; None where masks are of bool."""

    def batch(self, rows: Sequence[PackedRow]) -> TensorBatch:
        """Return ``rows`` as tensors for this forward pass."""
        return to_tensor_batch(rows, self.device, added=self.added)


def forward_path(model: Any, *, plain_head: bool, autocast: bool) -> ForwardPath:
    """Return how to compute losses of a (peft) model: through decoder and output layer, or through its own forward.

    ``plain_head`` false uses the model's own forward, for models that scale or cap their logits; ``autocast``
    computes in bfloat16 where adapter layers mix types.
    """
    torch = import_optional("torch", extra="train")
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = base.device.type
    autocast_context = torch.autocast(kind, torch.bfloat16) if autocast else nullcontext()
    logits_function = None if plain_head else lambda **inputs: type(base).forward(base, **inputs).logits
    short = base.config._attn_implementation == short_attention.NAME  # noqa: SLF001
    return ForwardPath(
        base.base_model,
        base.get_output_embeddings(),
        logits_function,
        autocast_context,
        kind,
        base.dtype if short else None,
    )


def cross_entropy_loss(route: ForwardPath, batch: TensorBatch, *, smoothing: float = 0.0) -> Any:
    """Return the weighted sum of the cross-entropies of a batch, nats; a float32 scalar. ``smoothing`` is the label smoothing, 0 to 1."""
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
            return fused_cross_entropy(
                hidden, head, batch.sources, batch.targets, batch.weights, bias=bias, smoothing=smoothing
            )
        logits = route.whole(**inputs).flatten(0, 1)[batch.sources].float()
    functional = import_optional("torch.nn.functional", extra="train")
    losses = functional.cross_entropy(logits, batch.targets, reduction="none", label_smoothing=smoothing)
    return (losses * batch.weights).sum()
