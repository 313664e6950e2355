"""The preferences section: what people said about answers, imported and collected, or none."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, RootModel, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.ingest import Column, FileLimits, FileOptions, Name
from tunectl.config.schema.simulated_annotator import SimulatedAnnotator
from tunectl.config.schema.split import Shares

MADE = ("contrast", "simulated")
"""Names of judgements that nobody sent in."""
PreferenceFormat = Literal[
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
    """Columns whose names say nothing by themselves. Nested columns have dots."""

    prompt: Column | None
    """The input."""
    chosen: Column | None
    """The better answer."""
    rejected: Column | None
    """The worse answer."""
    annotator: Column | None
    """Who said so. Null: a column called annotator."""
    at: Column | None
    """When. Null: a column called at or timestamp."""
    margin: Column | None
    """By how much it is better, a number of 0 or more. Null: a column called margin."""
    tags: Column | None
    """Reasons: a list, or text with commas. Null: a column called tags."""
    split: Column | None
    """Says train, validation or test. Null: a column called split, where its values are such."""


class PreferenceFiles(FileOptions):
    """A file of preferences, a folder with everything below it, or a glob. Files are tables: JSON, CSV, Parquet and the like."""

    path: str = Field(min_length=1)
    """Relative to the project. A glob may use ``*``, ``?``, ``[...]`` and ``**``."""
    format: PreferenceFormat
    """Meaning of the columns. auto: by their names; the decision is printed, and written to decisions.json."""
    columns: PreferenceColumns
    """Pins columns whatever their names."""
    fields: dict[Column, Column]
    """Name to column, kept with each record."""
    limits: FileLimits
    """Bounds on size and count."""


class BracketedAttributes(StrictModel):
    """Attributes are in the last turn of the input: ``name[The Vaults], eatType[pub]``."""

    method: Literal["bracketed"]
    """Fixed name of this choice."""
    masked_attribute_share: float = Field(ge=0, le=1)
    """Of the pairs of train and validation that differ in two attributes, the share that is asked without a wrong one, so that it
    cannot give away the other: what is missing is learned, where each input without it has another name as well."""


class FieldAttributes(StrictModel):
    """Attributes are declared fields of the examples; an empty one is absent."""

    method: Literal["fields"]
    """Fixed name of this choice."""
    fields: list[Name] = Field(min_length=1)
    """Names of fields that ``ingest`` keeps."""


class ContrastPairs(StrictModel):
    """Most pairs of each part."""

    train: int = Field(ge=1)
    """Learned from."""
    validation: int = Field(ge=1)
    """Decide when to stop."""
    test: int = Field(ge=1)
    """Measure."""


class ContrastKinds(StrictModel):
    """Weights of the kinds of difference, in any unit; 0 leaves a kind out.

    Every attribute gets pairs in proportion to these, so far as the inputs have them: with 1, 1, 1 an attribute is missing
    about as often as it is wrong, and about as often as every other attribute.
    """

    wrong: float = Field(ge=0)
    """The losing answer says another value."""
    missing: float = Field(ge=0)
    """The losing answer is to an input without the attribute."""
    extra: float = Field(ge=0)
    """The losing answer is to an input with one attribute more."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.wrong + self.missing + self.extra:
            raise ValueError("wrong, missing and extra are all 0; one must be above")
        return self


class ContrastivePairs(StrictModel):
    """Pairs from references alone: one of the input beats one of another input that differs in one or two attributes."""

    attributes: Annotated[BracketedAttributes | FieldAttributes, Field(discriminator="method")]
    """Where the attributes of an input are."""
    max_pairs: ContrastPairs
    """How many pairs at most."""
    max_pairs_per_input: int = Field(ge=1, le=1000)
    """Most pairs of one input; each gets one before any gets two."""
    max_differences: Literal[1, 2]
    """Most attributes in which the two inputs differ."""
    kinds: ContrastKinds
    """Which differences, and how much of each an attribute gets."""


class PreferencesDisabled(StrictModel):
    """Nobody was asked."""

    method: Literal["none"]
    """Fixed name of this choice."""


class PreferencesConfig(StrictModel):
    """Everything that people said, as pairs and marks."""

    method: Literal["merged"]
    """Fixed name of this choice."""
    sources: dict[Name, PreferenceFiles]
    """Name to source of imported preferences. The name goes with every record, as its ``kind``."""
    collected: str | None = Field(min_length=1)
    """Folder that ``tunectl annotate`` fills. Null: none."""
    contrast: ContrastivePairs | None
    """Pairs made from the references of ``split``. Null: none."""
    simulated: SimulatedAnnotator | None
    """An annotator that is a rubric, over answers that the tuned model samples. Null: none, and no model is opened."""
    max_per_annotator: int | None = Field(ge=1)
    """Most judgements that count of one named person; the others are rejected as ``over_cap``. Null: all."""
    min_attention_score: float = Field(ge=0, le=1)
    """Share of attention checks that a person must pass; who does not is rejected as ``failed_attention``."""
    contradictions: Literal["majority", "drop"]
    """Where people disagree about two answers. majority: most votes win and a tie is rejected. drop: all are rejected."""
    shares: Shares
    """Sizes of train, validation and test, counted in inputs. An input that ``split`` knows goes where it is there."""
    max_rejected_share: float = Field(ge=0, le=1)
    """Most of the judgements that may be rejected before the stage fails."""

    @model_validator(mode="after")
    def _some_source(self) -> Self:
        if not (self.sources or self.collected or self.contrast or self.simulated):
            raise ValueError(
                "sources is empty and collected, contrast and simulated are null, so nobody says anything; set one of them,"
                " or switch the stage off: preferences=none"
            )
        taken = [name for name in self.sources if name in MADE]
        if taken:
            raise ValueError(
                f"sources names {taken[0]}, which is the name of judgements that are made here; take another"
            )
        return self


class Preferences(RootModel[Annotated[PreferencesDisabled | PreferencesConfig, Field(discriminator="method")]]):
    """The preferences section of ``conf/``."""


class PreferencesStage(StrictModel):
    """What the preferences stage sees of the configuration."""

    preferences: Preferences
    """Its section."""
    hardware: HardwareProfile
    """The machine, for simulated answers."""
    seed: int = Field(ge=0, lt=2**32)
    """Seeds the split of the inputs, the cap, the intervals, and what is made or simulated."""
