"""Faster attention and normalization for short rows on the CPU, where torch's own are slow.

torch's fused attention on the CPU is made for long rows: at 64 tokens its backward pass takes six times as long as plain matrix
products do on the same machine. Grouped heads share one product with their keys, and nothing is repeated or kept twice.
"""

from __future__ import annotations

from functools import cache
from types import MethodType
from typing import Any

from tunectl.core.optional import import_optional

NAME = "tunectl_short"
LONGEST = 768
"""Row length up to which plain products are faster (forward and backward with 9 heads of 64 in bfloat16, 2,048 tokens in all: 21
against 40 ms in rows of 310, 38 against 60 ms in rows of 768), and up to which their scores take little memory."""
MAX_SCORES = 2**26
"""Number of scores of one layer up to which they are all in memory at once: 268 MB in float32."""


def patch_attention(model: Any) -> None:
    """Let a transformers model on the CPU use this module's attention, faster for short rows, in place of torch's fused one if it uses that."""
    if model.config._attn_implementation == "sdpa":  # noqa: SLF001  transformers has no public accessor for it
        _register()
        model.set_attn_implementation(NAME)


def use_short_attention(model: Any) -> None:
    """Let a transformers model on the CPU use this module's attention, and its norm in each RMSNorm layer that computes the same."""
    patch_attention(model)
    torch = import_optional("torch", extra="train")
    for module in model.modules():
        if (
            type(module).__name__.endswith("RMSNorm")
            and hasattr(module, "variance_epsilon")
            and _is_plain(torch, module)
        ):
            module.forward = MethodType(_apply_rms_norm, module)


def _is_plain(torch: Any, module: Any) -> bool:
    """Return whether a norm does what ``_apply_rms_norm`` does: some families add 1 to the weight, some cast in another order."""
    with torch.no_grad():
        size = module.weight.shape[0]
        sample = torch.linspace(-2, 2, 2 * size, dtype=module.weight.dtype).view(2, size)
        return bool(
            torch.allclose(module(sample).float(), _apply_rms_norm(module, sample).float(), rtol=0.02, atol=0.02)
        )


def _apply_rms_norm(module: Any, x: Any) -> Any:
    return _norm().apply(x, module.weight, module.variance_epsilon)


@cache
def _norm() -> Any:
    torch = import_optional("torch", extra="train")

    class Norm(torch.autograd.Function):  # type: ignore[name-defined]
        """Root-mean-square norm (arXiv 1910.07467) with a frozen weight; keeps one tensor for the backward pass."""

        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, epsilon: float) -> Any:
            """Divide x (..., size) by its root mean square, and scale it by weight (size,); ``epsilon`` keeps the root above zero."""
            scale = x.float().square().mean(-1, keepdim=True).add_(epsilon).rsqrt_().to(x.dtype)
            normal = x * scale
            ctx.save_for_backward(normal, scale, weight)
            return normal * weight

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            """Return the gradient of x (..., size) from that of the result; the weight is frozen."""
            normal, scale, weight = ctx.saved_tensors
            inner = grad * weight
            shared = (inner * normal).mean(-1, keepdim=True)
            return (inner - normal * shared).mul_(scale), None, None

    return Norm


@cache
def _register() -> None:
    """Register the attention with transformers; its masks are those of sdpa."""
    interface = import_optional("transformers.modeling_utils", extra="train").ALL_ATTENTION_FUNCTIONS
    masks = import_optional("transformers.masking_utils", extra="train")
    interface.register(NAME, _attention)
    masks.ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, masks.sdpa_mask)


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **rest: Any,
) -> tuple[Any, None]:
    """Return attention, with the signature that transformers calls. query (rows, heads, new, size), key and value (rows, groups, time, size).

    The last of ``time`` positions are the ``new`` ones: what a cache holds comes before them. Rows that are long, have one token,
    come without a mask or have other options use sdpa, which is as fast for single tokens.
    """
    rows, heads, new, size = query.shape
    groups, time = key.shape[1:3]
    unusual = dropout or rest.get("softcap") is not None or rest.get("s_aux") is not None
    if mask is None or new == 1 or time > LONGEST or rows * heads * new * time > MAX_SCORES or unusual:
        own = import_optional("transformers.integrations.sdpa_attention", extra="train").sdpa_attention_forward
        result: tuple[Any, None] = own(module, query, key, value, mask, scaling=scaling, dropout=dropout, **rest)
        return result
    scale = size**-0.5 if scaling is None else scaling
    folded = (query * scale).reshape(rows, groups, heads // groups * new, size)
    if mask.is_floating_point():
        scores = (folded @ key.transpose(-1, -2)).view(rows, groups, heads // groups, new, time).add_(mask[:, :, None])
    else:  # in generation and scoring: summed in float32 as sdpa does, at no cost here
        scores = (folded.float() @ key.float().transpose(-1, -2)).view(rows, groups, heads // groups, new, time)
        # the smallest float, not minus infinity: a padded position that attends to nothing would become NaN
        scores.masked_fill_(
            mask[:, :, None].logical_not(), import_optional("torch", extra="train").finfo(scores.dtype).min
        )
    chances = scores.softmax(-1).to(value.dtype).view(rows, groups, heads // groups * new, time)
    return (chances @ value).view(rows, heads, new, size).transpose(1, 2).contiguous(), None
