"""The split section: train, validation and test, leakage check, and the population to represent."""

from __future__ import annotations

from math import isclose
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tunectl.config.schema.base import Share, StrictModel

GroupName = Annotated[str, Field(min_length=1)]


class Shares(StrictModel):
    """Shares of records in train, validation and test; they sum to 1."""

    train: float = Field(gt=0, lt=1)
    """Share of records to train on."""
    validation: float = Field(gt=0, lt=1)
    """Share of records that decide when to stop, and which prompt the base model gets."""
    test: float = Field(gt=0, lt=1)
    """Share of records that only evaluate uses."""

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        total = self.train + self.validation + self.test
        if not isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(
                f"train {self.train:g} + validation {self.validation:g} + test {self.test:g} is {total:g}; must be 1"
            )
        return self


class HoldOut(StrictModel):
    """Values of one field that are held out: they occur in validation or test only, every other value in train only.

    A record in another split than its value allows is rejected as ``held_out_value``. A group whose values all belong
    to one split goes there.
    """

    validation: list[str]
    """Values kept for validation; with an empty list, validation takes the values of train."""
    test: list[str] = Field(min_length=1)
    """Values kept for test."""

    @model_validator(mode="after")
    def _refuse_overlap(self) -> Self:
        both = sorted(set(self.validation) & set(self.test))
        if both:
            raise ValueError(f"{', '.join(both)} is held out for both validation and test; take it out of one of them")
        return self


class ContaminationCheck(StrictModel):
    """Leakage check: training records that reveal a validation or test record."""

    action: Literal["remove", "report"]
    """remove: reject the train record as ``leaks_into_test``. report: only count it."""
    compare: list[Literal["input", "answer"]] = Field(min_length=1)
    """Texts that are compared, after folding case, punctuation and blanks. Answers shorter than ``ngram`` words (a class) never count as leaks."""
    ngram: int = Field(ge=2, le=50)
    """Length in words of the pieces that are compared; where a script puts no space between words, each sign counts as one."""
    min_overlap: float = Field(gt=0, le=1)
    """Share of a validation or test text's pieces, found in one train text, from which it counts as a leak."""


class Reweight(StrictModel):
    """Adjustment of train to the population by a loss weight of each record (raking)."""

    method: Literal["reweight"]
    """Name of this method."""
    min_weight: float = Field(gt=0, le=1)
    """Lowest weight of a record; the mean is 1."""
    max_weight: float = Field(ge=1, le=1000)
    """Highest weight of a record; lower it if few records dominate."""


class Resample(StrictModel):
    """Adjustment of train to the population by leaving out or repeating records."""

    method: Literal["resample"]
    """Name of this method."""
    size: float = Field(gt=0, le=10)
    """Number of records after resampling, as a multiple of train: with 1 as many as before, with 0.5 half as many and fewer repeats."""
    max_copies: int = Field(ge=1, le=100)
    """Copies of one record at most. Records left out are rejected as ``over_represented``."""

    @model_validator(mode="after")
    def _check_copies(self) -> Self:
        if self.size > self.max_copies:
            raise ValueError(
                f"size {self.size:g} cannot be reached with max_copies {self.max_copies}; size may be {self.max_copies} at most"
            )
        return self


def _check_target(shares: dict[str, Share]) -> dict[str, Share]:
    total = sum(shares.values())
    if not isclose(total, 1.0, abs_tol=1e-3):
        raise ValueError(f"the shares add up to {total:g}; must be 1")
    return shares


Target = Annotated[dict[GroupName, Share], Field(min_length=2), AfterValidator(_check_target)]


class Split(StrictModel):
    """The section ``split``: how records are divided into train, validation and test."""

    shares: Shares
    """Sizes. A split column of the data has precedence: records stay in the split that it names."""
    stratify: list[GroupName]
    """Fields whose values get the same shares in each split, for example ``neighbourhood``."""
    group: list[GroupName]
    """Fields whose values never occur in two splits, for example ``business``. Equal inputs and near-duplicate clusters
    always stay together."""
    hold_out: dict[GroupName, HoldOut]
    """Values kept out of training, by field, for example the phrasings of the test."""
    leakage: ContaminationCheck | None
    """Leakage check. Null: none. The share of test 4-grams seen in training is always reported."""
    documents_exclude_groups: list[GroupName]
    """Fields of raw documents: one that shares a value with a validation or test record is kept from ``cpt``."""
    population: dict[GroupName, Target]
    """Share of each value among the users of the model, by field; the shares of a field sum to 1."""
    balance: Annotated[Reweight | Resample, Field(discriminator="method")] | None
    """How the training split is adjusted to the population. Null: shares are only reported."""
    max_rejected_share: float = Field(ge=0, le=1)
    """Share of records and documents rejected above which the stage fails."""

    @model_validator(mode="after")
    def _require_population(self) -> Self:
        if self.balance is not None and not self.population:
            raise ValueError(
                f"balance is {self.balance.method}, but population is empty; declare the shares to reach, or balance: null"
            )
        return self


class SplitStage(StrictModel):
    """Sections of the configuration that the stage split reads, from ``artifacts/config/split.json``."""

    split: Split
    """The section of this stage."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of the order in which groups are assigned."""
