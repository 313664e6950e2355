"""Build what the align stage needs: trainers, reward model, checks, the independent metric, the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.backends.modeling.process_group import SINGLE, ProcessGroup
from tunectl.config.schema.align import CheckMeasure, CheckTerm, Grpo, Rloo, ScoreMeasure, ValidationMetric
from tunectl.config.schema.evaluate import Check, SchemaCheck
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.evaluation import declared_checks, metrics
from tunectl.evaluation.protocols import TextScorer
from tunectl.training.reward.protocols import RewardModel
from tunectl.training.rl import rl_types
from tunectl.training.rl.report import AlignSettings
from tunectl.training.rl.reward_functions import Checked, RewardFunction
from tunectl.training.rl.rl_types import PolicyTrainer, Prompt, RewardFunctions, RlResult

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class AlignBackend:
    """The libraries that the align stage calls; tests pass fakes."""

    trainer: Callable[[AlignSettings], PolicyTrainer]
    reward: Callable[[Path, Path, Path, HardwareProfile], RewardModel]
    """Loads the members of the reward model, from base, sft and reward folder, and the machine."""
    checked: Checked
    measure: Callable[[ValidationMetric], rl_types.ValidationScorer]
    page: Callable[[str, AlignSettings, RlResult], str]
    """Renders the report, from project, settings and run."""


def build_backend() -> AlignBackend:
    """Return the real libraries of the align stage."""
    return AlignBackend(build_trainer, _reward, _score_check, build_metric, _page)


def build_judges(settings: AlignSettings, tools: AlignBackend, model: RewardModel | None) -> RewardFunctions:
    """Return the rewards and the independent metric that ``settings`` declare; ``model`` is the loaded reward model, if one is needed."""
    rewards = None
    if isinstance(settings, Rloo | Grpo):
        rewards = RewardFunction(settings.rewards, checked=tools.checked, model=model)
    return RewardFunctions(rewards, tools.measure(settings.validation.metric))


def checks_of(settings: AlignSettings) -> list[tuple[str, Check]]:
    """Return (key in the settings, check) for each declared check, of the rewards and of the independent metric."""
    result: list[tuple[str, Check]] = []
    if isinstance(settings, Rloo | Grpo):
        result += [
            (f"align.rewards.{term.check.name}", term.check) for term in settings.rewards if isinstance(term, CheckTerm)
        ]
    measure = settings.validation.metric
    return [*result, ("align.validation.metric", measure.check)] if isinstance(measure, CheckMeasure) else result


def refuse_bad_schemas(settings: AlignSettings) -> None:
    """Refuse invalid JSON schemas before anything is loaded.

    Raises  ConfigError where a declared check has an invalid schema.
    """
    from tunectl.backends.text import json_validation

    for key, check in checks_of(settings):
        if isinstance(check, SchemaCheck):
            json_validation.check_schema(check.document, f"{key}.document")


def build_trainer(settings: AlignSettings, group: ProcessGroup = SINGLE) -> PolicyTrainer:
    """Return the trainer of the method that ``settings`` name, for the processes of ``group``."""
    if isinstance(settings, Rloo | Grpo):
        from tunectl.backends.trainers.online_rl import OnlineRlTrainer

        return OnlineRlTrainer(group)
    from tunectl.backends.trainers.dpo_kto import DpoKtoTrainer

    return DpoKtoTrainer(group)


def _reward(base: Path, sft: Path, reward: Path, profile: HardwareProfile) -> RewardModel:
    from tunectl.backends.modeling import reward_scorer

    return reward_scorer.load(base=base, sft=sft, reward=reward, part="members", profile=profile)


def _score_check(check: Check, answer: str, prompt: str, fields: Mapping[str, str]) -> float | None:
    from tunectl.backends.text import json_validation

    return declared_checks.score(check, answer, prompt, fields, json_validation.valid)


def build_metric(cfg: ValidationMetric) -> rl_types.ValidationScorer:
    """Return the metric of validation answers that ``cfg`` declares: BLEU, chrF, or a check."""
    if isinstance(cfg, ScoreMeasure):
        from tunectl.backends.text import scores

        return _ScoreMetric(cfg.name, metrics.get_metric(cfg.name).combine, scores.compute_bleu_and_chrf)
    return _CheckMetric(f"check_{cfg.check.name}", metrics.percentage, cfg.check)


@dataclass(frozen=True)
class _ScoreMetric:
    """BLEU or chrF of answers against the references."""

    name: str
    combine: Callable[[NDArray[Any]], NDArray[Any]]
    scorer: TextScorer

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> NDArray[Any]:
        return self.scorer(answers, [prompt.references for prompt in prompts])[self.name]


@dataclass(frozen=True)
class _CheckMetric:
    """The share of answers that pass a declared check."""

    name: str
    combine: Callable[[NDArray[Any]], NDArray[Any]]
    check: Check

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> NDArray[Any]:
        import numpy as np

        pairs = zip(prompts, answers, strict=True)
        result = [_score_check(self.check, answer, prompt.last_message, prompt.fields) for prompt, answer in pairs]
        return np.asarray([(0, 0) if share is None else (share, 1) for share in result], dtype=np.float64)


def _page(project: str, settings: AlignSettings, aligned: RlResult) -> str:
    from tunectl.backends.reports import align

    return align.page(project=project, settings=settings, aligned=aligned)
