"""Stage sft: examples -> a LoRA adapter, by supervised fine-tuning."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from tunectl.artifacts import atomic_io, manifest, privacy_budget
from tunectl.artifacts.records import Example
from tunectl.artifacts.row_counts import RowCounter, save
from tunectl.chat import model_spec, template
from tunectl.chat.loss_mask import LossMasker
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.sft import Sft, SftStage
from tunectl.core import logging_setup
from tunectl.core.errors import DataError
from tunectl.training import prefix_sharing, train_args
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.protocols import Trainer, TrainResult
from tunectl.training.sft import private_units, report, sft_dataset

_log = logging_setup.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Artifact folders that sft reads: base model, split and cpt."""

    model: Path
    split: Path
    cpt: Path


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folders that sft fills: the adapter's, CSV curves, and ``work`` with checkpoints, which survives a kill."""

    artifact: Path
    plots: Path
    work: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """Results of the sft training, for ``dvc metrics``; losses in nats per trained token of validation."""

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
    """Tokens of prompts and answers per second, without padding."""
    tokens_per_second_apart: float
    """The same, as if every answer had its own copy of the prompt."""
    epsilon: float | None
    """Privacy loss of the training; None where it was not private, or without noise."""


def run(cfg: SftStage, inputs: Inputs, outputs: Outputs, *, trainer: Trainer | None = None) -> Metrics:
    """Train an adapter on the training answers and keep the weights of the best validation loss (with differential privacy: the last ones).

    Reads    inputs.split      train.jsonl, validation.jsonl
             inputs.cpt      the model of cpt, or inputs.model where cpt is switched off
    Writes   outputs.artifact  adapter_model.safetensors, adapter_config.json, model_spec.json (with the system text in force),
                               training.json, history.csv, row_counts.json, rejects.jsonl
                               privacy.json of a private training
             outputs.plots     history.csv with tokens per second; the artifact has no times, so that the same seed gives the same bytes
    Returns  Metrics

    Where ``sft.adapter`` names an adapter, it is used, and nothing is trained.
    Raises   DataError           an empty split, or too many answers were too long
             UsageError          the loss is NaN or infinite
             InfrastructureError  memory, disk, or stopped by the user: the same command resumes
    """
    section = cfg.sft
    base = inputs.model if (inputs.cpt / manifest.PASSED_THROUGH).is_file() else inputs.cpt
    spec = model_spec.load(base)
    system = spec.system if section.system is None else section.system
    tokenizer = Tokenizer(base)
    masker = LossMasker(
        template.load(base, system=system), tokenizer, end_of_turn=spec.eot_token.id, train_on=section.loss_on
    )
    tally = RowCounter("sft")
    train_groups, example = _rows(inputs.split / "train.jsonl", masker, section, tally, tokenizer)
    public = section.model_copy(update={"privacy": None})  # validation only measures: nothing is learned from it
    validation_groups, _ = _rows(inputs.split / "validation.jsonl", masker, public, tally, tokenizer)
    train, validation = _flatten(train_groups), _flatten(validation_groups)
    account = save(
        tally,
        outputs.artifact,
        records_out=sum(len(row.branches) for row in (*train, *validation)),
        max_rejected_share=section.max_rejected_share,
        setting="sft.max_rejected_share",
    )
    _refuse_empty(train, validation)
    selected = _default_trainer(section) if trainer is None or section.adapter else trainer
    fitted = selected.fit(
        train_args.from_sft_config(section, seed=cfg.seed, profile=cfg.hardware, project=cfg.project),
        model=base,
        train=train,
        validation=_flatten(_draw(validation_groups, section.max_eval_samples, cfg.seed)),
        out=outputs.artifact,
        work=outputs.work,
    )
    model_spec.save(replace(spec, system=system), outputs.artifact)
    record = report.training(fitted, train, validation, example)
    _write_records(fitted, record, outputs)
    shutil.rmtree(outputs.work, ignore_errors=True)
    return _to_metrics(fitted, record, rejected=sum(account.rejected.values()))


def _to_metrics(fitted: TrainResult, record: report.TrainingRecord, *, rejected: int) -> Metrics:
    return Metrics(
        validation_loss=fitted.best_loss,
        validation_loss_before=fitted.first_loss,
        best_step=fitted.best_step,
        steps=fitted.steps,
        planned_steps=fitted.planned_steps,
        answers=record.answers,
        rejected=rejected,
        trainable=fitted.trainable,
        tokens=fitted.tokens,
        tokens_per_second=round(fitted.tokens / fitted.seconds, 1),
        tokens_per_second_apart=round(fitted.tokens_apart / fitted.seconds, 1),
        epsilon=fitted.privacy.epsilon if fitted.privacy else None,
    )


def _write_records(fitted: TrainResult, record: report.TrainingRecord, outputs: Outputs) -> None:
    atomic_io.write_json(outputs.artifact / report.TRAINING, record)
    if fitted.privacy is not None:
        atomic_io.write_json(outputs.artifact / privacy_budget.NAME, fitted.privacy)
        _log.info("sft: %s", fitted.privacy.sentence)
    atomic_io.write_text(outputs.artifact / report.HISTORY, report.curve(fitted.history, timed=False))
    atomic_io.write_text(outputs.plots / report.HISTORY, report.curve(fitted.history, timed=True))


def _rows(
    path: Path, masker: LossMasker, section: Sft, tally: RowCounter, tokenizer: Tokenizer
) -> tuple[list[list[PackedRow]], list[report.TokenView]]:
    """Return the rows of each input of one split, and one of them for the report."""
    examples = list(atomic_io.read_rows(path, Example))
    if section.privacy is not None:
        examples = private_units.split_by_unit(examples, section.privacy, tally)
    masked = sft_dataset.tokenize_examples(examples, masker, sft_dataset.LengthLimits(section.max_length), tally)
    result = sft_dataset.pack_by_example(masked, section)
    example_row = prefix_sharing.pack_example(report.first_of(masked), share=False, limit=1)[0] if masked else None
    return result, report.example_tokens(example_row, tokenizer) if example_row else []


def _draw(groups: list[list[PackedRow]], limit: int | None, seed: int) -> list[list[PackedRow]]:
    """Return ``limit`` inputs, each with all of its rows; all inputs without a limit."""
    if limit is None or len(groups) <= limit:
        return groups
    return random.Random(seed).sample(groups, limit)  # noqa: S311 - a sample, not a secret


def _flatten(groups: list[list[PackedRow]]) -> list[PackedRow]:
    return [row for group in groups for row in group]


def _refuse_empty(train: list[PackedRow], validation: list[PackedRow]) -> None:
    for name, result in (("train", train), ("validation", validation)):
        if not result:
            raise DataError(
                f"sft: the {name} split has no answers to use",
                hint="add data, or change split.shares; tunectl data counts shows the rows of each split",
            )


def _default_trainer(section: Sft) -> Trainer:
    if section.adapter is not None:
        from tunectl.backends.trainers.adopted_adapter import AdoptedAdapter

        return AdoptedAdapter(Path(section.adapter))
    from tunectl.backends.trainers.sft_trainer import SftTrainer

    return SftTrainer()
