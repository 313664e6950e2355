"""The retrain section: when the model is rebuilt, who is asked, what the gate demands, and how the challenger is tried."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel, validate_host

Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")]
Hours = Annotated[float, Field(ge=0, le=24 * 3650)]
Points = Annotated[float, Field(ge=0, le=100)]


class RetrainSchedule(StrictModel):
    """A retrain by the calendar."""

    cron: str = Field(min_length=1)
    """``minute hour day month weekday``, or monthly, or quarterly (three at night on the first day)."""
    zone: str = Field(min_length=1)
    """Time zone of the IANA database, for example Europe/Berlin."""


class ApprovalConfig(StrictModel):
    """Which decisions wait for a person, and how people are asked."""

    training: Literal["none", "required"]
    """none: a drift retrains by itself. required: a person decides first."""
    promotion: Literal["none", "required"]
    """none: a challenger that won becomes champion by itself. required: a person decides first."""
    url: str = Field(pattern=r"^https?://[^\s]+$")
    """Address under which people reach the page of `tunectl watch`."""
    timeout_hours: float = Field(gt=0, le=24 * 90)
    """How long a link can be used; then nothing is done."""
    notify_url_env: Variable
    """Environment variable with the address that gets the message as JSON with a field text (Slack, Teams, Mattermost). Unset: it is logged."""


class RateLimitConfig(StrictModel):
    """How often anything is started."""

    cooldown_hours: Hours
    """After the end of a retrain; twice as long for each one in a row that was rejected or rolled back."""
    max_cooldown_hours: Hours
    """Longest cooldown."""
    max_per_week: int = Field(ge=1, le=1000)
    """Retrains that may begin training in seven days."""


class MinimumData(StrictModel):
    """What there must be to learn before training begins."""

    min_examples: int = Field(ge=0)
    """Rows that people approved of or edited, of all snapshots; a schedule or a person may retrain with none at 0."""
    min_new_examples: int = Field(ge=0)
    """Of those, rows that the snapshots before the newest did not teach."""
    min_annotators: int = Field(ge=0)
    """People who approved or edited."""


class PromotionGate(StrictModel):
    """Champion against challenger, before anybody meets the challenger."""

    golden_set_size: int = Field(ge=10)
    """Items of the golden set, drawn from the test split at the first release and never fed by feedback."""
    max_uses: int = Field(ge=1)
    """Decisions of one golden set; then the next version is drawn from the test split of that day."""
    margin: Points
    """Points of `evaluate.gate.primary_metric` that the challenger may surely lose on the golden set at most."""
    min_effect: Points
    """Smallest gain on the drifted slice that counts, in the same points."""
    min_golden_items: int = Field(ge=2)
    """Fewest golden items."""
    min_slice_items: int = Field(ge=2)
    """Fewest items of the drifted slice."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Longest answer."""
    max_refusal_rate: float = Field(ge=0, le=1)
    """Largest share of golden items that the challenger refuses."""
    max_harmful_increase: float = Field(ge=0, le=1)
    """Largest share of the bundled harmful questions that it answers beyond what the champion does."""
    max_latency_seconds: float = Field(gt=0)
    """Longest mean time for an answer, asked as many at once as the engine takes."""
    max_latency_ratio: float = Field(ge=1)
    """How many times as long as the champion the challenger may take."""
    max_memory_ratio: float = Field(ge=1)
    """How many times as much memory as the champion it may take."""


class CanaryConfig(StrictModel):
    """Champion against challenger on live traffic. The test may be looked at at any time."""

    share: float = Field(gt=0, lt=1)
    """Of the identities (users, else keys) that get the challenger."""
    metric: Literal["click", "conversion", "satisfaction"]
    """What decides: of people's feedback."""
    margin: float = Field(ge=0, lt=1)
    """0: the challenger must be better. Above: not worse by that much (the measure goes from 0 to 1)."""
    alpha: float = Field(gt=0, lt=0.5)
    """Largest probability of promoting one that does not reach that."""
    harm_alpha: float = Field(gt=0, lt=0.5)
    """Largest probability of stopping one for harm that does none."""
    guardrail_tolerance: float = Field(ge=0, lt=1)
    """How much larger the shares of errors, refusals and slow answers may become."""
    slow_seconds: float = Field(gt=0)
    """From here on an answer is a slow one."""
    attribution_hours: float = Field(gt=0, le=24 * 365)
    """From somebody's first request to the end of what counts for them."""
    min_units_per_variant: int = Field(ge=2)
    """Identities of each arm before a promotion."""
    max_total_units: int | None = Field(ge=4)
    """Identities of both arms after which an open question is given up. Null: only `days` ends it."""
    max_days: float = Field(gt=0, le=3650)
    """Days after which an open question is given up; no traffic is no success."""


class WatchResources(StrictModel):
    """What a training beside a live server may take."""

    nice: int = Field(ge=0, le=19)
    """Niceness of everything that a retrain runs."""
    threads: int = Field(ge=0, le=1024)
    """Processors it may use; 0 takes all."""
    device: Literal["cpu", "any"]
    """cpu hides the GPUs from it, also from the gate's answers, unless one of the two releases is for vLLM."""


class RetrainTrainConfig(StrictModel):
    """How a retrain runs."""

    max_hours: float = Field(gt=0)
    """Longest time; then everything it runs is ended."""
    max_attempts: int = Field(ge=1, le=20)
    """How often a run goes on after a kill or a crash of the machine."""
    start: Literal["base", "champion"]
    """base: fine-tuning begins with new weights. champion: it goes on from the champion's adapter, which must have the same rank and
    targets."""
    overrides: tuple[str, ...]
    """For `tunectl repro` in the worktree, for example align=none."""
    branch: Literal["fast_forward", "review"]
    """After a promotion: bring the checked-out branch forward to the retrain's, or leave that branch for review."""


class RetrainingConfig(StrictModel):
    """The retrain section of ``conf/``."""

    host: str = Field(min_length=1)
    """Address to listen on."""
    port: int = Field(ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    token_file: str = Field(min_length=1)
    """File of the bearer token that Alertmanager, Grafana and Prometheus send; made at first use."""
    alerts: tuple[str, ...]
    """Names of the alerts that ask for a retrain."""
    registry: str = Field(min_length=1)
    """The release store, a folder; TUNECTL_STORE in the environment comes first. Where `serve.registry` is an address, it is copied there."""
    poll_seconds: float = Field(ge=0.05, le=300)
    """Between looks at inbox, calendar, drift windows and experiment; a watcher that has not looked for 15 minutes is told of."""
    reconcile_minutes: float = Field(ge=0, le=60 * 24 * 3650)
    """A drift window that no alert has told of for so long is acted upon all the same."""
    schedules: dict[Name, RetrainSchedule]
    """Retrains by the calendar; none by default."""
    approval: ApprovalConfig
    """Which decisions wait for a person, and how people are asked."""
    limits: RateLimitConfig
    """How often anything is started."""
    data: MinimumData
    """What there must be to learn."""
    gate: PromotionGate
    """Before anybody meets the challenger."""
    canary: CanaryConfig | None
    """On live traffic. Null: the gate alone decides."""
    resources: WatchResources
    """What a training may take."""
    train: RetrainTrainConfig
    """How it runs."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        validate_host(self.host)
        if self.limits.max_cooldown_hours < self.limits.cooldown_hours:
            longest, usual = self.limits.max_cooldown_hours, self.limits.cooldown_hours
            raise ValueError(f"limits.max_cooldown_hours is {longest:g}, below limits.cooldown_hours, {usual:g}")
        return self
