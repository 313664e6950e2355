"""Request and result of distributed training: files in one folder, for any launcher.

fit.json      the request: arguments, model, folders
rows.msgpack  training and validation rows, written once
result.json   the end of a successful training, written last
failure.json  an error that another attempt would not solve
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
    """Arguments of one call of a trainer's ``fit``; a launcher writes them to ``fit.json`` and ``rows.msgpack`` for the ranks."""

    trainer: TrainerName
    plan: TrainingArgs | RewardArgs | RlArgs
    model: Path
    sft: Path | None
    train: Sequence[FitRow]
    """Training rows; for align one ``PolicyData`` with everything."""
    validation: Sequence[FitRow]
    out: Path
    """Folder for the adapter."""
    work: Path
    """Folder of the checkpoints, which survives a kill."""
    reward: Path | None = None
    """The reward model for align, if there is one."""

    @property
    def fit(self) -> TrainingArgs | RlArgs:
        """The ``TrainingArgs`` or ``RlArgs`` in ``plan``; for a reward model those inside its ``RewardArgs``."""
        return self.plan.fit if isinstance(self.plan, RewardArgs) else self.plan


class FitLauncher(Protocol):
    """Runs the trainings of one stage on several processes, local or on a cluster."""

    ends: list[FitEnd[Any]]
    """Results of the trainings so far."""

    def run(self, job: FitJob) -> FitEnd[Any]:
        """Train and return the result; the adapter is written to ``job.out``.

        Raises  the error that a rank raised; InfrastructureError where ranks fail too often, or after Ctrl-C.
        """

    def close(self, stage: str) -> None:
        """Tell waiting machines, if there are any, that the stage named ``stage`` has no more trainings."""


class FitRequest(Struct, frozen=True):
    """Content of ``fit.json``: one training as every rank reads it; paths are absolute."""

    trainer: TrainerName
    plan: dict[str, Any]
    """``TrainingArgs`` of sft and cpt, ``RewardArgs`` of reward, ``RlArgs`` of align, as plain values."""
    model: str
    sft: str | None
    """The adapter below a reward model, or the one that align trains."""
    reward: str | None
    """The reward model for align."""
    work: str
    """Folder of the checkpoints."""
    device: str
    id: str
    """Random id of this training, which ranks compare to detect that they read different folders."""
    sharded: bool
    collective_timeout_seconds: int


class FitEnd(Struct, Generic[R], frozen=True):
    """Content of ``result.json``: the result of a training, the ranks and nodes it ran on, and its number of restarts."""

    result: R
    ranks: int
    nodes: int
    device: str
    restarts: int
    """Number of restarts of all ranks after one had failed."""


class Failure(Struct, frozen=True):
    """Content of ``failure.json``: a TunectlError of a rank, which the process that started the training raises again."""

    error: str
    """Name of its class in ``core/errors.py``."""
    message: str
    hint: str
    rank: int


class Crash(Struct, frozen=True):
    """Content of ``crash-RANK.json``: an unexpected error of one rank, after which all ranks are restarted."""

    rank: int
    attempt: int
    """Number of restarts before it."""
    at: float
    """Seconds since 1970."""
    traceback: str


def encode_plan(plan: TrainingArgs | RewardArgs | RlArgs) -> dict[str, Any]:
    """Return the arguments as a dict of JSON values, for ``FitRequest.plan``."""
    result: dict[str, Any] = msgspec.to_builtins(plan, enc_hook=_encode)
    return result


def decode_plan(plan: dict[str, Any], shape: type[T]) -> T:
    """Return the arguments that ``encode_plan`` encoded, as an object of type ``shape``."""
    return msgspec.convert(plan, shape, dec_hook=_decode)


def decode_rl_plan(plan: dict[str, Any]) -> RlArgs:
    """Return the arguments of align from an encoded plan; their ``settings`` get the class of the method (Rloo, Grpo, Dpo or Kto)."""
    settings: Any = AlignConfig.model_validate(plan["settings"]).root
    return RlArgs(settings, plan["seed"], HardwareProfile(**plan["profile"]), plan["project"])


def build_request(job: FitJob, work: Path, *, sharded: bool, collective_timeout_seconds: int) -> FitRequest:
    """Return the request to write for ``job``; ``work`` is the folder of the checkpoints. ``sharded``: the ranks share the weights (FSDP)."""
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
    """Write the training and validation rows to ``rows.msgpack`` in ``folder``."""
    atomic_io.write_bytes(folder / ROWS, msgspec.msgpack.encode([train, validation]))


def read_rows(folder: Path, shape: type[T]) -> tuple[list[T], list[T]]:
    """Return (training rows, validation rows) of type ``shape`` from ``rows.msgpack`` in ``folder``."""
    content = (folder / ROWS).read_bytes()
    result: tuple[list[T], list[T]] = msgspec.msgpack.decode(content, type=tuple[list[shape], list[shape]])  # type: ignore[valid-type]
    return result


def record_failure(folder: Path, error: TunectlError, rank: int) -> None:
    """Write ``error`` of ``rank`` to ``failure.json`` in ``folder``, unless another rank has written one."""
    if not (folder / FAILURE).is_file():
        atomic_io.write_json(folder / FAILURE, Failure(type(error).__name__, error.message, error.hint, rank))


def record_crash(folder: Path, traceback: str, rank: int, attempt: int) -> None:
    """Write the traceback of ``rank`` to ``crash-RANK.json`` in ``folder``; ``attempt`` is the number of restarts before."""
    atomic_io.write_json(folder / f"crash-{rank}.json", Crash(rank, attempt, time.time(), traceback))


def first_crash(folder: Path) -> Crash | None:
    """Return the earliest crash of the last attempt, which caused the others; None without a crash.

    Records of earlier attempts are ignored: a rank that torchrun kills before it can write leaves its old one.
    """
    crashes: list[Crash] = [atomic_io.read_json(path, Crash) for path in sorted(folder.glob("crash-*.json"))]
    return min(crashes, key=lambda crash: (-crash.attempt, crash.at), default=None)


def raise_failure(folder: Path) -> None:
    """Raise the error in ``failure.json`` of ``folder``; do nothing where there is none.

    Raises  the TunectlError that a rank raised.
    """
    if not (folder / FAILURE).is_file():
        return
    failure: Failure = atomic_io.read_json(folder / FAILURE, Failure)
    raise build_error(failure)


def build_error(failure: Failure) -> TunectlError:
    """Return the TunectlError that another process recorded as ``failure``."""
    kind: Any = getattr(errors, failure.error, TunectlError)
    message = [failure.message] if kind is errors.ConfigError else failure.message
    error: TunectlError = kind(message, hint=failure.hint)
    return error


def read_result(path: Path, trainer: TrainerName) -> FitEnd[Any]:
    """Return the result of a training by ``trainer`` from the file ``path``."""
    shape: Any = FitEnd[RlResult] if trainer == "align" else FitEnd[TrainResult]
    end: FitEnd[Any] = atomic_io.read_json(path, shape)
    return end


def read_end(folder: Path, trainer: TrainerName) -> FitEnd[Any]:
    """Return the result of a training by ``trainer`` from ``result.json`` in ``folder``.

    Raises  the error that ended it; ArtifactError where there is neither a result nor an error.
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
