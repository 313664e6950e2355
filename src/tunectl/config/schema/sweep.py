"""The sweep section: a search over other settings (``tunectl sweep``). No stage reads it, so changing it reruns nothing."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel

SettingName = Annotated[str, Field(pattern=r"^[a-z_][\w-]*(\.[\w-]+)*$")]
MetricName = Annotated[str, Field(pattern=r"^[a-z]+(\.[A-Za-z0-9_-]+)+$")]
Scalar = bool | int | float | str | None
ChoiceValue = Scalar | list[Scalar]
ValidatedStage = Literal["cpt", "sft", "reward"]
"""Stages that report a validation loss while they train."""


class SweepRange(StrictModel):
    """Range of a numeric setting in a sweep; only whole numbers where both bounds are whole."""

    low: int | float
    """Lower bound."""
    high: int | float
    """Upper bound."""
    log: bool
    """Whether the logarithm is sampled evenly, as for learning rates."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}; low must be smaller")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}, and log: true needs bounds above 0")
        return self


class SweepObjective(StrictModel):
    """A metric that decides which trial is best, and its direction."""

    metric: MetricName
    """``STAGE.NAME`` in ``artifacts/metrics/STAGE.json``, for example sft.validation_loss, sft.seconds or evaluate.systems.tuned.bleu."""
    direction: Literal["minimize", "maximize"]
    """Whether a lower or a higher value is better."""

    @property
    def stage(self) -> str:
        """Return the name of the stage that measures the metric."""
        return self.metric.partition(".")[0]


class AshaPruner(StrictModel):
    """Asynchronous successive halving (arXiv 1810.05934): at each rung only the best part of the trials continues."""

    method: Literal["asha"]
    """Name of this choice."""
    stage: ValidatedStage
    """Stage whose validation loss is compared while it trains."""
    min_resource: int = Field(ge=1)
    """Optimizer steps before a trial may be stopped."""
    reduction_factor: int = Field(ge=2, le=100)
    """One of this many trials continues at each rung."""


class HyperbandPruner(StrictModel):
    """Hyperband: several brackets of successive halving (arXiv 1603.06560), which differ in how early they stop trials."""

    method: Literal["hyperband"]
    """Name of this choice."""
    stage: ValidatedStage
    """Stage whose validation loss is compared while it trains."""
    min_resource: int = Field(ge=1)
    """Optimizer steps before a trial may be stopped."""
    max_resource: int = Field(ge=1)
    """Optimizer steps of a whole training."""
    reduction_factor: int = Field(ge=2, le=100)
    """One of this many trials continues at each rung."""

    @model_validator(mode="after")
    def _check_brackets(self) -> Self:
        if self.min_resource > self.max_resource:
            raise ValueError(
                f"min_resource is {self.min_resource} and max_resource is {self.max_resource}; no trial would ever be stopped, "
                "so min_resource must not be larger"
            )
        return self


class MedianPruner(StrictModel):
    """Median pruning: a trial stops where it is worse than the median of the earlier ones at the same step."""

    method: Literal["median"]
    """Name of this choice."""
    stage: ValidatedStage
    """Stage whose validation loss is compared while it trains."""
    n_startup_trials: int = Field(ge=0)
    """Trials that are never stopped."""
    n_warmup_steps: int = Field(ge=0)
    """Optimizer steps before a trial may be stopped."""


Pruner = Annotated[AshaPruner | HyperbandPruner | MedianPruner, Field(discriminator="method")]


class Sweep(StrictModel):
    """The section ``sweep``: the search over settings that ``tunectl sweep`` runs."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,60}$")
    """Name of the sweep; a new run with the same name continues its trials. Another space or objective needs another name."""
    space: dict[SettingName, SweepRange | Annotated[list[ChoiceValue], Field(min_length=1)]] = Field(min_length=1)
    """Range, or list of values, of each varied setting; a group such as sft takes names of its files."""
    only_if: dict[SettingName, dict[SettingName, Scalar]]
    """Conditions by setting of the space: it is varied only with these values of earlier settings of the space."""
    objective: list[SweepObjective] = Field(min_length=1, max_length=4)
    """Metrics that decide which trial is best. Several give a front of trials, of which none is better in every metric."""
    stage: str = Field(pattern=r"^[a-z]+$")
    """Last stage of a trial; the earliest that has the metric saves time."""
    n_trials: int = Field(ge=1, le=100_000)
    """Trials in all, the current settings and pruned ones among them; a failed trial of the current settings is repeated beyond them."""
    max_hours: float | None = Field(gt=0, le=24 * 365)
    """Hours after which no new trial begins. Null: no limit."""
    workers: int = Field(ge=1, le=256)
    """Trials at a time on this machine; each needs the memory of a build. Other machines: tunectl sweep worker NAME."""
    sampler: Literal["tpe", "gp", "random", "grid", "nsgaii"]
    """Optuna's sampler: tpe (good default), gp (few trials of numbers), random, grid (all combinations of lists), nsgaii (several objectives)."""
    pruner: Pruner | None
    """Stops a stage during training where it falls behind. Null: never."""
    start: Literal["current", "none"]
    """current: the first trial has the current settings. none: it does not."""
    confirm: bool
    """Whether the best trial is built and compared with the start on the test split, once, when the trials have ended."""
    storage: str = Field(pattern=r"^(sqlite:///|postgresql://)\S+$")
    """Where trials are recorded: an SQLite file for one machine, postgresql://USER@HOST/NAME for several."""
    storage_env: str = Field(pattern=r"^[A-Z_][A-Z0-9_]*$")
    """Environment variable that overrides storage; for passwords."""
    heartbeat_seconds: int = Field(ge=1, le=3600)
    """Seconds between heartbeats of a worker; its trial is taken over after three missing ones."""
    max_attempts: int = Field(ge=1, le=1000)
    """Times that a trial is begun, where workers die, before it counts as failed."""

    @model_validator(mode="after")
    def _check_sampler_and_objectives(self) -> Self:
        self._check_conditions()
        if self.pruner is not None and len(self.objective) > 1:
            raise ValueError("pruner needs one objective, since it compares one number; set pruner: null")
        if self.sampler == "gp" and len(self.objective) > 1:
            raise ValueError("sampler gp takes one objective here; choose tpe or nsgaii")
        if self.sampler == "grid":
            ranges = [key for key, values in self.space.items() if isinstance(values, SweepRange)]
            if ranges:
                raise ValueError(
                    f"sampler grid needs lists, but {', '.join(ranges)} is a range; list the values, or choose another sampler"
                )
        for goal in self.objective:
            if goal.metric.startswith("package."):
                raise ValueError(
                    f"objective {goal.metric}: the stage package has no metrics; take one of another stage, for example sft.validation_loss"
                )
        return self

    def _check_conditions(self) -> None:
        order = list(self.space)
        for key, allowed_values in self.only_if.items():
            if key not in self.space:
                raise ValueError(f"only_if names {key}, which is not in space; there are {', '.join(order)}")
            for other, value in allowed_values.items():
                if other not in order[: order.index(key)]:
                    raise ValueError(f"only_if.{key} asks for {other}, which must come before {key} in space")
                values = self.space[other]
                if not isinstance(values, list) or value not in values:
                    raise ValueError(
                        f"only_if.{key} asks for {other} = {value}, which is not in the list of space.{other}"
                    )
