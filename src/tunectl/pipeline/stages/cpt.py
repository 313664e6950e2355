"""Stage cpt: continue pretraining on raw domain text -> a model, or nothing where it is switched off."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.records import Document
from tunectl.chat import model_spec
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.cpt import CptStage, LoraCpt
from tunectl.core.errors import DataError
from tunectl.training import packing, train_args
from tunectl.training.model_protocols import AdapterMerger
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.protocols import Trainer, TrainResult
from tunectl.training.sft import report

ADAPTER = "adapter"
"""Folder of the adapter before it is merged, inside the stage's work folder."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Artifact folders that cpt reads: the base model and the split."""

    model: Path
    split: Path


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folders that cpt fills: the model's, and ``work`` with checkpoints, which survives a kill."""

    artifact: Path
    work: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """Results of continued pretraining, for ``dvc metrics``; losses in nats per token of held-out documents. None where it is switched off."""

    method: str
    validation_loss: float | None
    validation_loss_before: float | None
    documents: int | None
    tokens: int | None
    tokens_per_second: float | None


def run(
    cfg: CptStage,
    inputs: Inputs,
    outputs: Outputs,
    *,
    trainer: Trainer | None = None,
    merge: AdapterMerger | None = None,
) -> Metrics:
    """Train the base model further on the documents of the training split, and merge the adapter into its weights.

    Reads    inputs.split      documents.jsonl
             inputs.model      the base model
    Writes   outputs.artifact  a model folder with model_spec.json, training.json and history.csv (without times); or
                               passed_through.json
    Returns  Metrics

    Raises   DataError           there is too little text
             InfrastructureError  memory, disk, or stopped by the user: the same command resumes
    """
    section = cfg.cpt.root
    if not isinstance(section, LoraCpt):
        atomic_io.write_json(outputs.artifact / manifest.PASSED_THROUGH, {"reason": f"cpt.method is {section.method}"})
        return Metrics(section.method, None, None, None, None, None)
    spec = model_spec.load(inputs.model)
    texts = [item.text for item in atomic_io.read_rows(inputs.split / "documents.jsonl", Document)]
    tokenizer = Tokenizer(inputs.model)
    train, validation = _cut(texts, tokenizer, spec, section, cfg.seed)
    adapter = outputs.work / ADAPTER
    fitted = (trainer or _default_trainer()).fit(
        train_args.from_cpt_config(section, seed=cfg.seed, profile=cfg.hardware),
        model=inputs.model,
        train=train,
        validation=validation,
        out=adapter,
        work=outputs.work,
    )
    (merge or _default_merge())(inputs.model, adapter, outputs.artifact)
    weights = atomic_io.sha256_path(outputs.artifact / "model.safetensors")
    model_spec.save(replace(spec, weights_sha256=weights), outputs.artifact)
    _describe(fitted, train, validation, tokenizer, outputs.artifact)
    shutil.rmtree(outputs.work, ignore_errors=True)
    return Metrics(
        section.method,
        fitted.best_loss,
        fitted.first_loss,
        len(texts),
        fitted.tokens,
        round(fitted.tokens / fitted.seconds, 1),
    )


def _cut(
    texts: list[str], tokenizer: Tokenizer, spec: model_spec.ModelSpec, section: LoraCpt, seed: int
) -> tuple[list[PackedRow], list[PackedRow]]:
    """Return training blocks, and validation blocks of other documents."""
    order = sorted(texts)
    random.Random(seed).shuffle(order)  # noqa: S311  a seeded shuffle, not a secret
    count = max(1, round(len(order) * section.validation_share))
    end = spec.eos.id if spec.eos else spec.eot_token.id
    result = [
        packing.pack(tokenizer, part, size=section.block_size, end=end) for part in (order[count:], order[:count])
    ]
    tokens = sum(len(block.branches[0].ids) for block in result[0])
    if tokens < section.min_tokens or not result[1]:
        raise DataError(
            f"cpt: the documents of the training side hold {tokens} tokens of text in {len(texts)} documents; "
            f"at least {section.min_tokens} are asked for",
            hint="bring more documents, lower cpt.min_tokens, or leave the stage out: cpt=none",
        )
    return result[0], result[1]


def _describe(
    result: TrainResult, train: list[PackedRow], validation: list[PackedRow], tokenizer: Tokenizer, folder: Path
) -> None:
    example = report.example_tokens(min(train, key=lambda row: row.length), tokenizer)
    atomic_io.write_json(folder / report.TRAINING, report.training(result, train, validation, example))
    atomic_io.write_text(folder / report.HISTORY, report.curve(result.history, timed=False))


def _default_trainer() -> Trainer:
    from tunectl.backends.trainers.sft_trainer import SftTrainer

    return SftTrainer()


def _default_merge() -> AdapterMerger:
    from tunectl.backends.modeling.merge_adapter import merge

    return merge
