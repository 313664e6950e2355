"""Records of an sft or cpt fit: training.json, the loss curve as CSV, and a trained example."""

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
"""Columns of the curve that a clock fills: they stay out of artifacts, so that equal runs leave equal bytes."""


class TokenView(Struct, frozen=True):
    """One token as the model gets it."""

    text: str
    trained: bool


class TrainingRecord(Struct, frozen=True):
    """What lies in training.json. No clock is in it, so that equal runs leave equal files."""

    steps: int
    planned_steps: int
    best_step: int
    best_validation_loss: float
    """Nats a learned token, of the weights that were kept."""
    first_validation_loss: float
    """The same before training."""
    answers: int
    validation_answers: int
    tokens: int
    """Prompt and answer tokens read, padding not counted."""
    tokens_apart: int
    """The same, had every answer been read with a prompt of its own."""
    learned_tokens: int
    """Tokens in the loss, one epoch."""
    trainable: int
    shared_prompts: bool
    example: list[TokenView]
    """One row through the real collator."""


def training(
    result: TrainResult, train: Sequence[PackedRow], validation: Sequence[PackedRow], example: list[TokenView]
) -> TrainingRecord:
    """Return the record of a fit."""
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
    """Return the tokens of a row as the collator lays them out, and which of them the loss asks for.

    The last token of an answer is only ever a target, so it is shown behind the token that predicts it.
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
    """Return the training curve as CSV, one line a point; an empty cell was not measured. ``timed``: with the ``TIMED`` columns."""
    columns = [name for name in LogPoint.__struct_fields__ if timed or name not in TIMED]
    out = text_io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(structs.asdict(point) for point in points)
    return out.getvalue()


def first_of(masked: Sequence[TokenizedExample]) -> TokenizedExample:
    """Return the shortest example with an answer: the easiest to look at."""
    return min(masked, key=lambda item: len(item.prompt.ids) + len(item.answers[0].ids))
