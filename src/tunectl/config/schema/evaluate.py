"""How the result is measured and when it counts as better: ``conf/evaluate/*.yaml``."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.slot_error import SlotErrorRules

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Primary = Literal["bleu", "chrf", "rouge_l", "checks"]
Compared = Literal["bleu", "chrf", "rouge_l", "checks", "slot_error", "win_rate"]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return pattern


class Greedy(StrictModel):
    """Always the likeliest next token."""

    method: Literal["greedy"]
    """Names this shape."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Longest answer, in tokens; longer ones are cut and counted as unfinished."""


class BeamSearch(StrictModel):
    """Beam search: the likeliest of several partial answers kept side by side."""

    method: Literal["beams"]
    """Names this shape."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Longest answer, in tokens; longer ones are cut and counted as unfinished."""
    beams: int = Field(ge=2, le=16)
    """Partial answers kept at each step."""
    length_penalty: float = Field(ge=-5, le=5)
    """Exponent of the length by which a finished beam's log-probability is divided; above 1 prefers longer answers."""


class Sampling(StrictModel):
    """Seeded random choice among the likely next tokens."""

    method: Literal["sampling"]
    """Names this shape."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Longest answer, in tokens; longer ones are cut and counted as unfinished."""
    temperature: float = Field(gt=0, le=5)
    """Divides the logits; below 1 is bolder towards the likeliest token."""
    top_p: float = Field(gt=0, le=1)
    """Only the likeliest tokens that together reach this probability are drawn from (Holtzman et al., 2019)."""


Decoding = Annotated[Greedy | BeamSearch | Sampling, Field(discriminator="method")]


class PromptSearch(StrictModel):
    """Prompts tried on validation inputs with the untuned base model; the best one competes on the test split."""

    systems: tuple[str | None, ...] = Field(min_length=1)
    """System texts to try. Null keeps what the data has."""
    shots: tuple[Annotated[int, Field(ge=0, le=64)], ...] = Field(min_length=1)
    """Numbers of worked examples from train to put before the input."""
    selection: tuple[Literal["random", "retrieved"], ...] = Field(min_length=1)
    """random: the same examples for all inputs. retrieved: those whose inputs are nearest by BM25."""
    inputs: int = Field(ge=1, le=100_000)
    """Validation inputs that each candidate answers."""
    max_tokens: int = Field(ge=1)
    """Most tokens, prompts and answers together, that the search may cost; candidates beyond it are listed as not tried."""


class RegexCheck(StrictModel):
    """An answer must, or must not, match a pattern."""

    method: Literal["regex"]
    """Names this shape."""
    name: Name
    """Of the check in every table."""
    pattern: str
    """Searched for anywhere in the answer (Python ``re`` syntax)."""
    expect: Literal["present", "absent"]
    """Which of the two passes."""

    _pattern = field_validator("pattern")(_compiles)


class SchemaCheck(StrictModel):
    """An answer must be JSON of a declared shape."""

    method: Literal["json_schema"]
    """Names this shape."""
    name: Name
    """Of the check in every table."""
    document: dict[str, Any]
    """A JSON Schema (draft 2020-12)."""


class FactsCheck(StrictModel):
    """Facts of the input must be in the answer; the score is the share that is."""

    method: Literal["facts"]
    """Names this shape."""
    name: Name
    """Of the check in every table."""
    fields: tuple[str, ...]
    """Fields of the record whose values are facts."""
    pattern: str | None
    """Each match in the input is a fact: its first group, or all of it. Null: fields only."""
    ignore_case: bool
    """Whether ``Inman Park`` is found in ``inman park``."""

    @model_validator(mode="after")
    def _some_source(self) -> FactsCheck:
        if not self.fields and self.pattern is None:
            raise ValueError("fields is empty and pattern is null, so there are no facts to look for; set one of them")
        if self.pattern is not None:
            _compiles(self.pattern)
        return self


Check = Annotated[RegexCheck | SchemaCheck | FactsCheck, Field(discriminator="method")]


class PlantedSecret(StrictModel):
    """A made-up secret planted in the training data to see whether the model repeats it (Carlini et al., 2019)."""

    prefix: str = Field(min_length=1)
    """What the model is asked to continue."""
    secret: str = Field(min_length=4)
    """What must not come out."""


class SafetyConfig(StrictModel):
    """The bundled offline safety set, put to base and tuned model."""

    max_new_tokens: int = Field(ge=1, le=1024)
    """Longest answer to a safety question, in tokens."""
    placeholder: str
    """Pattern of the placeholders that curate puts for personal data; none may appear in an answer."""
    planted_secrets: tuple[PlantedSecret, ...]
    """Planted secrets to ask for; empty where none were planted."""

    _placeholder = field_validator("placeholder")(_compiles)


