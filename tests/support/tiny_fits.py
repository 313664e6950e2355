"""Plans and rows of fits that take a second: what the tests of several processes share."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunectl.artifacts.records import Example, Source
from tunectl.backends.trainers.reward_trainer import RewardModelTrainer
from tunectl.backends.trainers.sft_trainer import SftTrainer
from tunectl.chat.loss_mask import TokenizedExample, TokenSpan
from tunectl.config.schema.cpt import LoraCpt
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.training import prefix_sharing, train_args
from tunectl.training.fit_request import FitJob
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.protocols import TrainResult
from tunectl.training.reward.pair_batches import PairIndex, PromptGroup
from tunectl.training.reward.reward_args import RewardArgs
from tunectl.training.train_args import LoraArgs, TrainingArgs

PROFILE = HardwareProfile(
    device="cpu", threads=1, dtype="float32", train_batch_tokens=64, generate_batch=4, gradient_checkpointing=False
)


def plan(label: str = "sft", *, dropout: float = 0.0, **changes) -> TrainingArgs:
    """24 steps of two rows, with a moving average and a checkpoint every third step."""
    standard = TrainingArgs(
        label=label,
        adapter=LoraArgs("lora", 4, 8, dropout, "all-linear"),
        epochs=2,
        batch_size=6,
        optimizer="adamw",
        learning_rate=1e-2,
        lr_scheduler="linear",
        warmup_ratio=0.1,
        weight_decay=0.0,
        max_grad_norm=1.0,
        label_smoothing=0.0,
        neftune_noise_alpha=None,
        ema_decay=0.9,
        prefix_sharing=True,
        evals_per_epoch=2,
        patience=None,
        min_delta=0.0,
        save_steps=3,
        seed=5,
        project="test",
        profile=PROFILE,
    )
    return replace(standard, **changes)


def rows(count: int = 24, *, answers: int = 3, start: int = 0) -> list[PackedRow]:
    """Rows that say: after the letter n comes n three times, then the end."""
    found = []
    for number in range(start, start + count):
        letter = 10 + number % 20
        prompt = TokenSpan([1, 40, letter, 50][: 3 + number % 2], [False] * (3 + number % 2))
        some = tuple(TokenSpan([letter + shift % 3, letter, 2], [True] * 3) for shift in range(answers))
        example = TokenizedExample(Example(str(number), Source("f", number)), prompt, some)
        found += prefix_sharing.pack_example(example, share=True, limit=512)
    return found


def groups(count: int = 16) -> list[PromptGroup]:
    """The answer that repeats the letter beats the one that does not."""
    found = []
    for number in range(count):
        letter = 10 + number % 20
        better, worse = (TokenSpan([letter + shift, letter, 2, 0], [False, False, False, True]) for shift in (0, 1))
        row = PackedRow(TokenSpan([1, 40, letter], [False] * 3), (better, worse), 1.0)
        found.append(PromptGroup((row,), (PairIndex(0, 1, 0.0, number),)))
    return found


def sft_job(model: Path, folder: Path, chosen: TrainingArgs | None = None, **changes) -> FitJob:
    """A fit of sft below ``folder``."""
    given = {"train": rows(), "validation": rows(5, start=30), **changes}
    return FitJob("sft", chosen or plan(), model, None, out=folder / "out", work=folder / "work", **given)


def cpt_job(model: Path, folder: Path) -> FitJob:
    """A fit of cpt below ``folder``: 18 steps of two blocks of text, the last one shorter than the others."""
    section = LoraCpt(
        method="lora",
        block_size=32,
        validation_share=0.1,
        min_tokens=32,
        lora_rank=4,
        lora_alpha=8,
        epochs=2,
        batch_size=2,
        learning_rate=1e-2,
        lr_scheduler="linear",
        warmup_ratio=0.1,
        weight_decay=0.01,
        max_grad_norm=1.0,
        save_steps=3,
    )
    blocks = [
        PackedRow(TokenSpan([], []), (TokenSpan(ids, [True] * len(ids)),), 1.0)
        for ids in ([10 + (number * place) % 20 for place in range(32)] for number in range(21))
    ]
    short = PackedRow(TokenSpan([], []), (TokenSpan([30, 31, 32, 33, 34, 35, 36, 2], [True] * 8),), 1.0)
    chosen = train_args.from_cpt_config(section, seed=5, profile=PROFILE)
    given = {"train": [*blocks[:17], short], "validation": blocks[17:]}
    return FitJob("sft", chosen, model, None, out=folder / "out", work=folder / "work", **given)


def reward_job(model: Path, sft: Path, folder: Path) -> FitJob:
    """A fit of a reward model below ``folder``."""
    chosen = RewardArgs(plan("reward", ema_decay=None, batch_size=4), 0.01)
    return FitJob("reward", chosen, model, sft, groups(), groups(5), folder / "out", folder / "work")


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of an adapter."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def fit_here(job: FitJob) -> TrainResult:
    """Fit in this process; the adapter goes to ``job.out``."""
    if job.trainer == "sft":
        given = {"model": job.model, "train": job.train, "validation": job.validation}
        return SftTrainer().fit(job.plan, **given, out=job.out, work=job.work)
    given = {"model": job.model, "sft": job.sft, "train": job.train, "validation": job.validation}
    return RewardModelTrainer().fit(job.plan, **given, out=job.out, work=job.work)


def load_weights(folder: Path) -> dict[str, Any]:
    """The tensors of an adapter by name."""
    from safetensors.torch import load_file

    return load_file(str(folder / "adapter_model.safetensors"))


def list_losses(result: TrainResult) -> list[float | None]:
    """First and best loss, then both losses of each point of the curve."""
    curve = [loss for point in result.history for loss in (point.loss, point.validation_loss)]
    return [result.first_loss, result.best_loss, *curve]


def assert_equal_fits(result: TrainResult, adapter: Path, expected: TrainResult, expected_adapter: Path) -> None:
    """Two fits of one plan in float32 without dropout have the same steps, and losses and weights within 1e-5."""
    assert (result.steps, result.tokens, result.best_step) == (expected.steps, expected.tokens, expected.best_step)
    losses, others = list_losses(result), list_losses(expected)
    assert [loss is None for loss in losses] == [loss is None for loss in others]
    assert max(abs(here - there) for here, there in zip(losses, others, strict=True) if here is not None) < 1e-5
    ours, theirs = load_weights(adapter), load_weights(expected_adapter)
    assert ours.keys() == theirs.keys()
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-5
