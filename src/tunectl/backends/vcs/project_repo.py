"""Run ``git init`` and ``dvc init`` as subprocesses, for a new project."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tunectl.core.distribution import format_install_command
from tunectl.core.errors import InfrastructureError


def inside_git(folder: Path) -> bool:
    """Return whether ``folder`` is in a Git repository; false where git is not installed."""
    if shutil.which("git") is None:
        return False
    process = subprocess.run(
        ["git", "rev-parse", "--is-inside-work-tree"], cwd=folder, capture_output=True, text=True, check=False
    )
    return process.stdout.strip() == "true"


def head_commit(folder: Path) -> str | None:
    """Return the commit of ``folder``, with the suffix ``-dirty`` where tracked files differ; None outside Git or before the first commit."""
    if shutil.which("git") is None:
        return None
    command_line = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    process = subprocess.run(command_line, cwd=folder, capture_output=True, text=True, check=False)
    return process.stdout.strip() or None


def init_repositories(folder: Path) -> list[str]:
    """Make ``folder`` a Git and a DVC repository, where it is none and the tools are installed; DVC's analytics are switched off.

    Returns what was done, or what is left to do, one line each.
    Raises  InfrastructureError with the tool's error message when it fails.
    """
    actions = []
    nested = inside_git(folder)
    if nested:
        actions.append("inside a Git repository already; it is used as it is")
    elif shutil.which("git") is None:
        actions.append("git is not installed: this project has no history yet")
    else:
        _call(["git", "init", "--quiet"], folder)
        actions.append("git init")
    if (folder / ".dvc").is_dir():
        return actions
    if importlib.util.find_spec("dvc") is None:
        return [*actions, f"dvc is not installed: {format_install_command('pipeline')}, then run: dvc init"]
    options = [] if inside_git(folder) else ["--no-scm"]
    # A folder below the top of a Git repository becomes a DVC repository of its own (--subdir).
    options += ["--subdir"] if nested and not (folder / ".git").exists() else []
    _call([sys.executable, "-m", "dvc", "init", "--quiet", *options], folder)
    _call([sys.executable, "-m", "dvc", "config", "core.analytics", "false"], folder)
    return [*actions, f"dvc init{''.join(f' {option}' for option in options)}, analytics off"]


def _call(command_line: Sequence[str], folder: Path) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    process = subprocess.run(command_line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        command = " ".join(command_line[2:] if command_line[0] == sys.executable else command_line)
        raise InfrastructureError(
            f"{command} failed in {folder}: {(process.stderr or process.stdout).strip()[-500:]}",
            hint="correct what the message names, then run that command there",
        )
