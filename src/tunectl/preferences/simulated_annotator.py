"""A simulated annotator: scores answers by weighted criteria, with declared noise, and names the criteria that decided."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from msgspec import Struct

from tunectl.artifacts.records import AnnotationMetadata, Choice, Comparison, Example, Message
from tunectl.config.schema.simulated_annotator import Criterion, FactsCriterion, PatternCriterion, SimulatedAnnotator
from tunectl.core.declared_pattern import DeclaredPattern
from tunectl.core.hashing import hash_to_bytes

KIND = "simulated"
"""The ``kind`` of such judgments."""


class SampledAnswers(Struct, frozen=True):
    """One input and the answers that were sampled for it."""

    example: Example
    prompt: str
    """Digest that equal inputs share."""
    answers: list[str]


class AnnotationSummary(Struct, frozen=True):
    """Counts of a simulated annotator's judgments, for ``report.json``."""

    annotator: str
    inputs: int
    answers: int
    unusable: int
    """Number of answers that were empty, or equal to an earlier one to this input."""
    compared: int
    ties: int
    """Number of comparisons with too small a difference: not judged."""
    judged: int
    turned: int
    """Number of judgments that were reversed by the declared flip rate."""
    scores: dict[str, float]
    """Mean of each criterion over all usable answers, 0 to 1; where it is near 0 or 1 it rarely distinguishes answers."""


@dataclass(frozen=True, slots=True)
class RubricScore:
    """Score of one answer by the weighted criteria of a simulated annotator."""

    parts: Mapping[str, float]
    """Score of each criterion, 0 to 1; without those that do not apply to the input."""
    total: float
    """Weighted mean, 0 to 1."""


def score(rubric: Sequence[Criterion], answer: str, question: str, fields: Mapping[str, str]) -> RubricScore:
    """Return the score of ``answer`` to the input ``question``; criteria about facts that the input does not have are left out.

    ``fields`` are the input's attributes.
    """
    parts = {item.name: value for item in rubric if (value := _one(item, answer, question, fields)) is not None}
    weights = {item.name: item.weight for item in rubric if item.name in parts}
    total = sum(weights.values())
    return RubricScore(parts, sum(parts[name] * weight for name, weight in weights.items()) / total if total else 0.0)


def _one(criterion: Criterion, answer: str, question: str, fields: Mapping[str, str]) -> float | None:
    if isinstance(criterion, FactsCriterion):
        return _facts(criterion, answer, question, fields)
    if isinstance(criterion, PatternCriterion):
        count, least, most = (
            len(DeclaredPattern(criterion.pattern).find_all(answer)),
            criterion.min_matches,
            criterion.max_matches,
        )
    else:
        count, least, most = len(answer.split()), criterion.min_words, criterion.max_words
    return float(least <= count and (most is None or count <= most))


def _facts(criterion: FactsCriterion, answer: str, question: str, fields: Mapping[str, str]) -> float | None:
    values = [fields[name] for name in criterion.fields if fields.get(name, "").strip()]
    if criterion.pattern is not None:
        values += [
            match.group(1 if match.re.groups else 0) or ""
            for match in DeclaredPattern(criterion.pattern).find_all(question)
        ]
    facts = list(dict.fromkeys(text for fact in values if (text := " ".join(fact.split()))))
    if not facts:
        return None
    beginning = " ".join(answer.split()[: criterion.first_words])
    if criterion.ignore_case:
        beginning, facts = beginning.casefold(), [fact.casefold() for fact in facts]
    return sum(fact in beginning for fact in facts) / len(facts)


def annotate(
    sampled: Sequence[SampledAnswers], rules: SimulatedAnnotator, seed: int
) -> tuple[list[Comparison], AnnotationSummary]:
    """Return a judgment on every two different answers to one input, and the counts; they depend on ``seed`` and the texts only."""
    comparisons: list[Comparison] = []
    counts = {"unusable": 0, "compared": 0, "ties": 0, "turned": 0}
    parts: dict[str, list[float]] = {entry.name: [] for entry in rules.rubric}
    for item in sampled:
        texts = list(dict.fromkeys(text.strip() for text in item.answers if text.strip()))
        counts["unusable"] += len(item.answers) - len(texts)
        question = item.example.messages[-1].content
        scored = {text: score(rules.rubric, text, question, item.example.fields) for text in texts}
        for one in scored.values():
            for name, value in one.parts.items():
                parts[name].append(value)
        for first, second in _sample_pairs(texts, rules.max_pairs_per_input, f"{seed} {item.prompt}"):
            counts["compared"] += 1
            rng = random.Random(f"{seed} {item.prompt} {first} {second}")  # noqa: S311  (no secret)
            result = _choose(scored[first], scored[second], rules, rng)
            if result is None:
                counts["ties"] += 1
                continue
            choice, tags, is_flipped = result
            counts["turned"] += is_flipped
            comparisons.append(_judgment(item, (first, second), choice, tags, rng.randrange(2), rules.annotator))
    return comparisons, AnnotationSummary(
        annotator=rules.annotator,
        inputs=len(sampled),
        answers=sum(len(item.answers) for item in sampled),
        judged=len(comparisons),
        scores={name: round(sum(values) / len(values), 4) for name, values in parts.items() if values},
        **counts,
    )


def _sample_pairs(texts: Sequence[str], maximum: int | None, seed: str) -> list[tuple[str, str]]:
    every = list(combinations(texts, 2))
    return every if maximum is None or len(every) <= maximum else random.Random(seed).sample(every, maximum)  # noqa: S311


def _choose(
    first: RubricScore, second: RubricScore, rules: SimulatedAnnotator, rng: random.Random
) -> tuple[Choice, list[str], bool] | None:
    """Return the choice, the criteria for it, and whether it is an error; None where the difference is too small."""
    gap = first.total - second.total + rng.gauss(0, rules.noise) - rng.gauss(0, rules.noise)
    is_flipped = rng.random() < rules.flip_rate
    if abs(gap) <= rules.tie_threshold:
        return None
    better, worse = (first, second) if (gap > 0) != is_flipped else (second, first)
    tags = [name for name, value in better.parts.items() if value > worse.parts[name]]
    return ("first" if better is first else "second"), tags, is_flipped


def _judgment(
    item: SampledAnswers, texts: tuple[str, str], choice: Choice, tags: list[str], left: int, annotator: str
) -> Comparison:
    name = hash_to_bytes("\0".join((annotator, item.prompt, *texts))).hex()
    return Comparison(
        id=f"j-{name}",
        prompt=item.prompt,
        messages=item.example.messages,
        answers=[[Message("assistant", text)] for text in texts],
        choice=choice,
        annotation=AnnotationMetadata(item.example.source, annotator, tags=tags),
        kind=KIND,
        fields=item.example.fields,
        left=left,
        systems=["sft", "sft"],
        tools=item.example.tools,
    )
