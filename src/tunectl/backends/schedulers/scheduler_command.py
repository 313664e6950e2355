"""Call the command-line program of a scheduler."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tunectl.core.errors import InfrastructureError

TIMEOUT_SECONDS: Final = 120
MESSAGE_CHARS: Final = 1000
"""Length of a program's message in an error; Ray's about a missing token has 700 characters."""
INSTALL: Final = {
    "sbatch": "SLURM's client, on a machine that may submit (Debian: apt-get install slurm-client)",
    "kubectl": "kubectl (https://kubernetes.io/docs/tasks/tools), with a kubeconfig of the cluster",
    "ray": "pip install 'ray[default]', in the version of the cluster",
}
"""What to install, by the program whose absence shows it."""
_UNANSWERED: Final = (
    *("timed out", "timeout", "deadline exceeded", "zero bytes were transmitted"),
    *("unexpected eof", ": eof", "connection reset", "connection lost", "connection aborted"),
)
"""What a program says, in small letters, that sent something to its cluster and got no answer."""


class UnconfirmedError(InfrastructureError):
    """The scheduler did not confirm a submission, but may have the job all the same."""


def require_program(name: str) -> None:
    """Check that the program ``name`` is installed.

    Raises  InfrastructureError that says what to install.
    """
    if shutil.which(name) is None:
        raise InfrastructureError(
            f"{name} is not on this machine, and submitting needs it",
            hint=f"install {INSTALL[name]}; --dry-run writes the file without it",
        )


def send_job(command: Sequence[str], *, check_command: str) -> str:
    """Run the ``command`` that submits a job; return its standard output.

    ``check_command``: the command line that shows whether the scheduler has the job.
    Raises  UnconfirmedError where no answer came, or a signal ended the program; InfrastructureError with the program's own message where it refuses.
    """
    try:
        return call(command)
    except InfrastructureError as error:
        stopped = isinstance(error.__cause__, subprocess.SubprocessError)
        if not stopped and not any(text in error.message.lower() for text in _UNANSWERED):
            raise
        raise UnconfirmedError(
            f"{error.message}; the cluster may have the job all the same",
            hint=f"before you send it again, look for it: {check_command}, or tunectl submit status",
        ) from error


def call(command: Sequence[str], *, text: str | None = None, cwd: Path | None = None, with_errors: bool = False) -> str:
    """Run the ``command`` with ``text`` as its standard input in the folder ``cwd``; return its standard output.

    ``with_errors``: its standard error follows.
    Raises  InfrastructureError with the program's own message where it fails or does not answer.
    """
    try:
        process = subprocess.run(
            command, input=text, cwd=cwd, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError(
            f"{command[0]} did not answer within {TIMEOUT_SECONDS} s",
            hint="check that this machine reaches the cluster, then run the same command again",
        ) from error
    if process.returncode:
        lines = [line for line in (process.stderr or process.stdout).splitlines() if line.strip()]
        reason = "\n".join(lines[-5:])[-MESSAGE_CHARS:] or f"exit code {process.returncode}"
        if any(line.startswith("Traceback ") for line in lines):  # the last line of a Python traceback has the message
            reason = lines[-1][:MESSAGE_CHARS]
        killed = subprocess.CalledProcessError(process.returncode, command[0]) if process.returncode < 0 else None
        raise InfrastructureError(
            f"{' '.join(command[:2])} failed: {reason}",
            hint="the scheduler said so: correct what its message names, in the submit settings (conf/submit/) or on the cluster",
        ) from killed
    return process.stdout + process.stderr if with_errors else process.stdout
