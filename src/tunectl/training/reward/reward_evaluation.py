"""Evaluate reward models on held-out answers: center and scale raw rewards, measure, compare, decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunectl.artifacts.records import Message, PreferencePair
from tunectl.chat import tool_calls
from tunectl.config.schema.reward import RewardGate
from tunectl.training.reward import reward_gate
from tunectl.training.reward import reward_metrics as measures
from tunectl.training.reward.pair_batches import PromptGroup, mean_std
from tunectl.training.reward.reward_artifacts import Fit, LengthBaseline, MisrankedPair, RewardResults
from tunectl.training.reward.reward_gate import GateContext

MISRANKED_PAIRS = 8
"""Number of shown held-out pairs, the most wrongly ranked first."""
MAX_SLICE_VALUES = 12
"""Most values of a field for which accuracy is shown by value."""

Raw = Sequence[Sequence[Sequence[float]]]
"""Raw rewards of its answers, for each member and each bundle."""


@dataclass(frozen=True, slots=True)
class CenteredRewards:
    """Rewards of the pairs of one split, in their order: mean of the centered members, natural log units."""

    chosen: list[float]
    rejected: list[float]

    @property
    def differences(self) -> list[float]:
        """Reward of the chosen answer minus that of the rejected one, per pair."""
        return [item - other for item, other in zip(self.chosen, self.rejected, strict=True)]


@dataclass(frozen=True, slots=True)
class EnsembleScores:
    """Centers and scale of one ensemble, and its rewards on the held-out pairs."""

    centers: list[float]
    """Mean raw reward of each member on the answers of validation."""
    scale: float
    """Standard deviation of the mean of the centered members on the same answers."""
    validation: CenteredRewards
    test: CenteredRewards
    members: list[list[float]]
    """Differences of the test pairs by each member alone."""


@dataclass(frozen=True, slots=True)
class EvalContext:
    """Settings of the gate, and the preference pairs of every split, for ``results``."""

    project: str
    seed: int
    gate: RewardGate
    available: list[int]
    """Number of pairs in preferences for train, validation and test."""
    train: Sequence[PreferencePair]
    """All training pairs, including the judge's: the length model is fitted to all."""
    own: Sequence[PreferencePair]
    """Training pairs of the members."""
    validation: Sequence[PreferencePair]
    test: Sequence[PreferencePair]


def center_and_combine(raw: Raw, validation: Sequence[PromptGroup], test: Sequence[PromptGroup]) -> EnsembleScores:
    """Return the centered mean reward of an ensemble per pair; ``raw`` is (member, group, answer), validation groups first, then test."""
    validation_count = len(validation)
    result = [mean_std([reward for bundle in member[:validation_count] for reward in bundle]).center for member in raw]
    centered = [
        [[reward - center for reward in bundle] for bundle in member]
        for member, center in zip(raw, result, strict=True)
    ]
    mean = [
        [sum(rewards) / len(raw) for rewards in zip(*answers, strict=True)] for answers in zip(*centered, strict=True)
    ]
    return EnsembleScores(
        centers=result,
        scale=mean_std([reward for bundle in mean[:validation_count] for reward in bundle]).scale,
        validation=_pairs(mean[:validation_count], validation),
        test=_pairs(mean[validation_count:], test),
        members=[_pairs(member[validation_count:], test).differences for member in centered],
    )


def _pairs(rewards: Sequence[Sequence[float]], bundles: Sequence[PromptGroup]) -> CenteredRewards:
    """Return rewards by pair, converted from rewards by bundle."""
    result: dict[int, tuple[float, float]] = {}
    for of, bundle in zip(rewards, bundles, strict=True):
        for pair in bundle.pairs:
            result[pair.pair] = of[pair.chosen], of[pair.rejected]
    order = [result[number] for number in range(len(result))]
    return CenteredRewards([chosen for chosen, _ in order], [rejected for _, rejected in order])


def results(
    context: EvalContext,
    members: EnsembleScores,
    judge: EnsembleScores | None,
    fits: list[Fit],
    gate_context: GateContext,
) -> RewardResults:
    """Return the content of ``results.json``: rewards measured on test pairs, compared with lengths alone, and the gate's verdict."""
    settings = measures.IntervalSettings(
        context.gate.confidence, context.gate.resamples, context.gate.bins, context.seed
    )
    prompts = [pair.prompt for pair in context.test]
    gaps = members.test.differences
    test = measures.measure(gaps, prompts, settings)
    by_length, length = _lengths(context, gaps, prompts, settings)
    gain = measures.accuracy_gain(gaps, by_length, prompts, settings)
    return RewardResults(
        project=context.project,
        seed=context.seed,
        confidence=settings.confidence,
        resamples=settings.resamples,
        available=context.available,
        train_pairs=len(context.own),
        train_prompts=len({pair.prompt for pair in context.own}),
        test=test,
        validation=measures.measure(
            members.validation.differences, [pair.prompt for pair in context.validation], settings
        ),
        length_only=length,
        gain_over_length=gain,
        judge=measures.measure(judge.test.differences, prompts, settings) if judge else None,
        members_alone=[measures.accuracy(member, prompts, settings) for member in members.members],
        slices=measures.slices(
            gaps,
            prompts,
            [{"kind": pair.kind, **pair.fields} for pair in context.test],
            settings,
            most=MAX_SLICE_VALUES,
        ),
        worst=_worst(context.test, members),
        fits=fits,
        verdict=reward_gate.decide(test, length.accuracy, gain, gate_context),
    )


def _lengths(
    context: EvalContext, gaps: Sequence[float], prompts: Sequence[str], settings: measures.IntervalSettings
) -> tuple[list[float], LengthBaseline]:
    """Return the predictions from lengths alone on the test pairs, and their accuracy."""
    weight = measures.fit_length([_longer(pair) for pair in context.train])
    longer = [_longer(pair) for pair in context.test]
    predictions = [weight * gap for gap in longer]
    result = measures.measure(predictions, prompts, settings)
    unequal = [gap > 0 for gap in longer if gap]
    return predictions, LengthBaseline(
        weight=weight,
        accuracy=result.accuracy,
        log_loss=result.log_loss,
        longer_wins=sum(unequal) / len(unequal) if unequal else None,
        correlation=measures.correlation(gaps, longer),
    )


def text(answer: Sequence[Message]) -> str:
    """Return the text of an answer, tool calls included, for people and for counting characters."""
    return "\n".join(map(tool_calls.render_tool_calls, answer))


def _longer(pair: PreferencePair) -> int:
    return len(text(pair.chosen)) - len(text(pair.rejected))


def _worst(pairs: Sequence[PreferencePair], scores: EnsembleScores) -> list[MisrankedPair]:
    """Return the pairs whose worse answer got the better reward, and by how much."""
    gaps = scores.test.differences
    order = sorted((index for index, gap in enumerate(gaps) if gap < 0), key=lambda index: gaps[index])
    return [
        MisrankedPair(
            id=pairs[index].id,
            prompt="\n".join(f"{turn.role}: {tool_calls.render_tool_calls(turn)}" for turn in pairs[index].messages),
            chosen=text(pairs[index].chosen),
            rejected=text(pairs[index].rejected),
            chosen_score=scores.test.chosen[index] / scores.scale,
            rejected_score=scores.test.rejected[index] / scores.scale,
        )
        for index in order[:MISRANKED_PAIRS]
    ]
