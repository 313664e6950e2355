"""Two torch functions that save most of the time of a LoRA step on the CPU: the adapter's matrix products, and the output layer's loss.

``LoraProduct`` keeps the layer's input once, in the type of the frozen weights, where the usual chain of modules keeps it
twice and converts it back and forth. ``fused_cross_entropy`` computes logits only at trained positions, in slices,
and their gradient at once, so that no logits are kept for the backward pass.
"""

from __future__ import annotations

from functools import cache
from types import MethodType
from typing import Any

from tunectl.backends.modeling.peft_adapter import is_plain_lora
from tunectl.core.optional import import_optional

SLICE = 512
"""Positions per slice of logits: 512 x 49,152 are 100 MB in float32."""


@cache
def _lora_product() -> Any:
    """Return the autograd function of the adapter's products; torch is imported here."""
    torch = import_optional("torch", extra="train")

    class LoraProduct(torch.autograd.Function):  # type: ignore[name-defined]
        """y = x W' + s (x A') B' with W frozen. Shapes: x (..., in), W (out, in), A (rank, in), B (out, rank)."""

        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any, a: Any, b: Any, scale: float) -> Any:
            """Return y of shape (..., out) in the type of x; keeps x and x A' for the backward pass. ``bias`` is (out,) or None."""
            flat = x.reshape(-1, x.shape[-1])
            a_low, b_low = a.to(x.dtype), (b * scale).to(x.dtype)
            inner = flat @ a_low.t()
            out = torch.nn.functional.linear(flat, weight, bias)
            out.addmm_(inner, b_low.t())
            ctx.save_for_backward(flat, weight, a_low, b_low, inner)
            ctx.scale, ctx.kinds = scale, (a.dtype, b.dtype)
            return out.view(*x.shape[:-1], -1)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            """Return the gradients of x, A and B from that of y (..., out); None for what is frozen."""
            flat, weight, a_low, b_low, inner = ctx.saved_tensors
            shape = grad.shape[:-1]
            grad = grad.reshape(-1, grad.shape[-1])
            grad_inner = grad @ b_low
            grad_x = None
            if ctx.needs_input_grad[0]:
                grad_x = (grad @ weight).addmm_(grad_inner, a_low).view(*shape, -1)
            grad_a = (grad_inner.t() @ flat).to(ctx.kinds[0])
            grad_b = (grad.t() @ inner).to(ctx.kinds[1]).mul_(ctx.scale)
            return grad_x, None, None, grad_a, grad_b, None

    return LoraProduct


@cache
def _head_loss() -> Any:
    """Return the autograd function of the output layer's loss; torch is imported here."""
    torch = import_optional("torch", extra="train")

    class HeadLoss(torch.autograd.Function):  # type: ignore[name-defined]
        """Weighted sum of cross-entropies of ``hidden[sources]`` through a frozen output layer; see ``fused_cross_entropy``."""

        @staticmethod
        def forward(ctx: Any, hidden: Any, head: Any, bias: Any, trained_tokens: Any, smoothing: float) -> Any:
            """Return the loss, a float32 scalar in nats; ``trained_tokens`` are sources, targets and weights, each (targets,).

            The gradient of ``hidden`` (tokens, hidden size) is worked out here, so that no logits are kept.
            """
            sources, targets, weights = trained_tokens
            needs_gradient = ctx.needs_input_grad[0]
            picked_grads = []
            total = hidden.new_zeros((), dtype=torch.float32)
            for start in range(0, len(sources), SLICE):
                part = slice(start, start + SLICE)
                loss, grad = _slice_loss(
                    hidden[sources[part]],
                    head,
                    bias,
                    targets[part],
                    weights[part],
                    smoothing,
                    with_gradient=needs_gradient,
                )
                total += loss
                picked_grads.append(grad)
            if needs_gradient:
                # index_add_ on the CPU adds the rows in order, so equal runs give equal bytes
                ctx.save_for_backward(torch.zeros_like(hidden).index_add_(0, sources, torch.cat(picked_grads)))
            return total

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            """Return the gradient of ``hidden`` made by ``forward``, times that of the loss, a scalar."""
            (saved,) = ctx.saved_tensors
            return saved * grad.to(saved.dtype), None, None, None, None

    return HeadLoss


def _slice_loss(
    picked: Any, head: Any, bias: Any, targets: Any, weights: Any, smoothing: float, *, with_gradient: bool
) -> tuple[Any, Any]:
    """Return the loss of one slice, and its gradient with respect to ``picked`` (targets, hidden) where ``with_gradient``."""
    torch = import_optional("torch", extra="train")
    logits = torch.nn.functional.linear(picked, head.to(picked.dtype), bias).float()
    log_total = logits.logsumexp(dim=-1)
    target_logits = logits.gather(1, targets[:, None])[:, 0]
    losses = log_total - (1 - smoothing) * target_logits
    if smoothing:
        losses = losses - smoothing * logits.mean(dim=-1)
    if not with_gradient:
        return (losses * weights).sum(), None
    chances = logits.sub_(log_total[:, None]).exp_()
    if smoothing:
        chances -= smoothing / chances.shape[-1]
    chances[torch.arange(len(targets), device=targets.device), targets] -= 1 - smoothing
    return (losses * weights).sum(), chances.mul_(weights[:, None]).to(picked.dtype) @ head.to(picked.dtype)


def fused_cross_entropy(
    hidden: Any, head: Any, sources: Any, targets: Any, weights: Any, *, bias: Any = None, smoothing: float = 0.0
) -> Any:
    """Return the sum of ``weights`` times the cross-entropy (nats) of ``targets`` predicted from ``hidden[sources]``; a float32 scalar.

    bias  of the output layer, (vocabulary,)   smoothing  label smoothing, 0 to 1
    hidden   (tokens, hidden size)     head  (vocabulary, hidden size), frozen
    sources  (targets,) rows of hidden  targets (targets,) vocabulary numbers   weights (targets,) float32
    """
    return _head_loss().apply(hidden, head, bias, (sources, targets, weights), smoothing)


def use_fused_lora(model: Any) -> int:
    """Let the plain LoRA layers of a peft model use ``LoraProduct``; return how many do.

    Layers with dropout, DoRA, several adapters or quantized weights are left as they are.
    """
    torch = import_optional("torch", extra="train")
    layer = import_optional("peft.tuners.lora.layer", extra="train")
    product = _lora_product()
    changed = 0
    for module in model.modules():
        if type(module) is layer.Linear and type(module.base_layer) is torch.nn.Linear and _is_plain(module):
            module.forward = MethodType(_forward(product, module.active_adapters[0]), module)
            changed += 1
    return changed


def _is_plain(module: Any) -> bool:
    torch = import_optional("torch", extra="train")
    return is_plain_lora(module) and isinstance(module.lora_dropout[module.active_adapters[0]], torch.nn.Identity)


def _forward(product: Any, name: str) -> Any:
    def forward(self: Any, x: Any) -> Any:
        base, a, b = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        return product.apply(x.to(base.weight.dtype), base.weight, base.bias, a, b, self.scaling[name])

    return forward
