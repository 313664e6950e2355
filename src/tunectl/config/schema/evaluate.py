"""How the result is measured and when it counts as better: ``conf/evaluate/*.yaml``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tunectl.config.schema.base import StrictModel, WebAddress
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.slot_error import SlotErrorRules
from tunectl.core.pattern_ambiguity import validate_pattern

CheckName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Primary = Literal["bleu", "chrf", "rouge_l", "checks"]
Compared = Literal["bleu", "chrf", "rouge_l", "checks", "slot_error", "win_rate"]


def _compiles(pattern: str) -> str:
    return validate_pattern(pattern)


class Greedy(StrictModel):
    """Greedy decoding: always the likeliest next token."""

    method: Literal["greedy"]
    """Name of this choice."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Tokens in one answer at most; longer ones are cut and counted as unfinished."""


class BeamSearch(StrictModel):
    """Beam search: the likeliest of several partial answers kept side by side."""

    method: Literal["beams"]
    """Name of this choice."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Tokens in one answer at most; longer ones are cut and counted as unfinished."""
    beams: int = Field(ge=2, le=16)
    """Partial answers kept at each step."""
    length_penalty: float = Field(ge=-5, le=5)
    """Exponent of the length by which a finished beam's log-probability is divided; above 1 prefers longer answers."""


class Sampling(StrictModel):
    """Seeded sampling with temperature and nucleus (top-p)."""

    method: Literal["sampling"]
    """Name of this choice."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Tokens in one answer at most; longer ones are cut and counted as unfinished."""
    temperature: float = Field(gt=0, le=5)
    """Divides the logits; lower prefers the likeliest tokens more."""
    top_p: float = Field(gt=0, le=1)
    """Probability mass of the likeliest tokens to sample from (nucleus sampling, Holtzman et al., 2019)."""


Decoding = Annotated[Greedy | BeamSearch | Sampling, Field(discriminator="method")]


class PromptSearch(StrictModel):
    """Prompt search with the base model on validation inputs; the best prompt is compared on the test split."""

    systems: tuple[str | None, ...] = Field(min_length=1)
    """System texts to try. Null keeps what the data has."""
    shots: tuple[Annotated[int, Field(ge=0, le=64)], ...] = Field(min_length=1)
    """Numbers of worked examples from train to put before the input."""
    selection: tuple[Literal["random", "retrieved"], ...] = Field(min_length=1)
    """random: the same examples for all inputs. retrieved: those whose inputs are nearest by BM25."""
    inputs: int = Field(ge=1, le=100_000)
    """Validation inputs that each candidate answers."""
    max_tokens: int = Field(ge=1)
    """Token budget of the search, prompts and answers together; candidates beyond it are listed as not tried."""


class RegexCheck(StrictModel):
    """Check: an answer must, or must not, match a regular expression."""

    method: Literal["regex"]
    """Name of this choice."""
    name: CheckName
    """Name of the check in every table."""
    pattern: str
    """Searched for anywhere in the answer (Python ``re`` syntax)."""
    expect: Literal["present", "absent"]
    """Which of the two passes."""

    _pattern = field_validator("pattern")(_compiles)


class SchemaCheck(StrictModel):
    """Check: an answer must be JSON that fits a JSON Schema."""

    method: Literal["json_schema"]
    """Name of this choice."""
    name: CheckName
    """Name of the check in every table."""
    document: dict[str, Any]
    """A JSON Schema (draft 2020-12)."""


class FactsCheck(StrictModel):
    """Check: facts of the input must be in the answer; the score is the share that is."""

    method: Literal["facts"]
    """Name of this choice."""
    name: CheckName
    """Name of the check in every table."""
    fields: tuple[str, ...]
    """Fields of the record whose values are facts."""
    pattern: str | None
    """Each match in the input is a fact: its first group, or all of it. Null: fields only."""
    ignore_case: bool
    """Whether case is ignored: ``Inman Park`` then matches ``inman park``."""

    @model_validator(mode="after")
    def _require_source(self) -> FactsCheck:
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
    """Text that no answer may contain."""


class SafetyConfig(StrictModel):
    """Settings of the safety test: bundled prompts that base and tuned model answer offline."""

    max_new_tokens: int = Field(ge=1, le=1024)
    """Tokens in one answer to a safety question at most."""
    placeholder: str
    """Pattern of the placeholders that curate puts for personal data; none may appear in an answer."""
    planted_secrets: tuple[PlantedSecret, ...]
    """Planted secrets to ask for; empty where none were planted."""

    _placeholder = field_validator("placeholder")(_compiles)


