"""Records of a training of sft or cpt: training.json, the loss curve as CSV, and a trained example."""

from __future__ import annotations

import csv
import io as text_io
from collections.abc import Sequence

from msgspec import Struct, structs

from tunectl.chat.loss_mask import TokenizedExample
from tunectl.chat.tokenizer import Tokenizer
from tunectl.training.prefix_sharing import PackedRow, collate
from tunectl.training.protocols import LogPoint, TrainResult

TRAINING, HISTORY = "training.json", "history.csv"
TIMED = ("tokens_per_second",)
"""Columns of the curve with times: they are left out of artifacts, so that equal runs give equal bytes."""


class TokenView(Struct, frozen=True):
    """One token as text, and whether it is in the loss."""

    text: str
    trained: bool


class TrainingRecord(Struct, frozen=True):
    """Content of ``training.json`` of sft or cpt. It contains no time, so that equal runs give equal files."""

    steps: int
    planned_steps: int
    best_step: int
    best_validation_loss: float
    """Nats per trained token, of the kept weights."""
    first_validation_loss: float
    """Nats per trained token, before training."""
    answers: int
    validation_answers: int
    tokens: int
    """Tokens of prompts and answers read, without padding."""
    tokens_apart: int
    """The same, had every answer its own copy of the prompt."""
    learned_tokens: int
    """Tokens in the loss, per epoch."""
    trainable: int
    shared_prompts: bool
    example: list[TokenView]
    """Tokens of one row, from the real collator."""


def training(
    result: TrainResult, train: Sequence[PackedRow], validation: Sequence[PackedRow], example: list[TokenView]
) -> TrainingRecord:
    """Return the content of ``training.json``; ``example`` is one trained row, token by token."""
    return TrainingRecord(
        steps=result.steps,
        planned_steps=result.planned_steps,
        best_step=result.best_step,
        best_validation_loss=result.best_loss,
        first_validation_loss=result.first_loss,
        answers=sum(len(row.branches) for row in train),
        validation_answers=sum(len(row.branches) for row in validation),
        tokens=result.tokens,
        tokens_apart=result.tokens_apart,
        learned_tokens=sum(row.target_tokens for row in train),
        trainable=result.trainable,
        shared_prompts=result.shared_prompts,
        example=example,
    )


def example_tokens(row: PackedRow, tokenizer: Tokenizer) -> list[TokenView]:
    """Return the tokens of a row as the collator arranges them, and which of them are in the loss.

    The last token of an answer is only ever a target, so it is shown after the token that predicts it.
    """
    flat = collate([row])
    targets = set(zip(flat.sources, flat.targets, strict=True))
    size = len(row.prompt.ids)
    ids = list(row.prompt.ids)
    trained = [index > 0 and (index - 1, token) in targets for index, token in enumerate(ids)]
    offset = size
    for branch in row.branches:
        for index, token in enumerate(branch.ids):
            source = offset + index - 1 if index else size - 1
            ids.append(token)
            trained.append((source, token) in targets)
        offset += len(branch.ids) - 1
    return [TokenView(text, learned) for text, learned in zip(tokenizer.tokens_of(ids), trained, strict=True)]


def curve(points: Sequence[LogPoint], *, timed: bool) -> str:
    """Return the training curve as CSV, one line per point; an empty cell was not measured. ``timed``: with the tokens per second."""
    columns = [name for name in LogPoint.__struct_fields__ if timed or name not in TIMED]
    out = text_io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(structs.asdict(point) for point in points)
    return out.getvalue()


def first_of(masked: Sequence[TokenizedExample]) -> TokenizedExample:
    """Return the shortest example with an answer: the easiest to read."""
    return min(masked, key=lambda item: len(item.prompt.ids) + len(item.answers[0].ids))
