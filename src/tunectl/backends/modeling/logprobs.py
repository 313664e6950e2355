"""Log-probabilities of given answers, token by token, for losses over whole answers.

As in ``lora_kernels.fused_cross_entropy``, logits are computed only where an answer's tokens are predicted, in slices, and each
token's gradient at once: for the backward pass one hidden vector per token is kept, and no logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, NamedTuple

from tunectl.backends.modeling.batching import ForwardPath, TensorBatch
from tunectl.backends.modeling.lora_kernels import SLICE
from tunectl.core.optional import import_optional
from tunectl.training.prefix_sharing import PackedRow, one_answer_per_row


@cache
def _function() -> Any:
    """Return the autograd function; torch is imported here."""
    torch = import_optional("torch", extra="train")

    class TokenLogps(torch.autograd.Function):  # type: ignore[name-defined]
        """Log-probabilities of ``targets`` predicted from ``hidden[sources]`` through a frozen output layer."""

        @staticmethod
        def forward(ctx: Any, hidden: Any, head: Any, bias: Any, sources: Any, targets: Any, temperature: float) -> Any:
            """Return nats, shape (targets,), float32. ``hidden`` is (tokens, hidden size); see ``token_logps`` for the rest."""
            needs_gradient = ctx.needs_input_grad[0]
            values, grads = [], []
            for start in range(0, len(sources), SLICE):
                part = slice(start, start + SLICE)
                value, grad = _slice(
                    hidden[sources[part]], head, bias, targets[part], temperature, with_gradient=needs_gradient
                )
                values.append(value)
                grads.append(grad)
            if needs_gradient:
                ctx.save_for_backward(sources, torch.cat(grads))
                ctx.shape = hidden.shape
            return torch.cat(values) if values else hidden.new_zeros(0, dtype=torch.float32)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            """Return the gradient of ``hidden`` from that of the log-probabilities, shape (targets,)."""
            sources, unit = ctx.saved_tensors
            # index_add_ on the CPU adds the rows in order, so equal runs give equal bytes
            gradient = unit.new_zeros(ctx.shape).index_add_(0, sources, unit * grad[:, None].to(unit.dtype))
            return gradient, None, None, None, None, None

    return TokenLogps


def _slice(
    picked: Any, head: Any, bias: Any, targets: Any, temperature: float, *, with_gradient: bool
) -> tuple[Any, Any]:
    """Return log-probabilities of one slice, and the gradient of each with respect to its row of ``picked`` where ``with_gradient``."""
    torch = import_optional("torch", extra="train")
    weights = head.to(picked.dtype)
    logits = torch.nn.functional.linear(picked, weights, bias).float()
    if temperature != 1.0:
        logits /= temperature
    log_total = logits.logsumexp(dim=-1)
    values = logits.gather(1, targets[:, None])[:, 0] - log_total
    if not with_gradient:
        return values, None
    slopes = logits.sub_(log_total[:, None]).exp_().neg_()
    slopes[torch.arange(len(targets), device=targets.device), targets] += 1
    if temperature != 1.0:
        slopes /= temperature
    return values, slopes.to(picked.dtype) @ weights


def token_logps(route: ForwardPath, batch: TensorBatch, *, temperature: float = 1.0) -> Any:
    """Return the log-probabilities (nats) of the trained tokens of a batch, in the order of ``batch.targets``; float32, (targets,).

    Logits are divided by ``temperature``.
    """
    with route.autocast:
        if route.whole is None:
            hidden = route.decoder(**_inputs(batch)).last_hidden_state.flatten(0, 1)
            head, bias = route.head.weight, getattr(route.head, "bias", None)
            return _function().apply(hidden, head, bias, batch.sources, batch.targets, temperature)
        logits = route.whole(**_inputs(batch)).flatten(0, 1)[batch.sources].float() / temperature
    return logits.log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]


def _inputs(batch: TensorBatch) -> dict[str, Any]:
    return {
        "input_ids": batch.ids,
        "position_ids": batch.positions,
        "attention_mask": batch.mask,
        "use_cache": False,
    }


class KlStats(NamedTuple):
    """Divergence between two sets of weights at each trained token of a batch; float32, (targets,), nats."""

    ratio: Any
    """Log-probability of the token under the first minus that under the second."""
    kl: Any
    """Kullback-Leibler divergence of the first set's distribution from the second's at that position: 0 or more."""


def kl_between(route: ForwardPath, batch: TensorBatch, second: Callable[[], AbstractContextManager[None]]) -> KlStats:
    """Run ``batch`` with the current weights and once more within ``second``; return their divergence at each trained token. No gradients.

    ``kl`` is exact over the vocabulary at each position, ``ratio`` is the log-ratio of the row's own token. Summed over an answer
    sampled with the current weights, ``kl`` estimates the divergence of whole answers (Rao-Blackwellized: Amini, Vieira and
    Cotterell, arXiv 2504.10637); over a greedy answer it is the divergence along that answer alone.
    """
    torch = import_optional("torch", extra="train")
    ratios, kls = [], []
    with torch.no_grad():
        first, logits_of = _select_trained_states(route, batch)
        with second():
            other, _ = _select_trained_states(route, batch)
        for start in range(0, len(batch.sources), SLICE):
            part = slice(start, start + SLICE)
            own, its = (logits_of(states[part]).float().log_softmax(-1) for states in (first, other))
            gap = own - its
            ratios.append(gap.gather(1, batch.targets[part, None])[:, 0])
            kls.append((own.exp() * gap).sum(-1))
    return KlStats(torch.cat(ratios), torch.cat(kls))


def _select_trained_states(route: ForwardPath, batch: TensorBatch) -> tuple[Any, Callable[[Any], Any]]:
    """Return the hidden states of the trained tokens, one row per position, and the function from them to logits."""
    torch = import_optional("torch", extra="train")
    with route.autocast:
        if route.whole is not None:
            return route.whole(**_inputs(batch)).flatten(0, 1)[batch.sources], lambda logits: logits
        hidden = route.decoder(**_inputs(batch)).last_hidden_state.flatten(0, 1)[batch.sources]
    head, bias = route.head.weight, getattr(route.head, "bias", None)
    return hidden, lambda states: torch.nn.functional.linear(states, head.to(states.dtype), bias)


class AnswerLogps(NamedTuple):
    """Log-probabilities of some answers, one row per answer, padded on the right."""

    values: Any
    """(answers, longest) float32, nats; 0 in the padding."""
    mask: Any
    """(answers, longest) bool: where there is a token."""


def answer_logps(
    route: ForwardPath, rows: Sequence[PackedRow], *, shared: bool = True, temperature: float = 1.0
) -> AnswerLogps:
    """Return log-probabilities of all answers of ``rows``, row by row; ``shared`` false reads each with its own copy of the prompt. Logits are divided by ``temperature``.

    No token of a prompt may be trained on.
    """
    torch = import_optional("torch", extra="train")
    result = token_logps(route, route.batch(rows if shared else one_answer_per_row(rows)), temperature=temperature)
    counts = [target_positions(row, number) for row in rows for number in range(len(row.branches))]
    values = torch.nn.utils.rnn.pad_sequence(list(result.split(counts)), batch_first=True)
    positions = torch.arange(values.shape[1], device=values.device)
    return AnswerLogps(values, positions < torch.tensor(counts, device=values.device)[:, None])


def target_positions(row: PackedRow, number: int) -> int:
    """Return how many tokens of answer ``number`` of ``row`` are in the loss; without a prompt the first is not, as nothing precedes it."""
    trained = row.branches[number].trained
    return sum(trained if row.prompt.ids else trained[1:])
