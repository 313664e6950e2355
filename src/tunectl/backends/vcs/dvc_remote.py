"""DVC's remotes: find the one to use, and push and fetch outputs and the run cache."""

from __future__ import annotations

import configparser
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tunectl.backends.vcs import dvc_repo
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import require_installed

DRIVERS: Final = {
    "s3": ("dvc_s3", "s3"),
    "gs": ("dvc_gs", "gs"),
    "gcs": ("dvc_gs", "gs"),
    "azure": ("dvc_azure", "azure"),
}
"""Package and extra of each kind of address; DVC itself names them only when it connects."""
MAX_SECONDS: Final = 6 * 3600
"""Of one transfer: the longest that a remote may hang which neither answers nor fails."""
_SECTION: Final = re.compile(r"""'?remote "(.+)"'?""")


def read_remote(root: Path, name: str | None) -> str:
    """Return the name of the DVC remote to use: ``name``, or the default one of the committed settings.

    Raises  UsageError where there is none, or others could not find it; MissingExtraError without the driver of its address.
    """
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(root / ".dvc" / "config", encoding="utf-8")
    addresses = {
        match[1]: settings[section].get("url", "") for section in settings if (match := _SECTION.fullmatch(section))
    }
    remote = name or settings.get("core", "remote", fallback=None)
    if remote is None or remote not in addresses:
        what = f"no remote {remote}" if remote else "no default remote"
        raise UsageError(
            f".dvc/config has {what}, and a job sends its results to one; there are {', '.join(sorted(addresses)) or 'none'}",
            hint="dvc remote add --default NAME s3://BUCKET/FOLDER (or a shared folder), commit .dvc/config, and push",
        )
    if "://" not in addresses[remote] and not Path(addresses[remote]).is_absolute():
        raise UsageError(
            f"remote {remote} of .dvc/config is {addresses[remote]}, a relative path, which means another folder in a job's clone of the project",
            hint=f"dvc remote modify {remote} url /ABSOLUTE/PATH, or an address such as s3://BUCKET/FOLDER",
        )
    kind = addresses[remote].partition("://")[0]
    if kind in DRIVERS:
        package, extra = DRIVERS[kind]
        require_installed(package, extra=extra)
    return remote


def push(root: Path, remote: str, targets: Sequence[str]) -> None:
    """Send to the remote the run cache and the outputs of ``targets`` and of all stages and files that they depend on.

    Raises  InfrastructureError with DVC's reason.
    """
    _call(root, "push", "--run-cache", "--with-deps", "--remote", remote, "--", *targets)


def fetch_runs(root: Path, remote: str) -> None:
    """Fetch the run cache, in which DVC finds the outputs of a stage by its inputs, from the remote.

    Raises  InfrastructureError with DVC's reason.
    """
    _call(root, "fetch", "--run-cache", "--remote", remote)


def _call(root: Path, *arguments: str) -> None:
    command, environment = dvc_repo.build_command(root)
    try:
        process = subprocess.run(
            [*command, *arguments],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=MAX_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError(
            f"dvc {arguments[0]} did not end within {MAX_SECONDS} s",
            hint="see that the remote answers; what was sent stays there: run the same command again to go on",
        ) from error
    if process.returncode:
        lines = [line for line in (process.stderr or process.stdout).strip().splitlines() if line.strip()]
        reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else "no reason given")
        raise InfrastructureError(
            f"dvc {arguments[0]} failed: {reason.removeprefix('ERROR: ')[:500]}",
            hint="check the address of the remote (dvc remote list), its keys and the network",
        )