class LlmJudge(StrictModel):
    """A language model behind an OpenAI-compatible address that compares two answers, asked in both positions."""

    base_url: str = Field(pattern=r"^https?://")
    """Address up to and including ``/v1``."""
    model: str = Field(min_length=1)
    """Name of the judge at that address."""
    api_key_env: str | None = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the key; the key itself is never written down. Null: no key."""
    question: str = Field(min_length=1)
    """What makes an answer better, in a sentence or two."""
    inputs: int = Field(ge=1, le=100_000)
    """Test inputs to compare; each costs two questions a pair of systems."""
    timeout_seconds: float = Field(gt=0, le=3600)
    """Patience for one reply."""
    concurrency: int = Field(ge=1, le=64)
    """Questions under way at once."""


class EvalGate(StrictModel):
    """When the tuned model counts as better."""

    primary_metric: Primary
    """The measure that decides."""
    min_difference: float = Field(ge=0, le=100)
    """Smallest gain worth a tuned model, in points of the primary measure (0 to 100)."""
    confidence: float = Field(gt=0.5, lt=1)
    """Of every interval, for example 0.95."""
    resamples: int = Field(ge=100, le=100_000)
    """Of the paired bootstrap (Koehn, 2004)."""


class AlignedGate(StrictModel):
    """When the aligned model counts as better than the tuned one, and how their answers are compared pair by pair."""

    metric: Compared
    """The measure that decides; better is more, and less of slot_error. win_rate: that of the reward judge."""
    min_difference: float = Field(ge=0, le=100)
    """Smallest gain that counts, in points of the measure (0 to 100)."""
    max_regression: dict[Primary, float]
    """Other measures, and how many points of each the aligned model may cost."""
    tie: float = Field(ge=0, le=10)
    """Two answers whose scores by the reward judge differ by less, in its standard deviations, are a tie."""
    length_tolerance: float = Field(gt=0, le=1)
    """Two answers whose words differ by at most this share of the longer one count as about equally long."""
    human_judgments_dir: str | None = Field(min_length=1)
    """Folder of ``tunectl annotate`` with judgements about sft and align. Null: people were not asked."""

    @model_validator(mode="after")
    def _apart(self) -> AlignedGate:
        if self.metric in self.max_regression:
            raise ValueError(f"max_regression names {self.metric}, which is the metric that decides; leave it out")
        return self


class SliceConfig(StrictModel):
    """The same measures on parts of the test split."""

    fields: tuple[str, ...]
    """Declared fields of the records, for example neighbourhood; the kind of source is always there."""
    min_inputs: int = Field(ge=2)
    """A part with fewer inputs is shown and marked as too small to judge."""


class Evaluate(StrictModel):
    """Base, prompted and tuned model side by side on the test split."""

    max_inputs: int | None = Field(ge=1)
    """Most test inputs to answer, drawn with the seed. Null: all."""
    decoding: Decoding
    """How answers are generated, the same for every system."""
    max_references: int = Field(ge=0, le=64)
    """Most references of one input whose perplexity is measured; 0 measures none."""
    latency_inputs: int = Field(ge=0, le=1000)
    """Test inputs answered one at a time to measure what a single user waits; 0 measures none."""
    prompts: PromptSearch | None
    """Prompts that compete with tuning. Null: none."""
    checks: tuple[Check, ...]
    """Declared tests of every answer."""
    slices: SliceConfig
    """Parts of the test split shown on their own."""
    safety: SafetyConfig | None
    """Null: no safety questions."""
    slots: SlotErrorRules | None
    """Rules of the slot error rate. Null: it is not measured."""
    judge: LlmJudge | None
    """Null: no judge."""
    gate: EvalGate
    """When the tuned model counts as better."""
    aligned: AlignedGate
    """When the aligned model counts as better than the tuned one; without one it changes nothing."""
    num_worst_cases: int = Field(ge=0, le=200)
    """Worst and best answers shown side by side in the report."""

    @model_validator(mode="after")
    def _consistent(self) -> Evaluate:
        names = [check.name for check in self.checks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"checks: the name {', '.join(twice)} is used more than once; give each check its own")
        if self.gate.primary_metric == "checks" and not self.checks:
            raise ValueError(
                "gate.primary_metric is checks, but checks is empty; declare a check or choose another metric"
            )
        if self.aligned.metric == "slot_error" and self.slots is None:
            raise ValueError("aligned.metric is slot_error, but slots is null; declare slots or choose another metric")
        if not self.checks and "checks" in (self.aligned.metric, *self.aligned.max_regression):
            raise ValueError("aligned names checks, but checks is empty; declare a check or choose another metric")
        return self


class EvaluateStage(StrictModel):
    """What the evaluate stage sees of the configuration."""

    project: str
    """Name of the project, for the report's title."""
    seed: int = Field(ge=0, lt=2**32)
    """Draws inputs, random examples, samples and resamples."""
    hardware: HardwareProfile
    evaluate: Evaluate
