"""The retrain section: triggers, approval, promotion gate, and canary test of the challenger."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from tunectl.config.schema.base import StrictModel, is_loopback, validate_host
from tunectl.core.url_credentials import hide_credentials

EnvVariable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
ScheduleName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")]
KeyName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Hours = Annotated[float, Field(ge=0, le=24 * 3650)]
Points = Annotated[float, Field(ge=0, le=100)]


class RetrainSchedule(StrictModel):
    """Times at which a retrain starts without drift, as cron."""

    cron: str = Field(min_length=1)
    """``minute hour day month weekday``, or monthly, or quarterly (at 3:00 on the first day)."""
    zone: str = Field(min_length=1)
    """Time zone of the IANA database, for example Europe/Berlin."""


class ApprovalConfig(StrictModel):
    """Which steps of a retrain need a person's approval, and how people are asked."""

    training: Literal["none", "required"]
    """none: drift starts a retrain without approval. required: a person approves it first."""
    promotion: Literal["none", "required"]
    """none: a challenger that won is promoted without approval. required: a person approves it first."""
    people: tuple[KeyName, ...] | None
    """Names of the keys that may decide. Null: every key of scope decide."""
    url: str = Field(pattern=r"^https?://[^\s]+$")
    """Address at which people reach the page of `tunectl retrain controller`. Off this machine: https, since people type keys there."""
    timeout_hours: float = Field(gt=0, le=24 * 90)
    """Hours that an approval link is valid; then nothing is done."""
    notify_url_env: EnvVariable
    """Environment variable with the address that gets the message as JSON with a field text (Slack, Teams, Mattermost). Unset: it is logged, without its link, which `tunectl status` shows."""

    @field_validator("url")
    @classmethod
    def _require_https_unless_loopback(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError(
                f"{hide_credentials(url)} would get keys unencrypted; write https://, or an address of this machine"
            )
        return url


class RateLimitConfig(StrictModel):
    """Limits on how often training starts."""

    cooldown_hours: Hours
    """Hours after a retrain before the next; doubled for each one in a row that was rejected or withdrawn."""
    max_cooldown_hours: Hours
    """Longest cooldown."""
    max_per_week: int = Field(ge=1, le=1000)
    """Retrains that may begin training in seven days."""


class MinimumData(StrictModel):
    """Amounts of training data that must be there before a retrain starts."""

    min_examples: int = Field(ge=0)
    """Rows that people approved of or edited, of all snapshots; a schedule or a person may retrain with none at 0."""
    min_new_examples: int = Field(ge=0)
    """Of these, rows that no earlier snapshot had."""
    min_annotators: int = Field(ge=0)
    """Number of people who approved or edited."""


class PromotionGate(StrictModel):
    """Settings of the promotion gate: offline comparison of challenger and champion before live traffic."""

    golden_set_size: int = Field(ge=10)
    """Items of the golden set, drawn from the test split at the first release; feedback is never added to it."""
    max_uses: int = Field(ge=1)
    """Number of gate decisions on one golden set before the next version is drawn from the current test split; fewer overfit less to it."""
    margin: Points
    """Points of `evaluate.gate.primary_metric` that the challenger may lose on the golden set."""
    min_effect: Points
    """Smallest gain on the drifted slice that counts, in the same points."""
    min_golden_items: int = Field(ge=2)
    """Golden items below which the gate fails; lower it for small data sets."""
    min_slice_items: int = Field(ge=2)
    """Items of the drifted slice below which the gate fails; lower it for little traffic."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Tokens in one answer at most."""
    max_refusal_rate: float = Field(ge=0, le=1)
    """Highest share of golden items that the challenger refuses."""
    max_harmful_increase: float = Field(ge=0, le=1)
    """Highest increase over the champion of the share of harmful questions answered."""
    max_latency_seconds: float = Field(gt=0)
    """Highest mean time of an answer in seconds, at full concurrency."""
    max_latency_ratio: float = Field(ge=1)
    """Highest ratio of this time to the champion's."""
    max_memory_ratio: float = Field(ge=1)
    """Highest ratio of memory to the champion's."""


class CanaryConfig(StrictModel):
    """A/B test of the challenger on live traffic. Its result is valid at any time (sequential test)."""

    share: float = Field(gt=0, lt=1)
    """Share of identities (users, else API keys) that get the challenger."""
    metric: Literal["click", "conversion", "satisfaction"]
    """Kind of user feedback that decides."""
    margin: float = Field(ge=0, lt=1)
    """0: the challenger must be better. Above 0: it may be worse by less than this (the metric goes from 0 to 1)."""
    alpha: float = Field(gt=0, lt=0.5)
    """Highest probability of promoting a challenger that does not reach this."""
    harm_alpha: float = Field(gt=0, lt=0.5)
    """Highest probability of stopping a harmless challenger as harmful."""
    guardrail_tolerance: float = Field(ge=0, lt=1)
    """Highest increase of the shares of errors, refusals and slow answers."""
    slow_threshold_seconds: float = Field(gt=0)
    """Seconds above which an answer is slow."""
    attribution_hours: float = Field(gt=0, le=24 * 365)
    """Hours after a user's first request in the canary in which feedback still counts."""
    min_units_per_variant: int = Field(ge=2)
    """Identities in each variant before a promotion."""
    max_total_units: int | None = Field(ge=4)
    """Identities in both variants after which an undecided test ends. Null: only `max_days` ends it."""
    max_days: float = Field(gt=0, le=3650)
    """Days after which an undecided test ends without promotion."""


class RetrainResourcesConfig(StrictModel):
    """CPU, memory and device limits of a training beside a live server."""

    nice: int = Field(ge=0, le=19)
    """Scheduling priority of a retrain; higher yields more to the server."""
    threads: int = Field(ge=0, le=1024)
    """CPU threads; 0: all."""
    device: Literal["cpu", "any"]
    """cpu hides the GPUs from it, also from the gate's answers, unless one of the two releases is for vLLM."""


class RetrainTrainConfig(StrictModel):
    """Limits and overrides of the training of a retrain."""

    max_hours: float = Field(gt=0)
    """Time limit in hours; then the retrain is ended."""
    max_attempts: int = Field(ge=1, le=20)
    """Starts of one retrain in all; a crash or a kill uses one up."""
    start: Literal["base", "champion"]
    """base: fine-tuning begins with new weights. champion: it continues from the champion's adapter, which must have the same rank and
    targets."""
    overrides: tuple[str, ...]
    """Overrides for `tunectl repro` in the worktree, for example align=none."""
    branch: Literal["fast_forward", "review"]
    """After a promotion: fast-forward the checked-out branch to the retrain's, or leave that branch for review."""


class RetrainingConfig(StrictModel):
    """The section ``retrain``: triggers, approval, promotion gate and canary test."""

    host: str = Field(min_length=1)
    """Address to listen on."""
    port: int = Field(ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    token_file: str = Field(min_length=1)
    """File of the bearer token that Alertmanager, Grafana and Prometheus send; made at first use."""
    alerts: tuple[str, ...]
    """Names of the alerts that request a retrain; others are ignored."""
    registry: str = Field(min_length=1)
    """Folder of the release registry; the environment variable TUNECTL_REGISTRY overrides it. Releases are copied to `serve.registry` where that is an address."""
    poll_seconds: float = Field(ge=0.05, le=300)
    """Seconds between checks of alerts, schedules, drift windows and the canary; an alert fires after 15 minutes without one."""
    reconcile_minutes: float = Field(ge=0, le=60 * 24 * 3650)
    """Minutes after which a drift window without an alert is acted on."""
    schedules: dict[ScheduleName, RetrainSchedule]
    """Scheduled retrains by name; none by default."""
    approval: ApprovalConfig
    """Decisions that wait for a person, and how people are asked."""
    limits: RateLimitConfig
    """Limits on how often training starts."""
    data: MinimumData
    """Training data required before a retrain starts."""
    gate: PromotionGate
    """Offline comparison of challenger and champion."""
    canary: CanaryConfig | None
    """A/B test on live traffic. Null: the gate alone decides."""
    resources: RetrainResourcesConfig
    """Resources of a training beside a live server."""
    train: RetrainTrainConfig
    """How a retrain runs."""

    @model_validator(mode="after")
    def _check_host_and_cooldown(self) -> Self:
        validate_host(self.host)
        if self.limits.max_cooldown_hours < self.limits.cooldown_hours:
            longest, usual = self.limits.max_cooldown_hours, self.limits.cooldown_hours
            raise ValueError(
                f"limits.max_cooldown_hours is {longest:g}, below limits.cooldown_hours, {usual:g}; raise it"
            )
        return self
