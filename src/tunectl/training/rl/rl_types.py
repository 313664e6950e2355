"""Types of preference learning: inputs and results, independent of the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from msgspec import Struct
from msgspec import field as json_field

from tunectl.artifacts.records import Message
from tunectl.config.schema.align import Dpo, Grpo, Kto, Rloo
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.training.rl.preference_batches import LabeledCompletions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tunectl.stats.bootstrap import Combine


@dataclass(frozen=True, slots=True)
class RlArgs:
    """Arguments of preference training; see ``config.schema.align`` for each value."""

    settings: Rloo | Grpo | Dpo | Kto
    seed: int
    profile: HardwareProfile
    project: str
    """Name of the run in trackers."""
    label: str = field(default="align", init=False)
    """Label of the progress bar."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One input of preference learning: its conversation, and the text and tokens that the chat template renders."""

    id: str
    messages: tuple[Message, ...]
    """The conversation without the model's default system text."""
    text: str
    """Text as the model reads it, with the system text, up to where the answer begins."""
    ids: tuple[int, ...]
    """Tokens of ``text``."""
    references: tuple[str, ...]
    fields: Mapping[str, str]
    tools: Sequence[dict[str, Any]] = ()
    """Tools that the model may call."""
    cluster: str = ""
    """Prompts of one cluster (near duplicates, or one group of the split) are resampled together; empty: it is in none."""

    @property
    def last_message(self) -> str:
        """The last turn of the input, for checks and reports."""
        return self.messages[-1].content if self.messages else ""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer that the policy generated."""

    ids: tuple[int, ...]
    """Tokens, including the end of turn if there is one."""
    text: str
    """Without special tokens, stripped."""
    finished: bool
    """Whether it ended its turn before the limit."""


class RewardBreakdown(NamedTuple):
    """Reward of one answer: the total, and the value of each term."""

    total: float
    """Weighted sum of the terms."""
    parts: Mapping[str, float]
    """Value of each term before normalizing, clipping and weighting."""


class Rewards(Protocol):
    """Computes the rewards that ``align.rewards`` declares for generated answers."""

    def score(
        self, prompts: Sequence[Prompt], answers: Sequence[Completion], *, fixed: bool = False
    ) -> list[RewardBreakdown]:
        """Return one reward per answer (NaN where it was cut); ``prompts`` has the prompt of each.

        ``fixed`` skips the normalization over the answers of a step, so that validations are comparable.
        """


class ValidationScorer(Protocol):
    """Scores validation answers by a metric that is not in the reward, to detect reward hacking."""

    @property
    def name(self) -> str:
        """Name of the metric, for example ``chrf``."""

    @property
    def combine(self) -> Combine:
        """Function that turns summed statistics, shape (..., statistics), into metric values from 0 to 100, shape (...)."""

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> NDArray[Any]:
        """Return sufficient statistics, shape (answers, statistics); ``prompts`` has the prompt of each answer."""


@dataclass(frozen=True, slots=True)
class PolicyData:
    """Inputs and judgments that a PolicyTrainer trains and validates on."""

    prompts: Sequence[Prompt]
    """Inputs for which answers are generated (rloo, grpo); empty for the others."""
    judged: Sequence[LabeledCompletions]
    """Judgments of the training part (dpo, kto), from ``preference_batches.build_rows``; empty for the others."""
    held_out: Sequence[LabeledCompletions]
    """Judgments of the validation part (dpo, kto); may be empty."""
    validation: Sequence[Prompt]
    """Validation inputs, always the same."""


@dataclass(frozen=True, slots=True)
class RewardFunctions:
    """The reward that a policy is trained with, and the independent metric of its validation."""

    rewards: Rewards | None
    """None without rewards (dpo, kto): the reward is then the method's own, beta times the log-ratio to sft."""
    measure: ValidationScorer


class StepMetrics(Struct, frozen=True):
    """Metrics of one training step; None where the method does not have one."""

    step: int
    loss: float
    learning_rate: float
    reward: float | None
    """Mean total of the step's answers; for dpo and kto the margin of chosen over rejected (nats, times beta)."""
    reward_spread: float | None
    """Standard deviation of totals among the answers of one prompt, mean over prompts."""
    kl: float | None
    """Nats per answer between policy and sft, mean over the step's answers."""
    length: float | None
    """Tokens per answer, mean."""
    truncated: float | None
    """Share of answers that were cut."""
    seconds: float
    """Seconds of this step."""
    completions_crc32: str | None = None
    """CRC-32 of the tokens of all answers of the step: it shows the first step in which two runs differ."""


class ValidationPoint(Struct, frozen=True):
    """Metrics of one validation: greedy answers to the validation inputs, compared with those before the first step."""

    step: int
    reward: float
    """Mean total; for dpo and kto the mean reward of the method itself on greedy answers."""
    reward_low: float | None
    """Lower end of the paired interval of the change of the mean reward since step 0, added to its value then; None where too few
    answers have a reward for an interval."""
    reward_high: float | None
    metric: float
    """The independent metric, 0 to 100."""
    metric_change: float
    """Change since step 0, points."""
    metric_low: float
    """Lower end of its paired interval."""
    metric_high: float
    kl: float
    """Nats per answer between policy and sft: KL of their distributions at each token of the greedy answers, summed; 0 or more."""
    length: float
    """Tokens per answer, mean."""
    repetition: float
    """Share of repeated runs of three words, mean, 0 to 1."""
    spread: float
    """Standard deviation of the reward over the inputs."""
    truncated: float
    """Share of answers that were cut."""
    within: bool
    """Whether the metric is within the declared tolerance of its first value."""
    held_out_loss: float | None = None
    """Loss of the method on the judgments of validation (dpo, kto)."""
    held_out_accuracy: float | None = None
    """Share of the validation pairs, 0 to 1, whose chosen answer the policy has raised above the rejected one (dpo, kto on pairs)."""


class Sample(Struct, frozen=True):
    """One line of ``samples.jsonl``: the answer to one validation input at one step."""

    step: int
    id: str
    prompt: str = json_field(name="question")
    answer: str
    reward: float | None
    """None where the answer was cut."""
    parts: dict[str, float]
    references: list[str]


@dataclass(frozen=True, slots=True)
class RlResult:
    """Result of a PolicyTrainer's ``fit``: steps, curves, validations and sampled answers."""

    steps: int
    """Steps done; fewer than planned where it stopped early."""
    planned_steps: int
    best_step: int
    """Step whose weights were kept; 0: those of sft."""
    stopped: str | None
    """Why it stopped early, as a sentence; None where it did not."""
    answers: int
    """Number of answers or pairs in training, over all steps."""
    seconds: Mapping[str, float]
    """Seconds by kind of work: generate, reward, reference, learn; and validation beside them. Over all parts of an
    interrupted run."""
    trainable: int
    """Number of the adapter's weights."""
    history: tuple[StepMetrics, ...]
    validation: tuple[ValidationPoint, ...]
    """The first one is before the first step."""
    samples: tuple[Sample, ...]


class PolicyTrainer(Protocol):
    """Trains the adapter of the sft stage further, on rewards or judgments; backends implement it with torch."""

    def fit(
        self, plan: RlArgs, *, model: Path, sft: Path, data: PolicyData, judges: RewardFunctions, out: Path, work: Path
    ) -> RlResult:
        """Train, write the adapter of the best validation to folder ``out``, and return curves and samples.

        ``model`` is a model folder, ``sft`` the adapter from which training starts and to which KL is measured.
        ``work`` is a folder that survives a kill: training resumes from the last complete checkpoint in it.
        """