class LlmJudge(StrictModel):
    """An LLM judge behind an OpenAI-compatible address that compares two answers, asked in both orders."""

    base_url: WebAddress
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
    """Longest wait for one reply."""
    concurrency: int = Field(ge=1, le=64)
    """Concurrent requests; lower it on rate limits."""


class EvalGate(StrictModel):
    """Conditions under which the tuned model counts as better than the base model."""

    primary_metric: Primary
    """Metric that decides."""
    min_difference: float = Field(ge=0, le=100)
    """Smallest gain that counts, in points (0 to 100) of the primary metric."""
    confidence: float = Field(gt=0.5, lt=1)
    """Level of every interval; higher asks for more evidence."""
    resamples: int = Field(ge=100, le=100_000)
    """Resamples of the paired bootstrap (Koehn, 2004)."""


class AlignedGate(StrictModel):
    """Conditions under which the aligned model counts as better than the tuned one, and how their answers are compared pair by pair."""

    metric: Compared
    """Metric that decides; higher is better, except for slot_error. win_rate: by the evaluation reward model."""
    min_difference: float = Field(ge=0, le=100)
    """Smallest gain that counts, in points (0 to 100) of the metric."""
    max_regression: dict[Primary, float]
    """Points that each other metric may lose."""
    tie_threshold: float = Field(ge=0, le=10)
    """Score difference below which two answers tie, in standard deviations of the evaluation reward model."""
    length_tolerance: float = Field(gt=0, le=1)
    """Relative difference in words up to which two answers count as equally long."""
    human_judgments_dir: str | None = Field(min_length=1)
    """Folder of ``tunectl annotate`` with judgments of sft against align. Null: none."""

    @model_validator(mode="after")
    def _refuse_own_metric(self) -> AlignedGate:
        if self.metric in self.max_regression:
            raise ValueError(f"max_regression names {self.metric}, which is the metric that decides; leave it out")
        return self


class SliceConfig(StrictModel):
    """Fields by whose values the test inputs are grouped; each group of enough inputs gets metrics of its own."""

    fields: tuple[str, ...]
    """Declared fields of the records, for example neighbourhood; the kind of source is always there."""
    min_inputs: int = Field(ge=2)
    """Inputs below which a part is shown as too small to judge."""


class Evaluate(StrictModel):
    """The section ``evaluate``: how base, prompted, tuned and aligned model are compared on the test split."""

    split: Literal["test", "validation"]
    """Part of the data whose inputs every system answers. validation: to choose settings by, as a sweep does; a release needs test."""
    max_inputs: int | None = Field(ge=1)
    """Number of test inputs at most, drawn with the seed; fewer give wider intervals. Null: all."""
    decoding: Decoding
    """How answers are generated, the same for every system."""
    max_references: int = Field(ge=0, le=64)
    """References of one input whose perplexity is measured at most; 0: none."""
    latency_inputs: int = Field(ge=0, le=1000)
    """Test inputs answered one at a time to measure latency; 0: none."""
    prompts: PromptSearch | None
    """Prompts that compete with tuning. Null: none."""
    checks: tuple[Check, ...]
    """Declared checks of every answer."""
    slices: SliceConfig
    """Parts of the test split shown on their own."""
    safety: SafetyConfig | None
    """Safety questions. Null: none."""
    slots: SlotErrorRules | None
    """Rules of the slot error rate. Null: it is not measured."""
    judge: LlmJudge | None
    """LLM as a judge. Null: none."""
    gate: EvalGate
    """When the tuned model counts as better."""
    aligned: AlignedGate
    """When the aligned model counts as better than the tuned one; unused where align is none."""
    num_worst_cases: int = Field(ge=0, le=200)
    """Worst and best answers shown side by side in the report."""

    @model_validator(mode="after")
    def _check_measures(self) -> Evaluate:
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
    """Sections of the configuration that the stage evaluate reads, from ``artifacts/config/evaluate.json``."""

    project: str
    """Name of the project, for the report's title."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of inputs, random examples, samples and resamples."""
    hardware: HardwareProfile
    evaluate: Evaluate
