"""SLURM: an sbatch script, and sbatch, squeue, scontrol and scancel. Slurm 24.11 was tried; the options are older."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tunectl.backends.schedulers import scheduler_command
from tunectl.backends.schedulers.scheduler_command import UnconfirmedError
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.jobs import job_script
from tunectl.jobs.job_records import JobRecord
from tunectl.jobs.job_spec import JobSpec

FILE: Final = "job.sbatch"
LOG: Final = "job.log"
_STATES: Final = {
    "PENDING": "pending",
    "CONFIGURING": "pending",
    "REQUEUED": "pending",
    "REQUEUE_HOLD": "pending",
    "REQUEUE_FED": "pending",
    "SUSPENDED": "pending",
    "RESIZING": "running",
    "RUNNING": "running",
    "COMPLETING": "running",
    "COMPLETED": "finished",
    "CANCELLED": "canceled",
}
"""SLURM's states to ours; any other is a failure. Source: squeue(1), "JOB STATE CODES"."""
_FORGOTTEN: Final = "Invalid job id"
"""What squeue says of a job that ended a while ago."""
_CLUSTER: Final = "CLUSTER:"
"""What begins the line of squeue that names the cluster, where one was asked by name."""
_CLUSTERS_OPTION: Final = "--clusters="
_SUBMITTED: Final = re.compile(r"(\d+)(;[^\n]*)?\s*")


def check(job: JobSpec) -> None:
    """Refuse job settings that SLURM cannot use.

    Raises  UsageError without a storage path.
    """
    if job.storage is None:
        raise UsageError(
            "submit.storage_path is null, and a job of SLURM needs a folder that this machine and its nodes see",
            hint="tunectl submit run STAGE submit.storage_path=/shared/jobs, or write it into conf/submit/",
        )


def render_job_file(job: JobSpec) -> str:
    """Return the text of the job's sbatch script."""
    return "\n".join(
        ["#!/bin/bash", *(f"#SBATCH {line}" for line in _iter_options(job)), "", job_script.write_script(job)]
    )


def log_path(job: JobSpec) -> str:
    """Return the path of the file on the cluster that gets the job's output."""
    return f"{job.storage}/{LOG}"


def _iter_options(job: JobSpec) -> Iterator[str]:
    section = job.section
    yield f"--job-name={job.name}"
    yield f"--output={_quote_path(log_path(job))}"
    yield "--open-mode=append"
    yield f"--nodes={section.nodes}"
    yield "--ntasks-per-node=1"
    if section.gpus:
        yield f"--gpus-per-node={section.gpus}"
    if section.cpus is not None:
        yield f"--cpus-per-task={section.cpus}"
    if section.memory_gb is not None:
        yield f"--mem={section.memory_gb}G"
    yield f"--time={job.minutes}"
    yield "--requeue"
    yield f"--signal=B:USR1@{section.grace_seconds}"
    yield from section.slurm.options


def _quote_path(path: str) -> str:
    """Quote a path for a line of ``#SBATCH``: sbatch knows quotes and backslashes, and replaces what follows a percent sign."""
    return '"' + re.sub(r'(["\\])', r"\\\1", path).replace("%", "%%") + '"'


def build_id(job: JobSpec) -> str:
    """Return what squeue finds the job by before sbatch has said its number: ``NAME``, or ``NAME;CLUSTER``."""
    clusters = [option for option in job.section.slurm.options if option.startswith(_CLUSTERS_OPTION)]
    return f"{job.name};{clusters[-1].removeprefix(_CLUSTERS_OPTION)}" if clusters else job.name


