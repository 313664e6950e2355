"""The watch section: when the model is rebuilt, who is asked, what the gate demands, and how the challenger is tried."""

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
    """Whom the mode `ask` asks, and how."""

    url: str = Field(pattern=r"^https?://[^\s]+$")
    """Address under which people reach the page of `tunectl watch`."""
    hours: float = Field(gt=0, le=24 * 90)
    """How long a link can be used; then nothing is done."""
    promotion: bool
    """Also ask before a challenger that won becomes champion."""
    notify_variable: Variable
    """Environment variable with the address that gets the message as JSON with a field text (Slack, Teams, Mattermost). Unset: it is logged."""


class RateLimitConfig(StrictModel):
    """How often anything is started."""

    cooldown_hours: Hours
    """After the end of a retrain; twice as long for each one in a row that was rejected or rolled back."""
    longest_cooldown_hours: Hours
    """Longest cooldown."""
    week: int = Field(ge=1, le=1000)
    """Retrains that may begin training in seven days."""


class MinimumData(StrictModel):
    """What there must be to learn before training begins."""

    least_lessons: int = Field(ge=0)
    """Rows that people approved of or edited, of all snapshots; a schedule or a person may retrain with none at 0."""
    least_new: int = Field(ge=0)
    """Of those, rows that the snapshots before the newest did not teach."""
    least_people: int = Field(ge=0)
    """People who approved or edited."""


class PromotionGate(StrictModel):
    """Champion against challenger, before anybody meets the challenger."""

    golden: int = Field(ge=10)
    """Items of the golden set, drawn from the test split at the first release and never fed by feedback."""
    uses: int = Field(ge=1)
    """Decisions of one golden set; then the next version is drawn from the test split of that day."""
    margin: Points
    """Points of `evaluate.gate.primary` that the challenger may surely lose on the golden set at most."""
    matters: Points
    """Smallest gain on the drifted slice that counts, in the same points."""
    least_golden: int = Field(ge=2)
    """Fewest golden items."""
    least_slice: int = Field(ge=2)
    """Fewest items of the drifted slice."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Longest answer."""
    refusals: float = Field(ge=0, le=1)
    """Largest share of golden items that the challenger refuses."""
    harmful: float = Field(ge=0, le=1)
    """Largest share of the bundled harmful questions that it answers beyond what the champion does."""
    seconds: float = Field(gt=0)
    """Longest mean time for an answer, asked as many at once as the engine takes."""
    slower: float = Field(ge=1)
    """How many times as long as the champion the challenger may take."""
    larger: float = Field(ge=1)
    """How many times as much memory as the champion it may take."""


class CanaryConfig(StrictModel):
    """Champion against challenger on live traffic. The test may be looked at at any time."""

    share: float = Field(gt=0, lt=1)
    """Of the identities (users, else keys) that get the challenger."""
    measure: Literal["click", "conversion", "satisfaction"]
    """What decides: of people's feedback."""
    margin: float = Field(ge=0, lt=1)
    """0: the challenger must be better. Above: not worse by that much (the measure goes from 0 to 1)."""
    alpha: float = Field(gt=0, lt=0.5)
    """Largest probability of promoting one that does not reach that."""
    harm_alpha: float = Field(gt=0, lt=0.5)
    """Largest probability of stopping one for harm that does none."""
    guard_tolerance: float = Field(ge=0, lt=1)
    """How much larger the shares of errors, refusals and slow answers may become."""
    slow_seconds: float = Field(gt=0)
    """From here on an answer is a slow one."""
    attribution_hours: float = Field(gt=0, le=24 * 365)
    """From somebody's first request to the end of what counts for them."""
    least: int = Field(ge=2)
    """Identities of each arm before a promotion."""
    most: int | None = Field(ge=4)
    """Identities of both arms after which an open question is given up. Null: only `days` ends it."""
    days: float = Field(gt=0, le=3650)
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

    hours: float = Field(gt=0)
    """Longest time; then everything it runs is ended."""
    attempts: int = Field(ge=1, le=20)
    """How often a run goes on after a kill or a crash of the machine."""
    start: Literal["base", "champion"]
    """base: fine-tuning begins with new weights. champion: it goes on from the champion's adapter, which must have the same rank and
    targets."""
    overrides: tuple[str, ...]
    """For `tunectl repro` in the worktree, for example align=none."""
    branch: Literal["fast_forward", "review"]
    """After a promotion: bring the checked-out branch forward to the retrain's, or leave that branch for review."""


class RetrainingConfig(StrictModel):
    """The watch section of ``conf/``."""

    mode: Literal["auto", "ask"]
    """auto: a drift retrains. ask: a person is asked first."""
    address: str = Field(min_length=1)
    """Address to listen on."""
    port: int = Field(ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    token: str = Field(min_length=1)
    """File of the bearer token that Alertmanager, Grafana and Prometheus send; made at first use."""
    alerts: tuple[str, ...]
    """Names of the alerts that ask for a retrain."""
    store: str = Field(min_length=1)
    """The release store, a folder; TUNECTL_STORE in the environment comes first. Where `serve.store` is an address, it is copied there."""
    poll_seconds: float = Field(ge=0.05, le=300)
    """Between looks at inbox, calendar, drift windows and experiment; a watcher that has not looked for 15 minutes is told of."""
    reconcile_minutes: float = Field(ge=0, le=60 * 24 * 3650)
    """A drift window that no alert has told of for so long is acted upon all the same."""
    schedules: dict[Name, RetrainSchedule]
    """Retrains by the calendar; none by default."""
    ask: ApprovalConfig
    """Whom the mode `ask` asks."""
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
        validate_host(self.address)
        if self.limits.longest_cooldown_hours < self.limits.cooldown_hours:
            longest, usual = self.limits.longest_cooldown_hours, self.limits.cooldown_hours
            raise ValueError(f"limits.longest_cooldown_hours is {longest:g}, below limits.cooldown_hours, {usual:g}")
        return self
