"""Stage sft: examples -> a LoRA adapter, by supervised fine-tuning."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from tunectl.artifacts import io, manifest
from tunectl.artifacts.records import Example
from tunectl.artifacts.tally import Tally, save
from tunectl.chat import contract, template
from tunectl.chat.masking import Masker
from tunectl.chat.tokens import Tokenizer
from tunectl.config.sft import Sft, SftStage
from tunectl.core.errors import DataError
from tunectl.training import intake, plan, report, rows
from tunectl.training.rows import Row
from tunectl.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Inputs:
    """Folders of upstream stages."""

    model: Path
    split: Path
    adapt: Path


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where results go."""

    artifact: Path
    plots: Path
    work: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """How the fit went; losses in nats a learned token, of validation."""

    validation_loss: float
    validation_loss_before: float
    best_step: int
    steps: int
    planned_steps: int
    answers: int
    rejected: int
    trainable: int
    tokens: int
    tokens_per_second: float
    """Prompt and answer tokens, padding not counted."""
    tokens_per_second_apart: float
    """The same, counted as if every answer had been read with a prompt of its own."""


def run(cfg: SftStage, inputs: Inputs, outputs: Outputs, *, trainer: Trainer | None = None) -> Metrics:
    """Fit an adapter on the training answers and keep the weights of the best validation loss.

    Reads    inputs.split      train.jsonl, validation.jsonl
             inputs.adapt      the further pre-trained model, or inputs.model where adapt passed on
    Writes   outputs.artifact  adapter_model.safetensors, adapter_config.json, contract.json (with the system text in force),
                               training.json, history.csv, account.json, rejects.jsonl
             outputs.plots     history.csv with tokens a second; no clock is in the artifact: the same seed, the same bytes
    Returns  Metrics

    Raises   DataError           an empty split, or too many answers were too long
             UsageError          the loss is no number
             EnvironmentFailure  memory, disk, or stopped by hand: the same command goes on
    """
    section = cfg.sft
    base = inputs.model if (inputs.adapt / manifest.PASSED_THROUGH).is_file() else inputs.adapt
    agreed = contract.load(base)
    system = agreed.system if section.system is None else section.system
    tokenizer = Tokenizer(base)
    masker = Masker(
        template.load(base, system=system), tokenizer, end_of_turn=agreed.end_of_turn.id, train_on=section.train_on
    )
    tally = Tally("sft")
    train, example = _rows(inputs.split / "train.jsonl", masker, section, tally, tokenizer)
    validation, _ = _rows(inputs.split / "validation.jsonl", masker, section, tally, tokenizer)
    account = save(
        tally,
        outputs.artifact,
        records_out=sum(len(row.branches) for row in (*train, *validation)),
        max_rejected_share=section.max_rejected_share,
        setting="sft.max_rejected_share",
    )
    _refuse_empty(train, validation)
    fitted = (trainer or _default_trainer()).fit(
        plan.of_sft(section, seed=cfg.seed, profile=cfg.profile, project=cfg.project),
        model=base,
        train=train,
        validation=validation,
        out=outputs.artifact,
        work=outputs.work,
    )
    contract.save(replace(agreed, system=system), outputs.artifact)
    found = report.training(fitted, train, validation, example)
    io.write_json(outputs.artifact / report.TRAINING, found)
    io.write_text(outputs.artifact / report.HISTORY, report.curve(fitted.history, timed=False))
    io.write_text(outputs.plots / report.HISTORY, report.curve(fitted.history, timed=True))
    shutil.rmtree(outputs.work, ignore_errors=True)
    return Metrics(
        validation_loss=fitted.best_loss,
        validation_loss_before=fitted.first_loss,
        best_step=fitted.best_step,
        steps=fitted.steps,
        planned_steps=fitted.planned_steps,
        answers=found.answers,
        rejected=sum(account.rejected.values()),
        trainable=fitted.trainable,
        tokens=fitted.tokens,
        tokens_per_second=round(fitted.tokens / fitted.seconds, 1),
        tokens_per_second_apart=round(fitted.tokens_apart / fitted.seconds, 1),
    )


def _rows(
    path: Path, masker: Masker, section: Sft, tally: Tally, tokenizer: Tokenizer
) -> tuple[list[Row], list[report.Shown]]:
    """The rows of one split, and one of them to look at."""
    examples = list(io.read_rows(path, Example))
    masked = intake.take(examples, masker, intake.Limits(section.max_tokens), tally)
    found = [row for item in masked for row in rows.of(item, share=section.share_prompts, limit=rows.ROW_TOKENS)]
    shown = rows.of(report.first_of(masked), share=False, limit=1)[0] if masked else None
    return found, report.picture(shown, tokenizer) if shown else []


def _refuse_empty(train: list[Row], validation: list[Row]) -> None:
    for name, found in (("train", train), ("validation", validation)):
        if not found:
            raise DataError(
                f"sft: the {name} split has no answers to use",
                hint="bring more data, or change split.shares; look at it with: tunectl data account",
            )


def _default_trainer() -> Trainer:
    from tunectl.backends.trl_trainer import TrlTrainer

    return TrlTrainer()