def submit(job: JobSpec, folder: Path) -> str:
    """Submit the script in ``folder`` with sbatch; return the job id, with the cluster if sbatch names it: ``7;gpu``.

    Raises:
        InfrastructureError: sbatch is not installed or refuses, or storage_path cannot be written from this machine.
        UnconfirmedError: SLURM may have the job, but its number is not known.
    """
    scheduler_command.require_program("sbatch")
    try:
        Path(str(job.storage)).mkdir(parents=True)
    except OSError as error:
        raise InfrastructureError(
            f"cannot make {job.storage}: {error.strerror}",
            hint="set submit.storage_path to a folder that this machine and all nodes see at the same path, and may write to",
        ) from error
    check_command = " ".join(["squeue", *_select_job(build_id(job), "--jobs=")])
    printed = scheduler_command.send_job(
        ["sbatch", "--parsable", str((folder / FILE).absolute())], check_command=check_command
    )
    number = _SUBMITTED.fullmatch(printed)
    if number is None:
        raise UnconfirmedError(
            f"sbatch printed {printed.strip()!r}, which is not a job id",
            hint="run sbatch --parsable yourself: a wrapper of your site may print more; then look at squeue for the job",
        )
    return printed.strip().rstrip(";")


def read_state(record: JobRecord) -> str:
    """Return the state of the job: pending, running, finished, canceled, failed or lost.

    SLURM forgets a job some minutes after its end; then the state comes from the job's folder. A job that was preempted
    outside its build has noted a failure there, and waits in the queue all the same.
    Raises  InfrastructureError where squeue is not installed or SLURM does not answer, and the job has noted no end.
    """
    note = read_note(record)
    if note == "finished":
        return note
    try:
        code = _ask(record, "%T")
    except InfrastructureError:
        if note != "failed":
            raise
        return note
    state = _STATES.get(code, "failed") if code else {"stopped": "canceled"}.get(note or "", "lost")
    return "failed" if note == "failed" and state in {"finished", "lost"} else state


def read_reason(record: JobRecord) -> str:
    """Return why a job waits, as SLURM's code, for example PartitionTimeLimit; empty where there is none.

    Raises  InfrastructureError where squeue is not installed, or SLURM does not answer.
    """
    reason = _ask(record, "%r")
    return "" if reason == "None" else reason


def _ask(record: JobRecord, field: str) -> str:
    scheduler_command.require_program("sbatch")
    selection = _select_job(record.scheduler_id, "--jobs=")
    try:
        printed = scheduler_command.call(["squeue", "--noheader", "--states=all", f"--format={field}", *selection])
    except InfrastructureError as error:
        if _FORGOTTEN not in error.message:
            raise
        return ""
    lines = [line.strip() for line in printed.splitlines() if not line.startswith(_CLUSTER)]
    return next(filter(None, lines), "")


def _select_job(scheduler_id: str, option: str) -> list[str]:
    """Return the arguments of squeue and scancel that name a job and its cluster; ``option`` stands before its number."""
    job, _, cluster = scheduler_id.partition(";")
    selection = [f"{option}{job}" if job.isdecimal() else f"--name={job}"]
    return [f"{_CLUSTERS_OPTION}{cluster}", *selection] if cluster else selection


def read_note(record: JobRecord) -> str | None:
    """Return the first word of the state file that the job writes to its storage; None if this machine has none, or an empty one."""
    if record.storage is None:
        return None
    path = Path(record.storage) / job_script.STATE
    content = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return next(iter(content.split(maxsplit=1)), None)


def build_log_command(record: JobRecord, *, follow: bool) -> list[str]:
    """Return the command that prints the job's output file, and with ``follow`` continues as it grows."""
    path = f"{record.storage}/{LOG}"
    if not Path(path).is_file():
        raise InfrastructureError(
            f"{path} does not exist yet: the job has written nothing",
            hint=f"its state: tunectl submit status {record.id}",
        )
    return ["tail", "--lines=+1", *(["--follow"] if follow else []), "--", path]


def cancel(record: JobRecord) -> None:
    """Cancel the job with scancel.

    Raises  InfrastructureError where scancel is not installed, or SLURM refuses.
    """
    scheduler_command.require_program("sbatch")
    scheduler_command.call(["scancel", *_select_job(record.scheduler_id, "")])
