"""Launch distributed training with torchrun: write the request, start the ranks, wait, read the result.

    this process -> process_guard -> torchrun agent -> one worker per rank

The stage's process stays the driver. When it dies, by kill -9 too, all below it end; the next run resumes from the last checkpoint.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.backends.launchers import agent_process, torchrun_agent
from tunectl.backends.launchers.torchrun_agent import AgentSettings
from tunectl.config.schema.launch import TorchrunLaunch
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import import_optional
from tunectl.training import fit_request
from tunectl.training.fit_request import FitEnd, FitJob

FOLDER = "launch"
"""Folder of the launch files inside a training's work folder."""
WORKER = ("-m", "tunectl.backends.launchers.worker")


class FitSession(Struct, frozen=True):
    """File ``STAGE.session.json`` in the shared storage: the other machines join the stage's trainings until ``ended``."""

    id: str
    ended: bool


def fit_folder(storage: Path, stage: str) -> Path:
    """Return the folder in the shared ``storage`` that holds the requests of a stage's trainings for all machines."""
    return storage.absolute() / f"{stage}.fit"


def write_session(storage: Path, stage: str, *, ended: bool) -> None:
    """Write the ``FitSession`` of ``stage`` to ``storage``: it goes on, or has ended (``ended``)."""
    atomic_io.write_json(session_path(storage, stage), FitSession(uuid.uuid4().hex, ended))


def session_path(storage: Path, stage: str) -> Path:
    """Return the path of the stage's ``FitSession`` file in ``storage``."""
    return storage.absolute() / f"{stage}.session.json"


@dataclass
class TorchrunLauncher:
    """Runs trainings on torchrun, one after the other; ``ends`` records ranks, nodes, device and restarts of each."""

    settings: TorchrunLaunch
    worker: Sequence[str] = WORKER
    """Arguments for Python that start one rank."""
    ends: list[FitEnd[Any]] = field(default_factory=list)

    def run(self, job: FitJob) -> FitEnd[Any]:
        """Train on all ranks; return the trainer's result with ranks, nodes, device and restarts.

        Raises  the error that a rank raised; InfrastructureError where a rank fails too often, or after Ctrl-C.
        """
        ranks = count_ranks(self.settings, job.fit.profile.device)
        job = self._move_work(job)
        folder = self.find_folder(job)
        shutil.rmtree(folder, ignore_errors=True)
        self.write_request(job, folder)
        agent = AgentSettings(
            nproc_per_node=ranks,
            nnodes=self.settings.nnodes,
            max_restarts=self.settings.max_restarts,
            rdzv_endpoint=self.settings.rdzv_endpoint or "127.0.0.1:0",
            is_host=True,
            join_timeout_seconds=self.settings.collective_timeout_seconds,
            run_id=job.fit.label,
            local_addr=(self.settings.rdzv_endpoint or "127.0.0.1:0").rpartition(":")[0],
            worker=list(self.worker),
            fit=str(folder),
        )
        atomic_io.write_json(folder / torchrun_agent.AGENT, agent)
        code = agent_process.run_agent(folder, job.fit.label, stop=folder / fit_request.STOP)
        if code and not (folder / fit_request.RESULT).is_file():  # with it, a rank died when all had finished
            fit_request.raise_failure(folder)
            raise agent_process.describe_failure(folder, code, agent, job.fit.label)
        end = fit_request.read_end(folder, job.trainer)
        shutil.copytree(folder / fit_request.ADAPTER, job.out, dirs_exist_ok=True)
        shutil.rmtree(folder)
        if self.settings.storage_path:
            shutil.rmtree(job.work, ignore_errors=True)
        self.ends.append(end)
        return end

    def _move_work(self, job: FitJob) -> FitJob:
        """Return the job with its checkpoints where all machines see them."""
        storage = self.settings.storage_path
        return replace(job, work=Path(storage).absolute() / job.work.name) if storage else job

    def find_folder(self, job: FitJob) -> Path:
        """Return the folder for the request and the result: in the shared storage if there is one, else beside the checkpoints."""
        storage = self.settings.storage_path
        return fit_folder(Path(storage), job.fit.label) if storage else job.work.absolute() / FOLDER

    def close(self, stage: str) -> None:
        """Record for the other machines that ``stage`` has no more trainings."""
        if self.settings.nnodes > 1 and self.settings.storage_path:
            write_session(Path(self.settings.storage_path), stage, ended=True)

    def write_request(self, job: FitJob, folder: Path) -> None:
        """Write the request and the rows, which every rank reads, to ``folder``."""
        folder.mkdir(parents=True)
        if self.settings.nnodes > 1 and self.settings.storage_path:
            write_session(Path(self.settings.storage_path), job.fit.label, ended=False)
        fit_request.write_rows(folder, job.train, job.validation)
        request = fit_request.build_request(
            job,
            job.work,
            sharded=self.settings.shard == "layers",
            collective_timeout_seconds=self.settings.collective_timeout_seconds,
        )
        atomic_io.write_json(folder / fit_request.REQUEST, request)


def count_ranks(settings: TorchrunLaunch, device: str) -> int:
    """Return the number of ranks on this machine: ``nproc_per_node``, or for ``auto`` its number of GPUs.

    Raises  UsageError for ``auto`` where ``device`` is not cuda; InfrastructureError where torch sees no GPU, or fewer GPUs than ranks.
    """
    ranks = settings.nproc_per_node
    if device != "cuda":
        if ranks == "auto":
            raise UsageError(
                f"launch.nproc_per_node = auto counts GPUs, and hardware.device is {device}",
                hint="give the number of processes, for example launch.nproc_per_node=2, or stay in one: launch=local",
            )
        return ranks
    cards = int(import_optional("torch.cuda", extra="train").device_count())
    if cards < 1 or (ranks != "auto" and ranks > cards):
        raise InfrastructureError(
            f"launch.nproc_per_node = {ranks}, and torch sees {cards} GPUs",
            hint=("" if cards < 1 else f"set it to at most {cards}, or ") + "check nvidia-smi and CUDA_VISIBLE_DEVICES",
        )
    return cards if ranks == "auto" else ranks
