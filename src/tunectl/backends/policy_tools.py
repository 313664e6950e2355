"""What the align stage works with, put together once: trainers, reward model, checks, the independent measure, the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.config.align import CheckMeasure, CheckTerm, Dpo, Grpo, Kto, Measure, Rloo, ScoreMeasure
from tunectl.config.evaluate import Check, SchemaCheck
from tunectl.config.profile import Profile
from tunectl.evaluation import checks, measures
from tunectl.evaluation.scorer import TextScorer
from tunectl.training import policy
from tunectl.training.policy import Aligned, PolicyTrainer, Question
from tunectl.training.reward_terms import Checked
from tunectl.training.rewards import RewardModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

Settings = Rloo | Grpo | Dpo | Kto


@dataclass(frozen=True)
class PolicyTools:
    """Everything outside our own arithmetic; tests pass fakes."""

    trainer: Callable[[Settings], PolicyTrainer]
    reward: Callable[[Path, Path, Path, Profile], RewardModel]
    """Base, sft and reward folder, and the machine, to the members of the reward model."""
    checked: Checked
    measure: Callable[[Measure], policy.Measure]
    page: Callable[[str, Settings, Aligned], str]
    """Project, settings and run to the report."""


def tools() -> PolicyTools:
    """The libraries themselves."""
    return PolicyTools(_trainer, _reward, _checked, measure, _page)


def checks_of(settings: Settings) -> list[tuple[str, Check]]:
    """Every declared check with its place in the settings: those of the reward, and that of the independent measure."""
    found: list[tuple[str, Check]] = []
    if isinstance(settings, Rloo | Grpo):
        found += [
            (f"align.rewards.{term.check.name}", term.check) for term in settings.rewards if isinstance(term, CheckTerm)
        ]
    measure = settings.watch.measure
    return [*found, ("align.watch.measure", measure.check)] if isinstance(measure, CheckMeasure) else found


def refuse_bad_schemas(settings: Settings) -> None:
    """Before anything is loaded.

    Raises  ConfigError where a declared check is of a schema that is none.
    """
    from tunectl.backends import json_schema

    for place, check in checks_of(settings):
        if isinstance(check, SchemaCheck):
            json_schema.refuse_bad(check.document, f"{place}.document")


def _trainer(settings: Settings) -> PolicyTrainer:
    if isinstance(settings, Rloo | Grpo):
        from tunectl.backends.trl_policy import TrlPolicy

        return TrlPolicy()
    from tunectl.backends.trl_pairs import TrlPairs

    return TrlPairs()


def _reward(base: Path, sft: Path, reward: Path, profile: Profile) -> RewardModel:
    from tunectl.backends import hf_reward

    return hf_reward.load(base=base, sft=sft, reward=reward, part="members", profile=profile)


def _checked(check: Check, answer: str, question: str, fields: Mapping[str, str]) -> float | None:
    from tunectl.backends import json_schema

    return checks.score(check, answer, question, fields, json_schema.valid)


def measure(cfg: Measure) -> policy.Measure:
    """The independent measure as declared."""
    if isinstance(cfg, ScoreMeasure):
        from tunectl.backends import sacrebleu_scores

        return _Scored(cfg.name, measures.find(cfg.name).combine, sacrebleu_scores.statistics)
    return _Checked(f"check_{cfg.check.name}", measures.percentage, cfg.check)


@dataclass(frozen=True)
class _Scored:
    """BLEU or chrF against the references."""

    name: str
    combine: Callable[[NDArray[Any]], NDArray[Any]]
    scorer: TextScorer

    def __call__(self, questions: Sequence[Question], answers: Sequence[str]) -> NDArray[Any]:
        return self.scorer(answers, [asked.references for asked in questions])[self.name]


@dataclass(frozen=True)
class _Checked:
    """The share of a declared check."""

    name: str
    combine: Callable[[NDArray[Any]], NDArray[Any]]
    check: Check

    def __call__(self, questions: Sequence[Question], answers: Sequence[str]) -> NDArray[Any]:
        import numpy as np

        pairs = zip(questions, answers, strict=True)
        found = [_checked(self.check, answer, asked.words, asked.fields) for asked, answer in pairs]
        return np.asarray([(0, 0) if share is None else (share, 1) for share in found], dtype=np.float64)


def _page(project: str, settings: Settings, aligned: Aligned) -> str:
    from tunectl.backends import align_page

    return align_page.page(project=project, settings=settings, aligned=aligned)
