"""Log-probabilities of judged answers in the form that TRL's pair losses need: computed by our own passes, in tensors of TRL's shape.

``DPOTrainer`` and ``KTOTrainer`` call a model on padded token ids and take the log-probabilities of its answer. Here they call
``PrecomputedModel``, which has them already, from a pass with the answers of one prompt side by side. Token ids are not needed
for the loss, so the ids given to TRL contain only the number of the pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tunectl.backends.modeling import batching
from tunectl.backends.modeling.logprobs import AnswerLogps, answer_logps, target_positions
from tunectl.backends.modeling.process_group import SINGLE, ProcessGroup
from tunectl.core import progress
from tunectl.core.optional import import_optional
from tunectl.training import batch_schedule
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.rl.preference_batches import LabeledCompletions

ANSWERS, MISMATCHED = 0, 1
"""Numbers of the passes: answers to their own prompt, and answers to another one (KTO's estimate of the KL)."""
REFERENCE = "reference.safetensors"


@dataclass(frozen=True, slots=True)
class PairLogprobs:
    """Log-probabilities of the answers of some rows under the policy and under the SFT model, the input of one pair loss."""

    completions: Sequence[LabeledCompletions]
    policy: AnswerLogps
    """With gradients where they are trained on."""
    reference: Any
    """(answers, longest) float32: nats of each token under sft, 0 in the padding."""

    def ratios(self) -> Any:
        """Return the log-ratio of each whole answer, policy to sft; (answers,), nats, without gradients."""
        return self.policy.values.detach().sum(dim=1) - self.reference.sum(dim=1)


class PrecomputedModel:
    """Stands in for the model that TRL calls, and returns log-probabilities that were computed before."""

    def __init__(self, passes: dict[int, Any]) -> None:
        """Take one log-probability array (nats, answers x longest) for each forward pass."""
        self._passes = passes

    def __call__(self, *, input_ids: Any, **_inputs: Any) -> SimpleNamespace:
        """Return the fields that TRL reads from a model's output; the trainer drops the ones it would only log."""
        nats = self._passes[int(input_ids[0, 0])]
        none = nats.detach().new_zeros(nats.shape)
        return SimpleNamespace(log_probs=nats, entropy=none, mean_logits=none, is_top1=none.bool(), aux_loss=None)


NOT_MEASURED = ("entropy", "logits/chosen", "logits/rejected", "mean_token_accuracy", "num_tokens")
"""Metrics that TRL would log, and that are not measured here."""


def build_dpo_inputs(pair_logprobs: PairLogprobs, tail_weight: float | None) -> tuple[PrecomputedModel, dict[str, Any]]:
    """Return the stand-in model and the batch for ``DPOTrainer``: first the chosen answers, then the rejected ones.

    ``tail_weight``: weight of the tokens beyond the length of the shorter answer (``align.ld_alpha``); None: all tokens count fully.
    """
    torch = import_optional("torch", extra="train")
    order = [*range(0, len(pair_logprobs.policy.mask), 2), *range(1, len(pair_logprobs.policy.mask), 2)]
    mask = pair_logprobs.policy.mask[order]
    chosen, rejected = _sum_logprobs(pair_logprobs.reference[order], mask, tail_weight).chunk(2)
    batch = _batch(mask, ANSWERS, "") | {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    return PrecomputedModel({ANSWERS: pair_logprobs.policy.values[torch.tensor(order, device=mask.device)]}), batch


def build_kto_inputs(
    pair_logprobs: PairLogprobs, mismatched: Any, mismatched_reference: Any
) -> tuple[PrecomputedModel, dict[str, Any]]:
    """Return the stand-in model and the batch for ``KTOTrainer``.

    ``mismatched`` and ``mismatched_reference``: log-probabilities (nats) of answers after another prompt, under policy and sft; (answers,).
    """
    torch = import_optional("torch", extra="train")
    device = pair_logprobs.policy.mask.device
    good = [kind for record in pair_logprobs.completions for kind in record.good]
    one = torch.ones(len(mismatched), 1, dtype=torch.bool, device=device)
    batch = _batch(pair_logprobs.policy.mask, ANSWERS, "") | _batch(one, MISMATCHED, "KL_")
    batch |= {
        "label": torch.tensor(good, device=device),
        "ref_logps": pair_logprobs.reference.sum(dim=1),
        "ref_KL_logps": mismatched_reference,
    }
    return PrecomputedModel({ANSWERS: pair_logprobs.policy.values, MISMATCHED: mismatched[:, None]}), batch


def _batch(mask: Any, number: int, prefix: str) -> dict[str, Any]:
    """Begin each line with one prompt token: TRL predicts a token from the one before it."""
    torch = import_optional("torch", extra="train")
    answer = torch.nn.functional.pad(mask, (1, 0)).long()
    return {
        f"{prefix}input_ids": torch.full_like(answer, number),
        f"{prefix}attention_mask": answer,
        f"{prefix}completion_mask": answer,
    }


def _sum_logprobs(nats: Any, mask: Any, tail_weight: float | None) -> Any:
    """Return nats of whole answers, (answers,): tokens beyond the shorter answer's length are weighted by ``tail_weight`` (arXiv 2409.06411)."""
    torch = import_optional("torch", extra="train")
    if tail_weight is None:
        return nats.sum(dim=1)
    lengths = mask.sum(dim=1)
    shared = torch.minimum(*lengths.chunk(2)).repeat(2)
    positions = torch.arange(mask.shape[1], device=mask.device)
    return (nats * torch.where(positions < shared[:, None], 1.0, tail_weight)).sum(dim=1)


@dataclass
class LogprobReader:
    """Computes log-probabilities of packed answers with the current weights."""

    route: batching.ForwardPath
    shared: bool
    """Whether answers of one prompt may be in one row."""
    tokens: int
    """Most tokens of one pass, padding included."""

    def logprobs(self, rows: Sequence[PackedRow]) -> AnswerLogps:
        """Return log-probabilities of all answers of ``rows`` from one forward pass, with gradients unless torch has them off."""
        return answer_logps(self.route, rows, shared=self.shared)

    def compute_without_grad(self, rows: Sequence[PackedRow], label: str | None = None) -> list[Any]:
        """Return the log-probabilities (nats) of each answer, row by row: one float32 tensor (tokens,) per answer, no gradients.

        ``label`` names a progress bar, for long work.
        """
        torch = import_optional("torch", extra="train")
        result: dict[int, list[Any]] = {}
        groups = batch_schedule.token_batches(rows, range(len(rows)), self.tokens)
        with torch.no_grad():
            for group in groups if label is None else progress.track(groups, label):
                some = [rows[number] for number in group]
                logps = self.logprobs(some)
                lines = iter(zip(logps.values, logps.mask, strict=True))
                for number, row in zip(group, some, strict=True):
                    result[number] = [line[mask] for line, mask in (next(lines) for _ in row.branches)]
        return [line for number in range(len(rows)) for line in result[number]]


class References:
    """Log-probabilities (nats) under the SFT model of the answers of all training and validation rows; computed once, and stored for a restart."""

    def __init__(self, lines: Mapping[str, list[list[Any]]]) -> None:
        """``lines`` hold one tensor (tokens,) for each answer of each row."""
        self._lines = lines

    @classmethod
    def load_or_compute(
        cls, rows: Mapping[str, Sequence[PackedRow]], reader: LogprobReader, work: Path, group: ProcessGroup = SINGLE
    ) -> References:
        """Return the log-probabilities of ``rows`` (by set name) under the current weights: loaded from ``work``, or computed on all ranks."""
        files = import_optional("safetensors.torch", extra="train")
        path = work / REFERENCE
        if group.max(float(not path.is_file()))[0]:
            flat = {name: _read_dealt(row, reader, f"sft: {name}", group) for name, row in rows.items()}
            if group.first:
                work.mkdir(parents=True, exist_ok=True)
                files.save_file(flat, str(path) + ".part")
                path.with_name(path.name + ".part").rename(path)
            values = {name: line.to(reader.route.device) for name, line in flat.items()}
        else:
            values = files.load_file(str(path), device=reader.route.device)
        return cls({name: _by_row(values[name], row) for name, row in rows.items()})

    def gather_padded(self, name: str, numbers: Sequence[int], width: int) -> Any:
        """Return token log-probabilities of the answers of the rows with indices ``numbers`` in set ``name``: (answers, width), padded with 0."""
        torch = import_optional("torch", extra="train")
        lines = [line for number in numbers for line in self._lines[name][number]]
        result = torch.nn.utils.rnn.pad_sequence(lines, batch_first=True)
        return torch.nn.functional.pad(result, (0, width - result.shape[1]))

    def gather_sums(self, name: str, numbers: Sequence[int]) -> Any:
        """Return the log-probability of each whole answer of the rows with indices ``numbers`` in set ``name``: (answers,)."""
        torch = import_optional("torch", extra="train")
        return torch.stack([line.sum() for number in numbers for line in self._lines[name][number]])


def _read_dealt(rows: Sequence[PackedRow], reader: LogprobReader, label: str, group: ProcessGroup) -> Any:
    """Return the nats of every answer of ``rows`` one after the other, (tokens,) on the CPU; the same on each rank."""
    torch = import_optional("torch", extra="train")
    sizes = [sum(target_positions(row, number) for number in range(len(row.branches))) for row in rows]
    starts = [0, *accumulate(sizes)]
    own = range(len(rows))[group.rank :: group.world_size]
    lines = iter(reader.compute_without_grad([rows[index] for index in own], label))
    result = torch.zeros(starts[-1])
    for index in own:
        result[starts[index] : starts[index + 1]] = torch.cat([next(lines) for _ in rows[index].branches]).cpu()
    return group.sum_tensor(result)


def _by_row(flat: Any, rows: Sequence[PackedRow]) -> list[list[Any]]:
    sizes = [[target_positions(row, number) for number in range(len(row.branches))] for row in rows]
    lines = iter(flat.split([size for row in sizes for size in row]))
    return [[next(lines) for _ in row] for row in sizes]
