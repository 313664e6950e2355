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
    """How the reward models of one ensemble become one score: their weights files, centers and scale."""

    seeds: list[int]
    """Seeds, one per member."""
    weights: list[str]
    """SHA-256 of each member's adapter_model.safetensors."""
    centers: list[float]
    """Mean raw reward of each member on the answers of validation."""
    scale: float
    """Standard deviation of the mean of the centered members, same answers."""
    pairs: int
    """Number of training pairs."""
    prompts: int


class RewardFacts(Struct, frozen=True):
    """Content of ``reward.json``: the models that the weights belong to, and how raw rewards become scores."""

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
    """A held-out pair whose rejected answer got the higher score, for people to read."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    """Centered and scaled score, as used in training."""
    rejected_score: float


class LengthBaseline(Struct, frozen=True):
    """Metrics of a logistic model that sees only the answers' lengths, fitted to the training pairs."""

    weight: float
    """Natural log units per character; above 0 it prefers longer answers."""
    accuracy: Estimate
    log_loss: Estimate
    longer_wins: float | None
    """Share of the held-out pairs, those of equal length left out, in which the longer answer won."""
    correlation: float | None
    """Pearson correlation of scores and characters over the held-out answers: how much the reward model depends on length."""


class Fit(Struct, frozen=True):
    """Record of the training of one reward model in ``results.json``. It contains no time."""

    name: str
    seed: int
    steps: int
    planned_steps: int
    best_step: int
    validation_log_loss: float
    """Nats per pair, of the kept weights."""
    first_log_loss: float
    tokens: int
    trainable: int
    shared_prompts: bool


def fit(name: str, seed: int, result: TrainResult) -> Fit:
    """Return the record of the training of the reward model called ``name``."""
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
    """Content of the reward stage's ``results.json``; shares are 0 to 1, losses nats per pair."""

    project: str
    seed: int
    confidence: float
    resamples: int
    available: list[int]
    """Number of pairs in preferences for train, validation and test; fewer are used with ``reward.max_pairs``."""
    train_pairs: int
    """Number of training pairs of the members."""
    train_prompts: int
    test: RewardMeasurement
    """On pairs held out from training and from choosing weights: the verdict uses it."""
    validation: RewardMeasurement
    """On pairs held out from training; the weights were chosen by it."""
    length_only: LengthBaseline
    gain_over_length: Estimate
    """Accuracy minus that of lengths alone on the same test pairs."""
    judge: RewardMeasurement | None
    """Results of the judge on the test pairs."""
    members_alone: list[Estimate]
    """Test accuracy of each member."""
    slices: list[Slice]
    worst: list[MisrankedPair]
    fits: list[Fit]
    verdict: RewardGateResult
    version: int = VERSION


class RewardAccuracies(Struct, frozen=True):
    """The keys of the reward stage's ``results.json`` that the evaluate stage reads."""

    judge: RewardMeasurement | None
    test: RewardMeasurement
    """Results of the members, which reward the policy."""


def reliability(bins: Sequence[CalibrationBin]) -> str:
    """Return the calibration bins as text, one line each: mean probability of its predicted winners, share of right ones, number of pairs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["confidence", "accuracy", "low", "high", "pairs"])
    writer.writerows([item.confidence, item.accuracy, item.low, item.high, item.pairs] for item in bins)
    return out.getvalue()
