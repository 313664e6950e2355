"""Build the libraries that an evaluation needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.evaluate import LlmJudge
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.evaluation.few_shot import FewShotRenderer
from tunectl.evaluation.llm_judge import JudgeClient
from tunectl.evaluation.protocols import MetricBackends, ModelLoader, TokenCounter
from tunectl.training.reward.protocols import RewardModel


class LoadReward(Protocol):
    """Function that loads the reward model that only evaluate uses, for win rates (``reward.evaluation_model``)."""

    def __call__(
        self, *, base: Path, sft: Path, reward: Path, part: Literal["members", "judge"], profile: HardwareProfile
    ) -> RewardModel:
        """Return the loaded model.

        Raises  ArtifactError where it belongs to another base, adapter or template.
        """


@dataclass(frozen=True)
class EvaluationBackend:
    """The libraries that an evaluation calls; tests pass fakes."""

    open: ModelLoader
    prompter: Callable[[Path, Path | None], FewShotRenderer]
    """Returns how prompts are rendered for a model folder and an adapter folder."""
    tools: MetricBackends
    signature: str
    """Description of how BLEU is computed."""
    refuse_bad_schema: Callable[[Mapping[str, Any], str], None]
    ask: JudgeClient | None
    """The LLM judge, where one is declared."""
    reward: LoadReward


def build_backend(profile: HardwareProfile, judge: LlmJudge | None) -> EvaluationBackend:
    """Return the real libraries: transformers for answers, sacrebleu and rouge-score for metrics, bm25s for retrieval, httpx for the judge.

    Raises  UsageError where the judge's key is named but not set; MissingExtraError for an absent library.
    """
    from tunectl.backends.modeling import generator
    from tunectl.backends.text import json_validation, scores
    from tunectl.backends.text.openai_client import OpenAiClient

    return EvaluationBackend(
        open=generator.model_loader(profile),
        prompter=prompter,
        tools=tools(),
        signature=scores.bleu_signature(),
        refuse_bad_schema=json_validation.check_schema,
        ask=None if judge is None else OpenAiClient(judge),
        reward=reward_model,
    )


def reward_model(
    *, base: Path, sft: Path, reward: Path, part: Literal["members", "judge"], profile: HardwareProfile
) -> RewardModel:
    """Return the reward model ``part`` of the artifact ``reward``, on the base with the adapter ``sft``."""
    from tunectl.backends.modeling import reward_scorer

    return reward_scorer.load(base=base, sft=sft, reward=reward, part=part, profile=profile)


def tools() -> MetricBackends:
    """Return the library functions that score answers: BLEU with chrF, ROUGE, similar examples by BM25, and whether JSON fits a schema."""
    from tunectl.backends.text import bm25, json_validation, scores

    return MetricBackends((scores.compute_bleu_and_chrf, scores.compute_rouge), bm25.Bm25Index, json_validation.valid)


def prompter(folder: Path, adapter: Path | None) -> FewShotRenderer:
    """Return a renderer of few-shot prompts for the model in ``folder``, with the system text with which ``adapter`` was trained."""
    from tunectl.chat import model_spec, template

    declared_spec = model_spec.load(adapter or folder)
    return FewShotRenderer(template.load(folder, system=declared_spec.system), declared_spec.eot_token.text)


@dataclass(frozen=True)
class FolderTokenCounter:
    """Counts tokens by the tokenizer of a model folder; the weights are not loaded (an ``evaluation.protocols.TokenCounter``)."""

    tokenizer: Tokenizer
    context: int | None

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each prompt; special tokens are in the text already."""
        return [len(encoded.ids) for encoded in self.tokenizer.encode(prompts)]


def token_counter(folder: Path) -> TokenCounter:
    """Return a counter of tokens for the model in ``folder``."""
    from tunectl.chat import model_spec

    return FolderTokenCounter(Tokenizer(folder), model_spec.load(folder).context)
