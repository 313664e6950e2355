"""Stage adapt: raw domain text -> a model that has read it (further pre-training), or nothing where it is switched off."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from tunectl.artifacts import io, manifest
from tunectl.artifacts.records import Document
from tunectl.chat import contract
from tunectl.chat.tokens import Tokenizer
from tunectl.config.adapt import AdaptStage, LoraAdapt
from tunectl.core.errors import DataError
from tunectl.training import blocks, plan, report
from tunectl.training.base_model import Merger
from tunectl.training.rows import Row
from tunectl.training.trainer import Fitted, Trainer

ADAPTER = "adapter"
"""Folder of the update before it is merged, inside the stage's work."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Folders of upstream stages."""

    model: Path
    split: Path


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where results go."""

    artifact: Path
    work: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """How the fit went; losses in nats a token of held-back documents. None where the stage is switched off."""

    method: str
    validation_loss: float | None
    validation_loss_before: float | None
    documents: int | None
    tokens: int | None
    tokens_per_second: float | None


def run(
    cfg: AdaptStage, inputs: Inputs, outputs: Outputs, *, trainer: Trainer | None = None, merge: Merger | None = None
) -> Metrics:
    """Train the base model further on the documents of the training side, and merge the update into its weights.

    Reads    inputs.split      documents.jsonl
             inputs.model      the base model
    Writes   outputs.artifact  a model folder with its contract, training.json and history.csv (no clock is in them); or
                               passed_through.json
    Returns  Metrics

    Raises   DataError           there is too little text
             EnvironmentFailure  memory, disk, or stopped by hand: the same command goes on
    """
    section = cfg.adapt.root
    if not isinstance(section, LoraAdapt):
        io.write_json(outputs.artifact / manifest.PASSED_THROUGH, {"reason": f"adapt.method is {section.method}"})
        return Metrics(section.method, None, None, None, None, None)
    agreed = contract.load(inputs.model)
    texts = [item.text for item in io.read_rows(inputs.split / "documents.jsonl", Document)]
    tokenizer = Tokenizer(inputs.model)
    train, validation = _cut(texts, tokenizer, agreed, section, cfg.seed)
    adapter = outputs.work / ADAPTER
    fitted = (trainer or _default_trainer()).fit(
        plan.of_adapt(section, seed=cfg.seed, profile=cfg.profile),
        model=inputs.model,
        train=train,
        validation=validation,
        out=adapter,
        work=outputs.work,
    )
    (merge or _default_merge())(inputs.model, adapter, outputs.artifact)
    weights = io.digest(outputs.artifact / "model.safetensors")
    contract.save(replace(agreed, weights_sha256=weights), outputs.artifact)
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
    texts: list[str], tokenizer: Tokenizer, agreed: contract.Contract, section: LoraAdapt, seed: int
) -> tuple[list[Row], list[Row]]:
    """Blocks to train on, and blocks of other documents to measure with."""
    order = sorted(texts)
    random.Random(seed).shuffle(order)  # noqa: S311  a seeded shuffle, not a secret
    held = max(1, round(len(order) * section.validation_share))
    end = agreed.eos.id if agreed.eos else agreed.end_of_turn.id
    found = [blocks.pack(tokenizer, part, size=section.block, end=end) for part in (order[held:], order[:held])]
    tokens = sum(len(block.branches[0].ids) for block in found[0])
    if tokens < section.least_tokens or not found[1]:
        raise DataError(
            f"adapt: the documents of the training side hold {tokens} tokens of text in {len(texts)} documents; "
            f"at least {section.least_tokens} are asked for",
            hint="bring more documents, lower adapt.least_tokens, or leave the stage out: adapt=none",
        )
    return found[0], found[1]


def _describe(fitted: Fitted, train: list[Row], validation: list[Row], tokenizer: Tokenizer, folder: Path) -> None:
    example = report.picture(min(train, key=lambda row: row.length), tokenizer)
    io.write_json(folder / report.TRAINING, report.training(fitted, train, validation, example))
    io.write_text(folder / report.HISTORY, report.curve(fitted.history, timed=False))


def _default_trainer() -> Trainer:
    from tunectl.backends.trl_trainer import TrlTrainer

    return TrlTrainer()


def _default_merge() -> Merger:
    from tunectl.backends.merge import merge

    return merge
