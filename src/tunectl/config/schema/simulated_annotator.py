"""Criteria of a simulated annotator: weighted scores of an answer, given its input and the fields of the example."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.evaluate import Sampling
from tunectl.core.pattern_ambiguity import validate_pattern

CriterionName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Annotator = Annotated[str, Field(pattern=r"(?i)simulated", max_length=60)]
"""The name must show that it is no person."""


class BaseCriterion(StrictModel):
    """Settings that every criterion of a simulated annotator has."""

    name: CriterionName
    """Name, and tag of the judgments that it decided."""
    weight: float = Field(gt=0, le=1000)
    """Weight in the mean, in any unit."""


class FactsCriterion(BaseCriterion):
    """Criterion: the share of the input's facts that the answer contains."""

    method: Literal["facts"]
    """Name of this choice."""
    fields: tuple[str, ...]
    """Fields of the example whose values are facts."""
    pattern: str | None
    """Each match in the input is a fact: its first group, or all of it. Null: fields only."""
    ignore_case: bool
    """Whether case is ignored: ``Inman Park`` then matches ``inman park``."""
    first_words: int | None = Field(ge=1)
    """Words from the start of the answer within which facts must occur. Null: anywhere."""

    @model_validator(mode="after")
    def _require_source(self) -> Self:
        if not self.fields and self.pattern is None:
            raise ValueError("fields is empty and pattern is null, so there are no facts to look for; set one of them")
        _compiles(self.pattern or "")
        return self


class PatternCriterion(BaseCriterion):
    """Criterion: a regular expression matches the answer a number of times within bounds."""

    method: Literal["pattern"]
    """Name of this choice."""
    pattern: str = Field(min_length=1)
    """Counted anywhere in the answer (Python ``re`` syntax)."""
    min_matches: int = Field(ge=0)
    """Fewest matches that pass; 0 with ``max_matches`` 0 forbids the pattern."""
    max_matches: int | None = Field(ge=0)
    """Most matches that pass. Null: any number."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        _compiles(self.pattern)
        _refuse_crossed(self.min_matches, self.max_matches)
        if self.min_matches == 0 and self.max_matches is None:
            raise ValueError("the minimum is 0 and the maximum is null, so every answer passes; bound one of them")
        return self


class WordsCriterion(BaseCriterion):
    """Criterion: the answer's number of words is within bounds."""

    method: Literal["words"]
    """Name of this choice."""
    min_words: int = Field(ge=0)
    """Fewest words that pass."""
    max_words: int | None = Field(ge=0)
    """Most words that pass. Null: any number."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        _refuse_crossed(self.min_words, self.max_words)
        return self


Criterion = Annotated[FactsCriterion | PatternCriterion | WordsCriterion, Field(discriminator="method")]


class SimulatedInputs(StrictModel):
    """Inputs of each split that are answered, drawn with the seed."""

    train: int = Field(ge=1)
    """Inputs to train on."""
    validation: int = Field(ge=1)
    """Inputs to decide when to stop."""
    test: int = Field(ge=1)
    """Inputs to measure on."""


class SimulatedAnnotator(StrictModel):
    """Simulated annotator: a rubric compares several answers of the tuned model to each input."""

    annotator: Annotator
    """Name of the annotator in all records; it must contain simulated."""
    inputs: SimulatedInputs
    """Which inputs are answered."""
    answers: int = Field(ge=2, le=32)
    """Answers to each input; every two of them that differ are compared."""
    max_pairs_per_input: int | None = Field(ge=1)
    """Judgments about one input at most, drawn with the seed. Null: all."""
    decoding: Sampling
    """How answers are sampled."""
    rubric: tuple[Criterion, ...] = Field(min_length=1)
    """Criteria of a good answer. Its score is their weighted mean, 0 to 1."""
    noise: float = Field(ge=0, le=1)
    """Standard deviation of seeded noise added to each score."""
    flip_rate: float = Field(ge=0, lt=0.5)
    """Share of judgments that are reversed, seeded."""
    tie_threshold: float = Field(ge=0, le=1)
    """Score difference up to which two answers are not judged."""

    @model_validator(mode="after")
    def _refuse_duplicates(self) -> Self:
        names = [item.name for item in self.rubric]
        if len(set(names)) < len(names):
            raise ValueError(f"rubric has two criteria of one name: {', '.join(names)}; rename one")
        return self


def _compiles(pattern: str) -> None:
    try:
        validate_pattern(pattern)
    except ValueError as error:
        raise ValueError(f"pattern {error}") from error


def _refuse_crossed(minimum: int, maximum: int | None) -> None:
    if maximum is not None and maximum < minimum:
        raise ValueError(
            f"the minimum is {minimum} and the maximum is {maximum}; no answer can pass, so raise the maximum"
        )
