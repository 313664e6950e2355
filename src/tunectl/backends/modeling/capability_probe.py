"""Which optimizations a model allows, found by trying them on one real row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunectl.backends.modeling.batching import cross_entropy_loss, forward_path
from tunectl.core import logging_setup
from tunectl.core.optional import import_optional
from tunectl.training.prefix_sharing import PackedRow, one_answer_per_row

_log = logging_setup.get_logger(__name__)
CLOSE = 0.02
"""Nats per token: bfloat16 rounds within 0.005 on SmolLM2; answers that attend to each other differ by more than 0.2."""


@dataclass(frozen=True, slots=True)
class ModelCapabilities:
    """Optimizations of the loss that give a model's exact result, as found by ``probe``."""

    plain_head: bool
    """Logits are hidden states times the output layer: the model neither scales nor caps them."""
    shared_prompts: bool
    """Answers side by side in one row do not attend to each other."""


def probe(model: Any, rows: Sequence[PackedRow], *, autocast: bool) -> ModelCapabilities:
    """Compare the loss of one of ``rows`` with and without each optimization; return which ones give the same loss.

    A warning is logged for each that gives another: the model is trained without it. ``autocast``: compute in bfloat16.
    """
    row = min(rows, key=lambda item: (len(item.branches) < 2, item.length))
    torch = import_optional("torch", extra="train")
    was_training = model.training
    model.eval()

    def loss(rows: Sequence[PackedRow], *, plain_head: bool) -> float:
        route = forward_path(model, plain_head=plain_head, autocast=autocast)
        batch = route.batch(rows)
        total = cross_entropy_loss(route, batch)
        return float(total) / max(1, len(batch.targets))

    with torch.no_grad():
        apart = one_answer_per_row([row])
        own = loss(apart, plain_head=False)
        plain = abs(loss(apart, plain_head=True) - own) < CLOSE
        shared = len(row.branches) < 2 or abs(loss([row], plain_head=plain) - own) < CLOSE
    model.train(was_training)
    if not plain:
        _log.warning("this model changes its logits behind the output layer: the loss goes through its own forward")
    if not shared:
        _log.warning(
            "this model's attention cannot keep answers of one prompt apart: each is read with a prompt of its own"
        )
    return ModelCapabilities(plain, shared)
