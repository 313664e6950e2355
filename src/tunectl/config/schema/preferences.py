"""The preferences section: judgments of answers, imported, collected and generated, or none."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, RootModel, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.feedback import FeedbackConfig
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.ingest import Column, FileLimits, FileOptions, SourceName
from tunectl.config.schema.simulated_annotator import SimulatedAnnotator
from tunectl.config.schema.split import Shares

MADE = ("contrast", "simulated")
"""Names reserved for generated judgments."""
PreferenceFormatName = Literal[
    "auto",
    "columns",
    "transcripts",
    "explicit",
    "implicit",
    "sharegpt_pair",
    "messages_rejected",
    "axolotl_pair",
    "marked",
    "marked_messages",
    "marked_sharegpt",
]


class PreferenceColumns(StrictModel):
    """Columns of a source of preferences by their meaning, where their names do not tell it. Nested columns have dots."""

    prompt: Column | None
    """Column with the input."""
    chosen: Column | None
    """Column with the better answer."""
    rejected: Column | None
    """Column with the worse answer."""
    annotator: Column | None
    """Column with the name of the annotator. Null: a column called annotator."""
    at: Column | None
    """Column with the time of the judgment. Null: a column called at or timestamp."""
    margin: Column | None
    """By how much the better answer is better, a number of 0 or more, for ``reward.margins``. Null: a column called margin."""
    tags: Column | None
    """Column with reasons: a list, or text with commas. Null: a column called tags."""
    split: Column | None
    """Column with train, validation or test. Null: a column called split with such values."""


class PreferenceFiles(FileOptions):
    """A file of preferences, a folder with everything below it, or a glob. Files are tables: JSON, CSV, Parquet and the like."""

    path: str = Field(min_length=1)
    """Relative to the project. A glob may use ``*``, ``?``, ``[...]`` and ``**``."""
    format: PreferenceFormatName
    """Meaning of the columns. auto: by their names; the decision is printed, and written to decisions.json."""
    columns: PreferenceColumns
    """Columns by name, where auto does not recognize them."""
    fields: dict[Column, Column]
    """Columns by field name, kept with each record."""
    limits: FileLimits
    """Bounds on size and count."""


class BracketedAttributes(StrictModel):
    """Attributes are read from the last turn of the input: ``name[The Vaults], eatType[pub]``."""

    method: Literal["bracketed"]
    """Name of this choice."""
    masked_attribute_share: float = Field(ge=0, le=1)
    """Share of the train and validation pairs with two differences whose prompt loses one attribute that the worse answer gets wrong: the
    reward model then cannot judge by it, and has to learn from the other difference."""


class FieldAttributes(StrictModel):
    """Attributes are read from declared fields of the examples; an empty one is absent."""

    method: Literal["fields"]
    """Name of this choice."""
    fields: list[SourceName] = Field(min_length=1)
    """Names of fields that ``ingest`` keeps."""


class ContrastPairs(StrictModel):
    """Most contrastive pairs in each split."""

    train: int = Field(ge=1)
    """Pairs to train on."""
    validation: int = Field(ge=1)
    """Pairs to decide when to stop."""
    test: int = Field(ge=1)
    """Pairs to measure on."""


class ContrastKinds(StrictModel):
    """Relative weights of the kinds of difference in contrastive pairs; 0 leaves out a kind.

    Every attribute gets pairs in these proportions, as far as the inputs allow: with 1, 1, 1 an attribute is missing
    about as often as it is wrong, and about as often as every other attribute.
    """

    wrong: float = Field(ge=0)
    """Weight of pairs in which the worse answer states another value."""
    missing: float = Field(ge=0)
    """Weight of pairs in which the worse answer lacks the attribute."""
    extra: float = Field(ge=0)
    """Weight of pairs in which the worse answer has one attribute more."""

    @model_validator(mode="after")
    def _require_weight(self) -> Self:
        if not self.wrong + self.missing + self.extra:
            raise ValueError("wrong, missing and extra are all 0; one of them must be above 0")
        return self


class ContrastivePairs(StrictModel):
    """Pairs from references alone: a reference of the input is better than one of another input that differs in one or two attributes."""

    attributes: Annotated[BracketedAttributes | FieldAttributes, Field(discriminator="method")]
    """Where the attributes of an input are."""
    max_pairs: ContrastPairs
    """Number of pairs of each split at most."""
    max_pairs_per_input: int = Field(ge=1, le=1000)
    """Pairs of one input at most; every input gets its first pair before any gets a second."""
    max_differences: Literal[1, 2]
    """Attributes in which the two inputs differ at most."""
    kinds: ContrastKinds
    """Weights of the kinds of difference."""


class PreferencesDisabled(StrictModel):
    """Switches preferences off: no judgments are read or made."""

    method: Literal["none"]
    """Name of this choice."""


class PreferencesConfig(StrictModel):
    """Sources of judgments, which become pairs of answers and single good or bad answers."""

    method: Literal["merged"]
    """Name of this choice."""
    sources: dict[SourceName, PreferenceFiles]
    """Sources of imported preferences by name. The name is stored with every record, as its ``kind``."""
    collected: str | None = Field(min_length=1)
    """Folder that ``tunectl annotate`` fills. Null: none."""
    contrast: ContrastivePairs | None
    """Pairs made from the references of ``split``. Null: none."""
    simulated: SimulatedAnnotator | None
    """Simulated annotator: a rubric that compares answers sampled from the tuned model. Null: none; no model is loaded."""
    max_per_annotator: int | None = Field(ge=1)
    """Judgments that count per person at most; the others are rejected as ``over_cap``. Null: all."""
    min_attention_score: float = Field(ge=0, le=1)
    """Lowest share of passed attention checks; judgments of people below it are rejected as ``failed_attention``."""
    contradictions: Literal["majority", "drop"]
    """Where people disagree about two answers. majority: most votes win and a tie is rejected. drop: all are rejected."""
    shares: Shares
    """Sizes of train, validation and test, counted in inputs. An input that is in a part of ``split`` goes to the same part here."""
    max_rejected_share: float = Field(ge=0, le=1)
    """Share of judgments rejected above which the stage fails."""

    @model_validator(mode="after")
    def _require_source(self) -> Self:
        if not (self.sources or self.collected or self.contrast or self.simulated):
            raise ValueError(
                "sources is empty and collected, contrast and simulated are null, so there are no judgments; set one of them,"
                " or switch the stage off: preferences=none"
            )
        sources = [name for name in self.sources if name in MADE]
        if sources:
            raise ValueError(f"sources names {sources[0]}, a name reserved for generated judgments; take another")
        return self


class Preferences(RootModel[Annotated[PreferencesDisabled | PreferencesConfig, Field(discriminator="method")]]):
    """The section ``preferences``: judgments of answers, or none."""


class PreferencesStage(StrictModel):
    """Sections of the configuration that the stage preferences reads, from ``artifacts/config/preferences.json``."""

    preferences: Preferences
    """The section of this stage."""
    feedback: FeedbackConfig
    """The limits of feedback, which bound votes of the arena, too."""
    hardware: HardwareProfile
    """The machine, for sampled answers."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of the split of the inputs, the limit per person, the intervals, and generated judgments."""
