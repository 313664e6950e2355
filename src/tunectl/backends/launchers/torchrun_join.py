"""Join, from another machine, the trainings of a stage that the first machine drives."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.backends.launchers import agent_process, torchrun_agent, torchrun_launcher
from tunectl.backends.launchers.torchrun_agent import AgentSettings
from tunectl.backends.launchers.torchrun_launcher import FitSession
from tunectl.config.schema.launch import LaunchConfig, TorchrunLaunch
from tunectl.core import logging_setup
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.training import fit_request

_log = logging_setup.get_logger(__name__)
MEETING_SECONDS = 60
"""Seconds that one attempt to join the rendezvous takes, once the first machine is there."""
LOOKING_SECONDS = 0.5
"""Seconds between two checks for the first machine, or for the end of the stage."""


def join_stage(
    stage: str, config: LaunchConfig, scratch: Path, *, worker: Sequence[str] = torchrun_launcher.WORKER
) -> int:
    """Start ranks on this machine for each training of ``stage`` until the first machine has no more; return the number of trainings.

    ``scratch`` is a folder for the files of this machine's ranks.
    Raises  UsageError where the settings have only one machine; InfrastructureError where no other machine joins in time, or a training fails.
    """
    settings = config.root
    if not isinstance(settings, TorchrunLaunch) or settings.nnodes == 1:
        raise UsageError(
            f"tunectl run {stage} --join needs training on several machines, but the launch settings here are for one",
            hint="write the launch settings of the first machine into conf/ (launch=torchrun, launch.nnodes, launch.rdzv_endpoint, "
            "launch.storage_path), then: tunectl run compose",
        )
    storage = Path(settings.storage_path or "")
    before = _read_session(storage, stage)
    fits, last_contact = 0, time.monotonic()
    while not _has_ended(storage, stage, before):
        code = torchrun_agent.NOBODY_THERE
        if is_other_stage_training(storage, stage):
            last_contact = time.monotonic()
        elif is_listening(settings.rdzv_endpoint or ""):
            code = _take_part(scratch / name_own_folder(stage), stage, settings, worker)
        if code == 0:
            fits, last_contact = fits + 1, time.monotonic()
            _log.info("%s: fit %d is done on this machine", stage, fits)
        elif time.monotonic() - last_contact > settings.collective_timeout_seconds:
            raise InfrastructureError(
                f"{stage}: no other machine joined at {settings.rdzv_endpoint} within {settings.collective_timeout_seconds} s "
                "(launch.collective_timeout_seconds)",
                hint=f"run {stage} on the first machine, and check that this machine reaches that address",
            )
        else:
            time.sleep(LOOKING_SECONDS)
    return fits


def _take_part(folder: Path, stage: str, settings: TorchrunLaunch, worker: Sequence[str]) -> int:
    """Run the agent of this machine for one training; returns 0, or ``NOBODY_THERE`` where no other machine joined.

    Raises  the error that ended the fit; InfrastructureError where a rank fails too often.
    """
    shutil.rmtree(folder, ignore_errors=True)
    agent = _write_settings(folder, stage, settings, worker)
    fit = Path(agent.fit)
    code = agent_process.run_agent(folder, stage, stop=fit / fit_request.STOP, failure=fit / fit_request.FAILURE)
    if (fit / fit_request.RESULT).is_file():
        code = 0  # a rank died when all had finished
    if code:
        # a machine that does not see the shared folder has its own copy of the error here
        fit_request.raise_failure(fit)
    if code in {0, torchrun_agent.NOBODY_THERE}:
        shutil.rmtree(folder, ignore_errors=True)
        return code
    raise agent_process.describe_failure(folder, code, agent, stage)


def is_other_stage_training(storage: Path, stage: str) -> bool:
    """Return whether the machines run a training of another stage at this moment, which this process could not join."""
    paths = storage.absolute().glob(torchrun_launcher.session_path(Path(), "*").name)
    fitting = {path.name for path in paths if not atomic_io.read_json(path, FitSession).ended}
    return bool(fitting) and torchrun_launcher.session_path(storage, stage).name not in fitting


def name_own_folder(stage: str) -> str:
    """Return the name of a folder for this process's files: joining machines may share the project's folder."""
    return f"join-{stage}-{socket.gethostname()}-{os.getpid()}"


def is_listening(endpoint: str) -> bool:
    """Return whether the first machine listens at ``endpoint`` (HOST:PORT); torch itself would wait a minute for it."""
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except OSError:
        return False


def _write_settings(folder: Path, stage: str, settings: TorchrunLaunch, worker: Sequence[str]) -> AgentSettings:
    endpoint = settings.rdzv_endpoint or ""
    agent = AgentSettings(
        nproc_per_node=torchrun_launcher.count_ranks(settings, "cuda" if settings.nproc_per_node == "auto" else "cpu"),
        nnodes=settings.nnodes,
        max_restarts=settings.max_restarts,
        rdzv_endpoint=endpoint,
        is_host=False,
        join_timeout_seconds=MEETING_SECONDS,
        run_id=stage,
        local_addr=find_own_address(endpoint),
        worker=list(worker),
        fit=str(torchrun_launcher.fit_folder(Path(settings.storage_path or ""), stage)),
    )
    folder.mkdir(parents=True)
    atomic_io.write_json(folder / torchrun_agent.AGENT, agent)
    return agent


def find_own_address(endpoint: str) -> str:
    """Return the IP address by which the other machines reach this one: the one that it uses towards ``endpoint``.

    Raises  InfrastructureError where there is no route to it.
    """
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))  # connecting a UDP socket sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise InfrastructureError(
            f"launch.rdzv_endpoint = {endpoint}: {error}",
            hint="give the address of the first machine as seen from this one",
        ) from error


def _read_session(storage: Path, stage: str) -> FitSession | None:
    path = torchrun_launcher.session_path(storage, stage)
    if not path.is_file():
        return None
    session: FitSession = atomic_io.read_json(path, FitSession)
    return session


def _has_ended(storage: Path, stage: str, before: FitSession | None) -> bool:
    """Return whether the stage has ended since this machine joined; the end of an earlier run does not count."""
    session = _read_session(storage, stage)
    return session is not None and session.ended and session != before
