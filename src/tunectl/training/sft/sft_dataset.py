"""Convert records to rows: mask, reject what is too long, and count every answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunectl.artifacts.records import Example, RejectedRow, Source, truncate
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.artifacts.row_counts import RowCounter
from tunectl.chat.loss_mask import LossMasker, TokenizedExample, mask_each
from tunectl.config.schema.sft import Sft
from tunectl.core.errors import DataError
from tunectl.training import prefix_sharing
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.sft import private_units

CHUNK = 256
"""Examples that are tokenized together: enough to keep the tokenizer busy, few enough for memory."""


@dataclass(frozen=True, slots=True)
class LengthLimits:
    """Limit on the tokens of a prompt with its answer; longer answers are rejected."""

    max_tokens: int
    """Tokens of prompt and answer together."""


def tokenize_examples(
    examples: Sequence[Example], masker: LossMasker, limits: LengthLimits, tally: RowCounter
) -> list[TokenizedExample]:
    """Return the examples as tokens with their loss mask; ``tally`` counts each answer as one row.

    Answers that are ``too_long`` or have ``nothing_trained`` are rejected whole, never cut; rows of token ids that the tokenizer
    does not have are rejected as ``wrong_labels``, conversations that the template does not render as ``template_refuses``.
    Raises  DataError where the template renders none of them.
    """
    examples_ = []
    refused: list[tuple[Example, DataError]] = []
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        for example, masked in zip(chunk, mask_each(masker, chunk, max_tokens=limits.max_tokens), strict=True):
            if isinstance(masked, DataError):
                refused.append((example, masked))
                continue
            unknown = _find_unknown_id(masked, masker)
            answers = tuple(
                answer for number, answer in enumerate(masked.answers) if _fits(masked, number, limits, unknown, tally)
            )
            if answers:
                examples_.append(replace(masked, answers=answers))
    if refused and len(refused) == len(examples):
        raise refused[0][1]
    for example, error in refused:
        sources = [answer.source for answer in example.answers] or [example.source]
        tally.read(len(sources))
        for source in sources:
            tally.reject(RejectedRow(source, "template_refuses", error.message))
    return examples_


def pack_rows(masked: Sequence[TokenizedExample], section: Sft) -> list[PackedRow]:
    """Return the examples packed into rows, answers of one prompt sharing a row where declared; in private training each with its unit."""
    return [row for rows in pack_by_example(masked, section) for row in rows]


def pack_by_example(masked: Sequence[TokenizedExample], section: Sft) -> list[list[PackedRow]]:
    """Return the rows of ``pack_rows`` as one list for each example, which has all of its answers."""
    return [
        [
            replace(row, unit=private_units.find_unit(item.example, section.privacy)) if section.privacy else row
            for row in prefix_sharing.pack_example(item, share=section.prefix_sharing, limit=prefix_sharing.ROW_TOKENS)
        ]
        for item in masked
    ]


def _find_unknown_id(masked: TokenizedExample, masker: LossMasker) -> str | None:
    """Return a sentence about a token id that the model does not have; None where there is none. Only rows of ids can have one."""
    if masked.example.tokens is None:
        return None
    size, largest = masker.vocabulary_size, max(masked.example.tokens.ids, default=0)
    if largest < size:
        return None
    return f"input_ids holds {largest}; the tokenizer of the model has {size} tokens, so its ids are 0 to {size - 1}"


def _fits(masked: TokenizedExample, number: int, limits: LengthLimits, unknown: str | None, tally: RowCounter) -> bool:
    answer = masked.answers[number]
    tally.read()
    length = len(masked.prompt.ids) + len(answer.ids)
    if length > limits.max_tokens:
        tally.reject(_reject(masked, number, "too_long", f"{length} tokens; the limit is {limits.max_tokens}"))
        return False
    if unknown is not None:
        tally.reject(_reject(masked, number, "wrong_labels", unknown))
        return False
    if not any(answer.trained) and not any(masked.prompt.trained):
        tally.reject(_reject(masked, number, "nothing_trained", "no token of it is learned from"))
        return False
    tally.keep()
    return True


def _reject(masked: TokenizedExample, number: int, reason: RejectReason, detail: str) -> RejectedRow:
    source: Source = masked.example.source
    sample = ""
    if number < len(masked.example.answers):
        source, sample = masked.example.answers[number].source, masked.example.answers[number].text
    return RejectedRow(source, reason, detail, truncate(sample))
