"""Artifacts of the align stage: align.json, curves as CSV, samples. They contain no times."""

from __future__ import annotations

import csv
import io as text_io
from collections.abc import Sequence

from msgspec import Struct, field, structs

from tunectl.config.schema.align import Grpo, Rloo
from tunectl.training.rl.report import AlignSettings
from tunectl.training.rl.reward_functions import name_of
from tunectl.training.rl.rl_types import RlResult, StepMetrics, ValidationPoint

ADJUSTABLE = (
    "steps", "epochs", "learning_rate", "beta", "temperature", "num_generations", "max_new_tokens",
)  # fmt: skip
"""Settings that evaluate's report names with their value where a policy has gained nothing."""
FACTS, HISTORY, VALIDATION, SAMPLES = "align.json", "history.csv", "validation.csv", "samples.jsonl"


class AlignResultRecord(Struct, frozen=True):
    """Content of ``align.json``: steps, kept step, validations and settings of a run of align."""

    method: str
    steps: int
    planned_steps: int
    best_step: int
    """Step whose weights were kept; 0: those of sft."""
    stopped: str | None
    """Why it stopped early; None where it did not."""
    answers: int
    """Number of answers or judgments in training, over all steps."""
    inputs: int
    """Number of different training inputs or judgments."""
    trainable: int
    metric: str
    """Name of the independent metric."""
    validation: list[ValidationPoint]
    settings: dict[str, float] = field(default_factory=dict)
    """Numbers of the align section that a reader may want to change, by key."""
    rewards: dict[str, float] = field(default_factory=dict)
    """Weight of each reward term; empty for dpo and kto, which have none."""


def to_record(aligned: RlResult, settings: AlignSettings, *, inputs: int, measure: str) -> AlignResultRecord:
    """Return the content of ``align.json``; ``inputs``: number of training inputs or judgments; ``measure``: the independent metric."""
    terms = settings.rewards if isinstance(settings, Rloo | Grpo) else ()
    return AlignResultRecord(
        method=settings.method,
        steps=aligned.steps,
        planned_steps=aligned.planned_steps,
        best_step=aligned.best_step,
        stopped=aligned.stopped,
        answers=aligned.answers,
        inputs=inputs,
        trainable=aligned.trainable,
        metric=measure,
        validation=list(aligned.validation),
        settings={key: float(getattr(settings, key)) for key in ADJUSTABLE if hasattr(settings, key)},
        rewards={name_of(term): term.weight for term in terms},
    )


def curve(points: Sequence[StepMetrics], *, timed: bool) -> str:
    """Return CSV with one line per step; an empty cell was not measured.

    ``timed``: with the seconds of each step, for plots, and without the checksums of the answers.
    """
    absent = "completions_crc32" if timed else "seconds"
    names = [name for name in StepMetrics.__struct_fields__ if name != absent]
    return _csv(names, [structs.asdict(point) for point in points])


def validation_csv(points: Sequence[ValidationPoint]) -> str:
    """Return CSV with one line per validation."""
    return _csv(list(ValidationPoint.__struct_fields__), [structs.asdict(point) for point in points])


def _csv(names: list[str], rows: list[dict[str, object]]) -> str:
    out = text_io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(["" if row[name] is None else row[name] for name in names] for row in rows)
    return out.getvalue()
