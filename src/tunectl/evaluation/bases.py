"""Base models before anyone tunes: zero- and few-shot on the same validation inputs, with size, speed and licence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from tunectl.evaluation import compare, entry, measures, overlap, prompts, scoring
from tunectl.evaluation.entry import Asking
from tunectl.evaluation.generator import Generator
from tunectl.evaluation.items import Item
from tunectl.evaluation.prompts import ZERO_SHOT, Prompter, Shots
from tunectl.evaluation.results import Prompt, Score
from tunectl.evaluation.scorer import Tools


class Base(Struct, frozen=True):
    """One candidate."""

    name: str
    """As it was typed."""
    parameters: int
    megabytes: float
    """Of the weights, 10^6 bytes."""
    licence: str | None
    zero_shot: dict[str, Score]
    """Measure to value with interval, the input alone."""
    few_shot: dict[str, Score]
    """The same with ``shots`` examples of train before the input; empty where train has none or they do not fit."""
    tokens_per_second: float | None
    """Of zero-shot answers, in batches."""


class Bases(Struct, frozen=True):
    """The whole comparison; ``tunectl evaluate --bases ... --json`` prints it."""

    inputs: int
    """Validation inputs."""
    shots: int
    primary: str
    confidence: float
    bases: list[Base]
    """Best few-shot or zero-shot primary measure first."""


@dataclass(frozen=True)
class Trial:
    """What every candidate is asked, and how it is measured."""

    items: Sequence[Item]
    pool: Sequence[Item]
    shots: int
    asking: Asking
    tools: Tools
    primary: str
    references: int
    resamples: int
    confidence: float


def tried(
    trial: Trial, generator: Generator, prompter: Prompter
) -> tuple[dict[str, Score], dict[str, Score], float | None]:
    """Zero-shot scores, few-shot scores, and tokens a second of one loaded model."""
    zero = _answered(trial, generator, prompter, ZERO_SHOT)
    few = Prompt(None, min(trial.shots, len(trial.pool)), "random")
    found: dict[str, Score] = {}
    if few.shots and _fits(trial, generator, prompter, few):
        found = _scores(trial, _answered(trial, generator, prompter, few))
    return _scores(trial, zero), found, zero.cost.tokens_per_second if zero.cost else None


def _shots(trial: Trial) -> Shots:
    return Shots(trial.pool, None, trial.asking.seed)


def _fits(trial: Trial, generator: Generator, prompter: Prompter, prompt: Prompt) -> bool:
    rendered = prompts.ready(trial.items, prompt, _shots(trial), prompter, references=0).prompts
    limit = generator.context
    return limit is None or max(generator.lengths(rendered)) + trial.asking.how.max_new_tokens <= limit


def _answered(trial: Trial, generator: Generator, prompter: Prompter, prompt: Prompt) -> entry.Entry:
    rendered = prompts.ready(trial.items, prompt, _shots(trial), prompter, trial.references)
    return entry.answered("base", generator, rendered, prompt, trial.asking)


def _scores(trial: Trial, one: entry.Entry) -> dict[str, Score]:
    seen = overlap.seen_set(text for item in trial.pool for text in item.references)
    statistics = scoring.measure(
        trial.items, one.answers, one.replies, tools=trial.tools, declared=(), seen=seen, rules=None
    )
    plan = compare.resampling(
        [item.cluster for item in trial.items],
        resamples=trial.resamples,
        confidence=trial.confidence,
        seed=trial.asking.seed,
    )
    return compare.scores(statistics, plan)


def ranked(bases: Sequence[Base], primary: str) -> list[Base]:
    """The best first, by the better of zero- and few-shot."""

    def best(base: Base) -> float:
        return max(
            (scores[primary].value for scores in (base.zero_shot, base.few_shot) if primary in scores), default=0
        )

    return sorted(bases, key=lambda base: (-best(base), base.name))


def table(found: Bases) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for a terminal."""
    title = measures.find(found.primary).title
    columns = [
        "base", f"{title} zero-shot", f"{title} {found.shots}-shot", "perplexity", "tokens/s", "parameters", "MB", "licence",
    ]  # fmt: skip
    rows = [
        [
            base.name,
            _shown(base.zero_shot.get(found.primary)),
            _shown(base.few_shot.get(found.primary)),
            f"{base.zero_shot['perplexity'].value:.2f}" if "perplexity" in base.zero_shot else "-",
            "-" if base.tokens_per_second is None else f"{base.tokens_per_second:.0f}",
            f"{base.parameters / 1e6:.0f} M" if base.parameters >= 1e6 else str(base.parameters),
            f"{base.megabytes:.0f}",
            base.licence or "not stated",
        ]
        for base in found.bases
    ]
    return columns, rows


def _shown(score: Score | None) -> str:
    if score is None:
        return "-"
    return (
        f"{score.value:.1f}"
        if score.low is None or score.high is None
        else f"{score.value:.1f} ({score.low:.1f} to {score.high:.1f})"
    )
