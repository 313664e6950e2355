"""Request and result of distributed training: files in one folder, which any launcher can carry.

fit.json      the request: plan, model, folders
rows.msgpack  training and validation rows, written once
result.json   the end of a fit that went well, written last
failure.json  an error that trying again would not mend
stop          somebody pressed Ctrl-C: finish the step, save, end
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec
from msgspec import Struct
from pydantic import BaseModel

from tunectl.artifacts import atomic_io
from tunectl.config.schema.align import AlignConfig
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core import errors
from tunectl.core.errors import ArtifactError, TunectlError
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.protocols import TrainResult
from tunectl.training.reward.pair_batches import PromptGroup
from tunectl.training.reward.reward_args import RewardArgs
from tunectl.training.rl.rl_types import PolicyData, RlArgs, RlResult
from tunectl.training.train_args import TrainingArgs

REQUEST, ROWS, RESULT, FAILURE, STOP = "fit.json", "rows.msgpack", "result.json", "failure.json", "stop"
ADAPTER = "adapter"
"""Folder of the adapter that the first rank writes."""
T = TypeVar("T")
R = TypeVar("R", bound=TrainResult | RlResult)
FitRow = PackedRow | PromptGroup | PolicyData
TrainerName = Literal["sft", "reward", "align"]


@dataclass(frozen=True, slots=True)
class FitJob:
    """What a trainer was asked for, before it is written down."""

    trainer: TrainerName
    plan: TrainingArgs | RewardArgs | RlArgs
    model: Path
    sft: Path | None
    train: Sequence[FitRow]
    """Rows to learn from; of align one ``PolicyData`` that holds everything."""
    validation: Sequence[FitRow]
    out: Path
    """Folder that gets the adapter."""
    work: Path
    """Folder of the checkpoints, which survives a kill."""
    reward: Path | None = None
    """The reward model that align learns from, where it does."""

    @property
    def fit(self) -> TrainingArgs | RlArgs:
        """The part of the plan that all kinds of fits have."""
        return self.plan.fit if isinstance(self.plan, RewardArgs) else self.plan


class FitLauncher(Protocol):
    """Carries out fits on several processes."""

    ends: list[FitEnd[Any]]
    """How the fits so far went."""

    def run(self, job: FitJob) -> FitEnd[Any]:
        """Fit; the adapter goes to ``job.out``.

        Raises  the error that a rank raised; InfrastructureError where ranks fail too often, or after Ctrl-C.
        """

    def close(self, stage: str) -> None:
        """Say that ``stage`` has no more fits."""


class FitRequest(Struct, frozen=True):
    """One fit, as every rank reads it; paths are absolute."""

    trainer: TrainerName
    plan: dict[str, Any]
    """``TrainingArgs`` of sft and cpt, ``RewardArgs`` of reward, ``RlArgs`` of align, as plain values."""
    model: str
    sft: str | None
    """The adapter below a reward model, or that align trains on."""
    reward: str | None
    """The reward model that align learns from."""
    work: str
    """Folder of the checkpoints."""
    device: str
    id: str
    """Of this fit: who reads another one is in another folder."""
    sharded: bool
    collective_timeout_seconds: int


class FitEnd(Struct, Generic[R], frozen=True):
    """How a fit went, and on what."""

    result: R
    ranks: int
    nodes: int
    device: str
    restarts: int
    """Times that all ranks were started again after one had failed."""


class Failure(Struct, frozen=True):
    """An error of ours, to be raised again by whoever started the fit."""

    error: str
    """Name of its class in ``core/errors.py``."""
    message: str
    hint: str
    rank: int


class Crash(Struct, frozen=True):
    """An end of a rank that is tried again."""

    rank: int
    attempt: int
    """Times that all ranks were started again before it."""
    at: float
    """Seconds since 1970."""
    traceback: str


def encode_plan(plan: TrainingArgs | RewardArgs | RlArgs) -> dict[str, Any]:
    """Return ``plan`` as plain values."""
    result: dict[str, Any] = msgspec.to_builtins(plan, enc_hook=_encode)
    return result


def decode_plan(plan: dict[str, Any], shape: type[T]) -> T:
    """Decode the plan that ``encode_plan`` encoded."""
    return msgspec.convert(plan, shape, dec_hook=_decode)


def decode_rl_plan(plan: dict[str, Any]) -> RlArgs:
    """Decode the plan of align; what its settings are follows from the method that they name."""
    settings: Any = AlignConfig.model_validate(plan["settings"]).root
    return RlArgs(settings, plan["seed"], HardwareProfile(**plan["profile"]), plan["project"])


def build_request(job: FitJob, work: Path, *, sharded: bool, collective_timeout_seconds: int) -> FitRequest:
    """Return the request of ``job``, with its checkpoints in ``work``."""
    plan, fit = job.plan, job.fit
    if isinstance(fit, TrainingArgs):
        fit = replace(fit, init_adapter=fit.init_adapter.absolute() if fit.init_adapter else None)
        plan = replace(plan, fit=fit) if isinstance(plan, RewardArgs) else fit
    return FitRequest(
        trainer=job.trainer,
        plan=encode_plan(plan),
        model=str(job.model.absolute()),
        sft=str(job.sft.absolute()) if job.sft else None,
        reward=str(job.reward.absolute()) if job.reward else None,
        work=str(work.absolute()),
        device=job.fit.profile.device,
        id=uuid.uuid4().hex,
        sharded=sharded,
        collective_timeout_seconds=collective_timeout_seconds,
    )


def write_rows(folder: Path, train: Sequence[FitRow], validation: Sequence[FitRow]) -> None:
    """Write the rows of a fit."""
    atomic_io.write_bytes(folder / ROWS, msgspec.msgpack.encode([train, validation]))


def read_rows(folder: Path, shape: type[T]) -> tuple[list[T], list[T]]:
    """Return training and validation rows of ``shape``, as ``write_rows`` got them."""
    content = (folder / ROWS).read_bytes()
    result: tuple[list[T], list[T]] = msgspec.msgpack.decode(content, type=tuple[list[shape], list[shape]])  # type: ignore[valid-type]
    return result


def record_failure(folder: Path, error: TunectlError, rank: int) -> None:
    """Keep ``error`` for whoever started the fit; the first of several ranks counts."""
    if not (folder / FAILURE).is_file():
        atomic_io.write_json(folder / FAILURE, Failure(type(error).__name__, error.message, error.hint, rank))


def record_crash(folder: Path, traceback: str, rank: int, attempt: int) -> None:
    """Keep how ``rank`` ended."""
    atomic_io.write_json(folder / f"crash-{rank}.json", Crash(rank, attempt, time.time(), traceback))


def first_crash(folder: Path) -> Crash | None:
    """Return the crash of the last attempt that came first: the others followed from it.

    A rank that torchrun ends before it can write leaves its record of an earlier attempt behind.
    """
    crashes: list[Crash] = [atomic_io.read_json(path, Crash) for path in sorted(folder.glob("crash-*.json"))]
    return min(crashes, key=lambda crash: (-crash.attempt, crash.at), default=None)


def raise_failure(folder: Path) -> None:
    """Raise the error that ended the fit, where one did.

    Raises  the TunectlError that a rank raised.
    """
    if not (folder / FAILURE).is_file():
        return
    failure: Failure = atomic_io.read_json(folder / FAILURE, Failure)
    raise build_error(failure)


def build_error(failure: Failure) -> TunectlError:
    """Return the error that was raised in another process."""
    kind: Any = getattr(errors, failure.error, TunectlError)
    message = [failure.message] if kind is errors.ConfigError else failure.message
    error: TunectlError = kind(message, hint=failure.hint)
    return error


def read_result(path: Path, trainer: TrainerName) -> FitEnd[Any]:
    """Return the end of a fit of ``trainer`` that was written to ``path``."""
    shape: Any = FitEnd[RlResult] if trainer == "align" else FitEnd[TrainResult]
    end: FitEnd[Any] = atomic_io.read_json(path, shape)
    return end


def read_end(folder: Path, trainer: TrainerName) -> FitEnd[Any]:
    """Return how the fit of ``trainer`` went.

    Raises  the error that ended it; ArtifactError where it neither ended well nor said why.
    """
    raise_failure(folder)
    if not (folder / RESULT).is_file():
        raise ArtifactError(
            f"{folder / RESULT} does not exist, though all ranks ended well", hint="run the command again"
        )
    return read_result(folder / RESULT, trainer)


def _encode(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def _decode(kind: type[Any], value: Any) -> Any:
    return kind(**value) if issubclass(kind, BaseModel) else kind(value)
