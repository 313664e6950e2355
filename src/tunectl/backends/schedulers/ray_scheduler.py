"""Ray: a script, and ``ray job submit | status | logs | stop``. The job runs on a node of the cluster, which starts it once."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from tunectl.backends.schedulers import scheduler_command
from tunectl.core.errors import InfrastructureError
from tunectl.core.url_credentials import hide_credentials
from tunectl.jobs import job_script
from tunectl.jobs.job_records import JobRecord
from tunectl.jobs.job_spec import JobSpec

FILE: Final = "job.sh"
_STATES: Final = {
    "PENDING": "pending",
    "RUNNING": "running",
    "STOPPED": "canceled",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
}
_STATE: Final = re.compile(r"\bJOB '?[^\s']+'?(?: WAS|:)? (PENDING|RUNNING|STOPPED|SUCCEEDED|FAILED)\b")
_FORGOTTEN: Final = ("status code 404", "does not exist")
"""What ray says of a job that the cluster does not know any more; that it reached a cluster, it has checked before."""


def check(job: JobSpec) -> None:
    """Accept every job: Ray has no settings to refuse."""


def render_job_file(job: JobSpec) -> str:
    """Return the text of the job's shell script."""
    return f"#!/bin/bash\n{job_script.write_script(job)}"


def build_id(job: JobSpec) -> str:
    """Return the submission id of the job, which is ours to choose."""
    return job.name


def submit(job: JobSpec, folder: Path) -> str:
    """Send the script in ``folder`` to the cluster; return the submission id.

    Raises  InfrastructureError where ray is not installed, or the cluster refuses; UnconfirmedError where it may have the job.
    """
    section = job.section
    arguments = ["--no-wait", "--submission-id", job.name]
    if section.gpus:
        arguments += ["--entrypoint-num-gpus", str(section.gpus)]
    if section.cpus is not None:
        arguments += ["--entrypoint-num-cpus", str(section.cpus)]
    if section.memory_gb is not None:
        arguments += ["--entrypoint-memory", str(section.memory_gb * 10**9)]
    scheduler_command.require_program("ray")
    check_command = f"ray job status --address {hide_credentials(section.ray.address)} {job.name}"
    with tempfile.TemporaryDirectory() as working_dir:  # the job's folder has its record, too
        shutil.copy(folder / FILE, working_dir)
        command = ["ray", "job", "submit", "--address", section.ray.address, "--working-dir", working_dir]
        scheduler_command.send_job([*command, *arguments, "--", "bash", FILE], check_command=check_command)
    return job.name


def read_state(record: JobRecord) -> str:
    """Return the state of the job: pending, running, finished, canceled, failed or lost.

    Raises  InfrastructureError where ray is not installed, or the cluster does not answer.
    """
    try:
        return parse_state(_call_ray(record.location, "status", record.scheduler_id, with_errors=True))
    except InfrastructureError as error:
        if not any(text in error.message for text in _FORGOTTEN):
            raise
        return "lost"


def parse_state(text: str) -> str:
    """Return the state that ``ray job status`` printed: ``Status for job '...': RUNNING``, or ``Job '...' succeeded``."""
    match = _STATE.search(text.upper())
    return _STATES[match[1]] if match else "lost"


def build_log_command(record: JobRecord, *, follow: bool) -> list[str]:
    """Return the ``ray job logs`` command that prints the job's output, and with ``follow`` continues as it grows."""
    scheduler_command.require_program("ray")
    command = ["ray", "job", "logs", "--address", record.location]
    return [*command, *(["--follow"] if follow else []), record.scheduler_id]


def cancel(record: JobRecord) -> None:
    """Ask the cluster to stop the job, without waiting for its end.

    Raises  InfrastructureError where ray is not installed, or the cluster refuses.
    """
    _call_ray(record.location, "stop", "--no-wait", record.scheduler_id)


def _call_ray(address: str, verb: str, *arguments: str, with_errors: bool = False) -> str:
    scheduler_command.require_program("ray")
    return scheduler_command.call(["ray", "job", verb, "--address", address, *arguments], with_errors=with_errors)
