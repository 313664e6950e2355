"""Fit by torchrun: write the request, start the ranks, wait, read how it went.

    we -> process_guard -> torchrun agent -> one worker a rank

The stage stays the driver. When it dies, by kill -9 too, all below it end; the next run goes on from the last checkpoint.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.backends.launchers import torchrun_agent
from tunectl.backends.launchers.torchrun_agent import AgentSettings, FailedRank
from tunectl.backends.trainers import trainer_loop
from tunectl.config.schema.launch import TorchrunLaunch
from tunectl.core import logging_setup
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import import_optional
from tunectl.training import fit_request
from tunectl.training.fit_request import FitEnd, FitJob, FitRequest
from tunectl.training.train_args import TrainingArgs

_log = logging_setup.get_logger(__name__)
FOLDER = "launch"
"""Folder of a fit inside its work."""
WORKER = ("-m", "tunectl.backends.launchers.worker")
PATIENCE_SECONDS = 40.0
"""From the request to end until all is ended by force; torchrun gives its workers 30."""
LOG_LINES = 12


@dataclass
class TorchrunLauncher:
    """Runs fits one after the other; ``ends`` says how they were run."""

    settings: TorchrunLaunch
    worker: Sequence[str] = WORKER
    """Arguments of Python that start one rank."""
    ends: list[FitEnd] = field(default_factory=list)

    def run(self, job: FitJob) -> FitEnd:
        """Fit on all ranks.

        Raises  the error that a rank raised; InfrastructureError where a rank fails too often, or after Ctrl-C.
        """
        ranks = self.count_ranks(job.fit)
        folder = job.work.absolute() / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        self.write_request(job, folder)
        agent = AgentSettings(
            nproc_per_node=ranks,
            nnodes=1,
            max_restarts=self.settings.max_restarts,
            rdzv_endpoint="127.0.0.1:0",
            run_id=uuid.uuid4().hex,
            local_addr="127.0.0.1",
            worker=list(self.worker),
        )
        atomic_io.write_json(folder / torchrun_agent.AGENT, agent)
        if _wait(folder, job.fit):
            fit_request.raise_failure(folder)
            raise _describe_failure(folder, job.fit.label, self.settings.max_restarts)
        end = fit_request.read_end(folder)
        shutil.copytree(folder / fit_request.ADAPTER, job.out, dirs_exist_ok=True)
        shutil.rmtree(folder)
        self.ends.append(end)
        return end

    def write_request(self, job: FitJob, folder: Path) -> None:
        """Write what every rank reads."""
        folder.mkdir(parents=True)
        fit_request.write_rows(folder, job.train, job.validation)
        request = FitRequest(
            trainer=job.trainer,
            plan=fit_request.encode_plan(job.plan),
            model=str(job.model.absolute()),
            sft=str(job.sft.absolute()) if job.sft else None,
            work=str(job.work.absolute()),
            backend="nccl" if job.fit.profile.device == "cuda" else "gloo",
            sharded=self.settings.shard == "layers",
            collective_timeout_seconds=self.settings.collective_timeout_seconds,
        )
        atomic_io.write_json(folder / fit_request.REQUEST, request)

    def count_ranks(self, fit: TrainingArgs) -> int:
        """Ranks of this machine.

        Raises  UsageError where ``auto`` has no cards to count; InfrastructureError where there are too few.
        """
        asked = self.settings.nproc_per_node
        if fit.profile.device != "cuda":
            if asked == "auto":
                raise UsageError(
                    f"launch.nproc_per_node = auto counts cards, and hardware.device is {fit.profile.device}",
                    hint="give the number of processes, for example launch.nproc_per_node=2, or stay in one: launch=local",
                )
            return asked
        cards = int(import_optional("torch.cuda", extra="train").device_count())
        if cards < 1 or (asked != "auto" and asked > cards):
            raise InfrastructureError(
                f"launch.nproc_per_node = {asked}, and torch sees {cards} cards",
                hint="give a smaller number, or look at nvidia-smi and CUDA_VISIBLE_DEVICES",
            )
        return cards if asked == "auto" else asked


@dataclass
class _Waiting:
    """What Ctrl-C stops."""

    plan: TrainingArgs
    stopped: bool = False


def _wait(folder: Path, plan: TrainingArgs) -> int:
    """Start the agent and wait for its end; returns its exit code. Ctrl-C lets the step under way finish; a second one does not."""
    command = ["-m", "tunectl.backends.system.process_guard", "0", "0", sys.executable, "-m", torchrun_agent.__name__]
    process = subprocess.Popen(
        [sys.executable, *command, str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in the terminal reaches us alone
        env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
    )
    waiting = _Waiting(plan)
    try:
        with trainer_loop.stop_on_ctrl_c(waiting):
            while (code := process.poll()) is None:
                if waiting.stopped:
                    (folder / fit_request.STOP).touch()
                time.sleep(0.1)
    finally:
        _end(process)
    return code


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the agent's group, kindly at first."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _describe_failure(folder: Path, label: str, max_restarts: int) -> InfrastructureError:
    """One error for a rank that failed more often than it may."""
    if not (folder / torchrun_agent.FAILED).is_file():
        return InfrastructureError(
            f"{label}: the torchrun agent ended before its ranks",
            hint=f"its log is {folder / torchrun_agent.LOGS / 'agent.log'}",
        )
    failed: FailedRank = atomic_io.read_json(folder / torchrun_agent.FAILED, FailedRank)
    crash = fit_request.first_crash(folder) if failed.exit_code >= 0 else None
    rank = failed.rank if crash is None else crash.rank
    how = signal.Signals(-failed.exit_code).name if failed.exit_code < 0 else f"exit code {failed.exit_code}"
    tail = crash.traceback.strip().splitlines()[-LOG_LINES:] if crash else []
    words = "".join(f"\n    {line}" for line in tail)
    return InfrastructureError(
        f"{label}: rank {rank} ended with {how}, and launch.max_restarts is {max_restarts}{words}",
        hint=f"logs of all ranks are in {folder / torchrun_agent.LOGS}; checkpoints are kept: run the same command to go on",
    )
