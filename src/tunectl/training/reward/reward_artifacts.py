"""Records of the reward stage: ``reward.json`` for loading the model, ``results.json`` for judging it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from msgspec import Struct

from tunectl.training.protocols import TrainResult
from tunectl.training.reward.reward_gate import RewardGateResult
from tunectl.training.reward.reward_metrics import CalibrationBin, Estimate, RewardMeasurement, Slice

FACTS, RESULTS, VERDICT, REPORT = "reward.json", "results.json", "verdict.json", "report.html"
MEMBERS, JUDGE = "members", "judge"
WEIGHTS = "adapter_model.safetensors"
VERSION = 1


class Ensemble(Struct, frozen=True):
    """One or several reward models that are read as one."""

    seeds: list[int]
    """One a member."""
    weights: list[str]
    """SHA-256 of each member's adapter_model.safetensors."""
    centers: list[float]
    """Mean raw reward of each member on the answers of validation."""
    scale: float
    """Standard deviation of the mean of the centered members, same answers."""
    pairs: int
    """Trained on."""
    prompts: int


class RewardFacts(Struct, frozen=True):
    """What lies in ``reward.json``: what the weights belong to, and how raw rewards become scores."""

    base: str
    """SHA-256 of the base model's weights (those after cpt, where there are any)."""
    sft: str
    """SHA-256 of the sft adapter's weights."""
    template: str
    """SHA-256 of the chat template."""
    max_tokens: int
    """Most tokens of prompt and answer in training."""
    members: Ensemble
    judge: Ensemble | None
    validation_pairs: int
    test_pairs: int
    version: int = VERSION


class MisrankedPair(Struct, frozen=True):
    """A held-out pair that was judged wrong, for people to read."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    """Centered and scaled, as learners get them."""
    rejected_score: float


class LengthBaseline(Struct, frozen=True):
    """A model that sees nothing but lengths, fitted on the training pairs."""

    weight: float
    """Natural log units a character; above 0 it prefers longer answers."""
    accuracy: Estimate
    log_loss: Estimate
    longer_wins: float | None
    """Share of the held-out pairs, those of equal length left out, in which the longer answer won."""
    correlation: float | None
    """Pearson's, of scores and characters over the held-out answers: how much the reward model itself looks at length."""


class Fit(Struct, frozen=True):
    """How one reward model was fitted. No clock is in it."""

    name: str
    seed: int
    steps: int
    planned_steps: int
    best_step: int
    validation_log_loss: float
    """Nats a pair, of the weights that were kept."""
    first_log_loss: float
    tokens: int
    trainable: int
    shared_prompts: bool


def fit(name: str, seed: int, result: TrainResult) -> Fit:
    """Return the record of one fit."""
    return Fit(
        name=name,
        seed=seed,
        steps=result.steps,
        planned_steps=result.planned_steps,
        best_step=result.best_step,
        validation_log_loss=result.best_loss,
        first_log_loss=result.first_loss,
        tokens=result.tokens,
        trainable=result.trainable,
        shared_prompts=result.shared_prompts,
    )


class RewardResults(Struct, frozen=True):
    """What lies in ``results.json``; shares are 0 to 1, losses nats a pair."""

    project: str
    seed: int
    confidence: float
    resamples: int
    available: list[int]
    """Pairs that preferences holds for train, validation and test; fewer are used where ``reward.max_pairs`` says so."""
    train_pairs: int
    """Of the members."""
    train_prompts: int
    test: RewardMeasurement
    """Held out from training and from choosing weights: the verdict rests on it."""
    validation: RewardMeasurement
    """Held out from training; the weights were chosen by it."""
    length_only: LengthBaseline
    gain_over_length: Estimate
    """Accuracy over that of lengths alone on the same test pairs."""
    judge: RewardMeasurement | None
    """The judge on the test pairs."""
    members_alone: list[Estimate]
    """Test accuracy of each member."""
    slices: list[Slice]
    worst: list[MisrankedPair]
    fits: list[Fit]
    verdict: RewardGateResult
    version: int = VERSION


class RewardAccuracies(Struct, frozen=True):
    """What evaluation reads of ``results.json``; the rest is for people."""

    judge: RewardMeasurement | None
    test: RewardMeasurement
    """Of the members, whom a policy learns from."""


def reliability(bins: Sequence[CalibrationBin]) -> str:
    """Return a line a bin: the mean chance of its predicted winners, the share that won, and how many pairs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["confidence", "accuracy", "low", "high", "pairs"])
    writer.writerows([item.confidence, item.accuracy, item.low, item.high, item.pairs] for item in bins)
    return out.getvalue()
