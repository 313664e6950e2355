"""From raw rewards of held-out answers to what is said of a reward model: centered, scaled, measured, compared, decided."""

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

WORST = 8
"""Held-out pairs that are shown, the most wrongly judged first."""
VALUES = 12
"""Most values of a field whose accuracy is shown apart."""

Raw = Sequence[Sequence[Sequence[float]]]
"""Of each member: of each bundle: raw rewards of its answers."""


@dataclass(frozen=True, slots=True)
class CenteredRewards:
    """Rewards of the pairs of one part, in their order: mean of the centered members, natural log units."""

    chosen: list[float]
    rejected: list[float]

    @property
    def differences(self) -> list[float]:
        """Better minus worse answer."""
        return [one - other for one, other in zip(self.chosen, self.rejected, strict=True)]


@dataclass(frozen=True, slots=True)
class EnsembleScores:
    """What one ensemble says of the held-out pairs."""

    centers: list[float]
    """Mean raw reward of each member on the answers of validation."""
    scale: float
    """Standard deviation of the mean of the centered members on the same answers."""
    validation: CenteredRewards
    test: CenteredRewards
    members: list[list[float]]
    """Differences of the test pairs of each member alone."""


@dataclass(frozen=True, slots=True)
class EvalContext:
    """Around the rewards: settings and pairs."""

    project: str
    seed: int
    gate: RewardGate
    available: list[int]
    """Pairs that preferences holds for train, validation and test."""
    train: Sequence[PreferencePair]
    """All of the part, the judge's with them: lengths are learned from all."""
    own: Sequence[PreferencePair]
    """Those of the members."""
    validation: Sequence[PreferencePair]
    test: Sequence[PreferencePair]


def center_and_combine(raw: Raw, validation: Sequence[PromptGroup], test: Sequence[PromptGroup]) -> EnsembleScores:
    """Center and combine ``raw``, whose bundles are those of validation, then those of test."""
    held = len(validation)
    found = [mean_std([reward for bundle in member[:held] for reward in bundle]).center for member in raw]
    centered = [
        [[reward - center for reward in bundle] for bundle in member] for member, center in zip(raw, found, strict=True)
    ]
    mean = [
        [sum(rewards) / len(raw) for rewards in zip(*answers, strict=True)] for answers in zip(*centered, strict=True)
    ]
    return EnsembleScores(
        centers=found,
        scale=mean_std([reward for bundle in mean[:held] for reward in bundle]).scale,
        validation=_pairs(mean[:held], validation),
        test=_pairs(mean[held:], test),
        members=[_pairs(member[held:], test).differences for member in centered],
    )


def _pairs(rewards: Sequence[Sequence[float]], bundles: Sequence[PromptGroup]) -> CenteredRewards:
    """Return rewards by pair instead of by bundle."""
    found: dict[int, tuple[float, float]] = {}
    for of, bundle in zip(rewards, bundles, strict=True):
        for duel in bundle.duels:
            found[duel.pair] = of[duel.chosen], of[duel.rejected]
    order = [found[number] for number in range(len(found))]
    return CenteredRewards([chosen for chosen, _ in order], [rejected for _, rejected in order])


def results(
    told: EvalContext, members: EnsembleScores, judge: EnsembleScores | None, fits: list[Fit], around: GateContext
) -> RewardResults:
    """Measure, compare with lengths alone, and decide."""
    how = measures.IntervalSettings(told.gate.confidence, told.gate.resamples, told.gate.bins, told.seed)
    prompts = [pair.prompt for pair in told.test]
    gaps = members.test.differences
    test = measures.measure(gaps, prompts, how)
    by_length, length = _lengths(told, gaps, prompts, how)
    gain = measures.accuracy_gain(gaps, by_length, prompts, how)
    return RewardResults(
        project=told.project,
        seed=told.seed,
        confidence=how.confidence,
        resamples=how.resamples,
        available=told.available,
        train_pairs=len(told.own),
        train_prompts=len({pair.prompt for pair in told.own}),
        test=test,
        validation=measures.measure(members.validation.differences, [pair.prompt for pair in told.validation], how),
        length_only=length,
        gain_over_length=gain,
        judge=measures.measure(judge.test.differences, prompts, how) if judge else None,
        members_alone=[measures.accuracy(one, prompts, how) for one in members.members],
        slices=measures.slices(
            gaps, prompts, [{"kind": pair.kind, **pair.fields} for pair in told.test], how, most=VALUES
        ),
        worst=_worst(told.test, members),
        fits=fits,
        verdict=reward_gate.decide(test, length.accuracy, gain, around),
    )


def _lengths(
    told: EvalContext, gaps: Sequence[float], prompts: Sequence[str], how: measures.IntervalSettings
) -> tuple[list[float], LengthBaseline]:
    """Return the predictions from lengths alone on the test pairs, and their accuracy."""
    weight = measures.fit_length([_longer(pair) for pair in told.train])
    longer = [_longer(pair) for pair in told.test]
    said = [weight * gap for gap in longer]
    found = measures.measure(said, prompts, how)
    unequal = [gap > 0 for gap in longer if gap]
    return said, LengthBaseline(
        weight=weight,
        accuracy=found.accuracy,
        log_loss=found.log_loss,
        longer_wins=sum(unequal) / len(unequal) if unequal else None,
        correlation=measures.correlation(gaps, longer),
    )


def text(answer: Sequence[Message]) -> str:
    """Return an answer for people and for counting characters."""
    return "\n".join(map(tool_calls.render_tool_calls, answer))


def _longer(pair: PreferencePair) -> int:
    return len(text(pair.chosen)) - len(text(pair.rejected))


def _worst(pairs: Sequence[PreferencePair], found: EnsembleScores) -> list[MisrankedPair]:
    """Return the pairs whose worse answer got the better reward, by how much."""
    gaps = found.test.differences
    order = sorted((place for place, gap in enumerate(gaps) if gap < 0), key=lambda place: gaps[place])
    return [
        MisrankedPair(
            id=pairs[place].id,
            prompt="\n".join(f"{turn.role}: {tool_calls.render_tool_calls(turn)}" for turn in pairs[place].messages),
            chosen=text(pairs[place].chosen),
            rejected=text(pairs[place].rejected),
            chosen_score=found.test.chosen[place] / found.scale,
            rejected_score=found.test.rejected[place] / found.scale,
        )
        for place in order[:WORST]
    ]
