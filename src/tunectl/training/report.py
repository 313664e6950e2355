"""What the sft and adapt stages leave about a fit: training.json, the curve as CSV, and a trained example to look at."""

from __future__ import annotations

import csv
import io as text_io
from collections.abc import Sequence

from msgspec import Struct, structs

from tunectl.chat.masking import Masked
from tunectl.chat.tokens import Tokenizer
from tunectl.training.rows import Row, flatten
from tunectl.training.trainer import Fitted, Point

TRAINING, HISTORY = "training.json", "history.csv"
TIMED = ("tokens_per_second",)
"""Columns of the curve that a clock fills: they stay out of artifacts, so that equal runs leave equal bytes."""


class Shown(Struct, frozen=True):
    """One token as the model gets it."""

    text: str
    trained: bool


class Training(Struct, frozen=True):
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
    example: list[Shown]
    """One row through the real collator."""


def training(fitted: Fitted, train: Sequence[Row], validation: Sequence[Row], example: list[Shown]) -> Training:
    """The record of a fit."""
    return Training(
        steps=fitted.steps,
        planned_steps=fitted.planned_steps,
        best_step=fitted.best_step,
        best_validation_loss=fitted.best_loss,
        first_validation_loss=fitted.first_loss,
        answers=sum(len(row.branches) for row in train),
        validation_answers=sum(len(row.branches) for row in validation),
        tokens=fitted.tokens,
        tokens_apart=fitted.tokens_apart,
        learned_tokens=sum(row.learned for row in train),
        trainable=fitted.trainable,
        shared_prompts=fitted.shared_prompts,
        example=example,
    )


def picture(row: Row, tokenizer: Tokenizer) -> list[Shown]:
    """The tokens of a row as the collator lays them out, and which of them the loss asks for.

    The last token of an answer is only ever a target, so it is shown behind the token that predicts it.
    """
    flat = flatten([row])
    asked = set(zip(flat.sources, flat.targets, strict=True))
    size = len(row.prompt.ids)
    ids = list(row.prompt.ids)
    trained = [place > 0 and (place - 1, token) in asked for place, token in enumerate(ids)]
    offset = size
    for branch in row.branches:
        for place, token in enumerate(branch.ids):
            source = offset + place - 1 if place else size - 1
            ids.append(token)
            trained.append((source, token) in asked)
        offset += len(branch.ids) - 1
    return [Shown(text, learned) for text, learned in zip(tokenizer.tokens_of(ids), trained, strict=True)]


def curve(points: Sequence[Point], *, timed: bool) -> str:
    """The training curve as CSV, one line a point; an empty cell was not measured. ``timed``: with the ``TIMED`` columns."""
    columns = [name for name in Point.__struct_fields__ if timed or name not in TIMED]
    out = text_io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(structs.asdict(point) for point in points)
    return out.getvalue()


def first_of(masked: Sequence[Masked]) -> Masked:
    """The shortest example with an answer: the easiest to look at."""
    return min(masked, key=lambda item: len(item.prompt.ids) + len(item.answers[0].ids))
