"""Compare base models before training: zero- and few-shot on the same validation inputs, with size, speed and license."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from tunectl.evaluation import few_shot, metrics, paired_comparison, scoring, system, train_overlap
from tunectl.evaluation.few_shot import ZERO_SHOT, FewShotRenderer, FewShotSampler
from tunectl.evaluation.items import Item
from tunectl.evaluation.protocols import Generator, MetricBackends
from tunectl.evaluation.results import PromptDescription, Score
from tunectl.evaluation.system import GenerationSettings


class BaseModelResult(Struct, frozen=True):
    """Scores, size, license and speed of one base model of ``tunectl evaluate --bases``."""

    name: str
    """Name as typed."""
    parameters: int
    megabytes: float
    """Size of the weights, 10^6 bytes."""
    license: str | None
    zero_shot: dict[str, Score]
    """Score by metric with interval, with the input alone."""
    few_shot: dict[str, Score]
    """Score by metric with interval, with ``shots`` examples of train before the input; empty where train has none or they are too long."""
    tokens_per_second: float | None
    """Speed of zero-shot answers, in batches."""


class Bases(Struct, frozen=True):
    """Results of all base models; ``tunectl evaluate --bases ... --json`` prints it."""

    inputs: int
    """Number of validation inputs that every base model answered."""
    skipped: dict[str, int]
    """Validation inputs that a base model cannot be asked, by reason."""
    shots: int
    primary: str
    confidence: float
    bases: list[BaseModelResult]
    """Candidates by the better of few-shot and zero-shot primary metric, best first."""


@dataclass(frozen=True)
class BaseEvalSetup:
    """Inputs, few-shot examples, decoding and metrics, the same for every base model."""

    items: Sequence[Item]
    skipped: dict[str, int]
    """Validation inputs that are not in ``items``, by reason."""
    pool: Sequence[Item]
    shots: int
    asking: GenerationSettings
    tools: MetricBackends
    primary: str
    references: int
    resamples: int
    confidence: float


def evaluate_base(
    setup: BaseEvalSetup, generator: Generator, prompter: FewShotRenderer
) -> tuple[dict[str, Score], dict[str, Score], float | None]:
    """Return (zero-shot scores, few-shot scores, tokens per second) of one loaded model; scores by metric.

    Few-shot scores are empty without examples, or where the prompts exceed the model's context; tokens per second are None where no time was measured.
    """
    zero = _generate_answers(setup, generator, prompter, ZERO_SHOT)
    few = PromptDescription(None, min(setup.shots, len(setup.pool)), "random")
    scores: dict[str, Score] = {}
    if few.shots and _fits(setup, generator, prompter, few):
        scores = _scores(setup, _generate_answers(setup, generator, prompter, few))
    return _scores(setup, zero), scores, zero.cost.tokens_per_second if zero.cost else None


def _shots(setup: BaseEvalSetup) -> FewShotSampler:
    return FewShotSampler(setup.pool, None, setup.asking.seed)


def _fits(setup: BaseEvalSetup, generator: Generator, prompter: FewShotRenderer, prompt: PromptDescription) -> bool:
    rendered = few_shot.render_items(setup.items, prompt, _shots(setup), prompter, references=0).prompts
    limit = generator.context
    return limit is None or max(generator.lengths(rendered)) + setup.asking.how.max_new_tokens <= limit


def _generate_answers(
    setup: BaseEvalSetup, generator: Generator, prompter: FewShotRenderer, prompt: PromptDescription
) -> system.SystemResult:
    rendered = few_shot.render_items(setup.items, prompt, _shots(setup), prompter, setup.references)
    return system.generate_answers("base", generator, rendered, prompt, setup.asking)


def _scores(setup: BaseEvalSetup, result: system.SystemResult) -> dict[str, Score]:
    grams = train_overlap.train_ngrams(text for item in setup.pool for text in item.references)
    statistics = scoring.compute_statistics(
        setup.items, result.answers, result.replies, tools=setup.tools, declared=(), train_grams=grams, rules=None
    )
    plan = paired_comparison.make_resampling(
        [item.cluster for item in setup.items],
        resamples=setup.resamples,
        confidence=setup.confidence,
        seed=setup.asking.seed,
    )
    return paired_comparison.scores(statistics, plan)


def rank(bases: Sequence[BaseModelResult], primary: str) -> list[BaseModelResult]:
    """Return ``bases`` with the best first, by the better of zero- and few-shot in the metric ``primary``."""

    def best(base: BaseModelResult) -> float:
        return max(
            (scores[primary].value for scores in (base.zero_shot, base.few_shot) if primary in scores), default=0
        )

    return sorted(bases, key=lambda base: (-best(base), base.name))


def format_table(bases: Bases) -> tuple[list[str], list[list[str]]]:
    """Return (column titles, rows) for a terminal: one row per base model with size, scores, speed and license."""
    title = metrics.get_metric(bases.primary).title
    columns = [
        "base", f"{title} zero-shot", f"{title} {bases.shots}-shot", "perplexity", "tokens/s", "parameters", "MB", "license",
    ]  # fmt: skip
    rows = [
        [
            base.name,
            _format_score(base.zero_shot.get(bases.primary)),
            _format_score(base.few_shot.get(bases.primary)),
            f"{base.zero_shot['perplexity'].value:.2f}" if "perplexity" in base.zero_shot else "-",
            "-" if base.tokens_per_second is None else f"{base.tokens_per_second:.0f}",
            f"{base.parameters / 1e6:.0f} M" if base.parameters >= 1e6 else str(base.parameters),
            f"{base.megabytes:.0f}",
            base.license or "not stated",
        ]
        for base in bases.bases
    ]
    return columns, rows


def _format_score(score: Score | None) -> str:
    if score is None:
        return "-"
    return (
        f"{score.value:.1f}"
        if score.low is None or score.high is None
        else f"{score.value:.1f} ({score.low:.1f} to {score.high:.1f})"
    )
