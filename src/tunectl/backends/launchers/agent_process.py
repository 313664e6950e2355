"""The process of a torchrun agent: started below ``process_guard``, waited for, ended, and what its failure means."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.backends.launchers import torchrun_agent
from tunectl.backends.launchers.torchrun_agent import AgentSettings, FailedRank
from tunectl.backends.system.exit_status import describe_exit, suggest_after_kill
from tunectl.backends.trainers import trainer_loop
from tunectl.core.errors import InfrastructureError
from tunectl.training import fit_request

STOP_TIMEOUT_SECONDS = 40.0
"""Seconds from the request to stop until all processes are killed; torchrun gives its workers 30."""
AGENT_END_SECONDS = 20.0
"""Seconds from a failure of a rank here to the end of its agent; the ranks on other machines learn of it meanwhile."""
LOG_LINES = 12


@dataclass
class StopRequest:
    """Flag that Ctrl-C sets while a training runs in other processes; see ``trainer_loop.stop_on_ctrl_c``."""

    label: str
    """Name of the training in the message."""
    stopped: bool = False

    @property
    def plan(self) -> StopRequest:
        """This object itself, since ``stop_on_ctrl_c`` reads the label of a training as ``run.plan.label``."""
        return self


def run_agent(folder: Path, label: str, *, stop: Path, failure: Path | None = None) -> int:
    """Start the torchrun agent whose agent.json is in ``folder`` and wait for its end; return its exit code.

    Ctrl-C creates the file ``stop``, so that the current step finishes; a second one ends all at once. Once a rank of this
    machine has written the file ``failure``, the agent is ended: it would wait five minutes for the agents of other machines.
    """
    command = ["-m", "tunectl.backends.system.process_guard", "0", "0", sys.executable, "-m", torchrun_agent.__name__]
    process = subprocess.Popen(
        [sys.executable, *command, str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in the terminal reaches this process only
        env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
    )
    waiting = StopRequest(label)
    try:
        with trainer_loop.stop_on_ctrl_c(waiting):
            while (code := process.poll()) is None:
                if waiting.stopped:
                    stop.touch()
                if failure is not None and failure.is_file():
                    time.sleep(AGENT_END_SECONDS)
                    return process.poll() or torchrun_agent.RANK_FAILED
                time.sleep(0.1)
    finally:
        _end(process)
    return code


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the agent's process group, with SIGTERM first."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdin is not None:
        process.stdin.close()


def describe_failure(folder: Path, code: int, agent: AgentSettings, label: str) -> InfrastructureError:
    """Return an error that says why the agent with exit code ``code`` failed: the failed rank, its traceback and logs, or that no machine joined.

    ``folder`` is the agent's folder; ``label`` names the training.
    """
    if code == torchrun_agent.NOBODY_THERE:
        return InfrastructureError(
            f"{label}: the machines did not meet at {agent.rdzv_endpoint} within {agent.join_timeout_seconds} s "
            f"(launch.nnodes = {agent.nnodes})",
            hint=f"start on each of the others: tunectl run {label} --join, and look whether they reach that address",
        )
    if not (folder / torchrun_agent.FAILED).is_file():
        return InfrastructureError(
            f"{label}: the torchrun agent ended with {describe_exit(code)} before its ranks",
            hint=f"its log is {folder / torchrun_agent.LOGS / 'agent.log'}; checkpoints are kept: run the same command again to resume",
        )
    failed: FailedRank = atomic_io.read_json(folder / torchrun_agent.FAILED, FailedRank)
    crash = fit_request.first_crash(Path(agent.fit)) if failed.exit_code >= 0 else None
    rank = failed.rank if crash is None else crash.rank
    tail = crash.traceback.strip().splitlines()[-LOG_LINES:] if crash else []
    lines = "".join(f"\n    {line}" for line in tail)
    return InfrastructureError(
        f"{label}: rank {rank} ended with {describe_exit(failed.exit_code)}, and launch.max_restarts is {agent.max_restarts}{lines}",
        hint=suggest_after_kill(failed.exit_code, "lower hardware.train_batch_tokens or launch.nproc_per_node")
        + f"logs of all ranks are in {folder / torchrun_agent.LOGS}; checkpoints are kept: run the same command again to resume",
    )
