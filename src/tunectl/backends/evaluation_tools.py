"""The libraries that an evaluation works with, put together once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tunectl.config.evaluate import Judge
from tunectl.config.profile import Profile
from tunectl.evaluation.generator import Opener
from tunectl.evaluation.judge import Asker
from tunectl.evaluation.prompts import Prompter
from tunectl.evaluation.scorer import Tools
from tunectl.training.rewards import RewardModel


class LoadReward(Protocol):
    """Loads the reward model that only evaluate reads."""

    def __call__(
        self, *, base: Path, sft: Path, reward: Path, part: Literal["members", "judge"], profile: Profile
    ) -> RewardModel:
        """The loaded model.

        Raises  ArtifactError where it belongs to another base, adapter or template.
        """


@dataclass(frozen=True)
class Backend:
    """Everything outside our own code; tests pass fakes."""

    open: Opener
    prompter: Callable[[Path, Path | None], Prompter]
    """Model folder and adapter folder to how prompts are rendered for them."""
    tools: Tools
    signature: str
    """How BLEU is computed."""
    refuse_bad_schema: Callable[[Mapping[str, Any], str], None]
    ask: Asker | None
    """The judge, where one is declared."""
    reward: LoadReward


def backend(profile: Profile, judge: Judge | None) -> Backend:
    """The libraries themselves: transformers for answers, sacrebleu and rouge-score for measures, bm25s for retrieval, httpx for the judge.

    Raises  UsageError where the judge's key is named but not set; MissingExtra for an absent library.
    """
    from tunectl.backends import hf_generate, json_schema, sacrebleu_scores
    from tunectl.backends.openai_judge import OpenAiJudge

    return Backend(
        open=hf_generate.opener(profile),
        prompter=prompter,
        tools=tools(),
        signature=sacrebleu_scores.bleu_signature(),
        refuse_bad_schema=json_schema.refuse_bad,
        ask=None if judge is None else OpenAiJudge(judge),
        reward=reward_model,
    )


def reward_model(
    *, base: Path, sft: Path, reward: Path, part: Literal["members", "judge"], profile: Profile
) -> RewardModel:
    """A reward model of ``reward`` on the SFT adapter; torch is loaded only where there is one."""
    from tunectl.backends import hf_reward

    return hf_reward.load(base=base, sft=sft, reward=reward, part=part, profile=profile)


def tools() -> Tools:
    """Scorers, retrieval and JSON Schema."""
    from tunectl.backends import bm25_search, json_schema, rouge_scores, sacrebleu_scores

    return Tools((sacrebleu_scores.statistics, rouge_scores.statistics), bm25_search.Bm25Index, json_schema.valid)


def prompter(folder: Path, adapter: Path | None) -> Prompter:
    """How prompts are rendered for a model, with the system text that its adapter was trained with."""
    from tunectl.chat import contract, template

    declared = contract.load(adapter or folder)
    return Prompter(template.load(folder, system=declared.system), declared.end_of_turn.text)
