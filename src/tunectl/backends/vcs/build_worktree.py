"""A worktree in which ``tunectl repro`` can run: the project at a commit, with DVC's cache and the downloads of the project itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.vcs import dvc_repo, git_worktree

SHARED_FOLDERS = ("cache", "exporters", "inference_log", "init_adapters", "track")
"""Subfolders of the project's ``.tunectl`` that the worktree uses as well."""


def add(
    root: Path,
    folder: Path,
    branch: str | None,
    commit: str,
    extra_environment: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Create a Git worktree of the project ``root`` at ``folder``, which is replaced; return the project's path inside it.

    ``branch`` is created at ``commit``, or reset to it; None: detached HEAD. ``extra_environment`` is added to DVC's environment.
    """
    project = git_worktree.add(root, folder, branch, commit)
    (project / ".tunectl").mkdir(exist_ok=True)
    for name in SHARED_FOLDERS:
        (root / ".tunectl" / name).mkdir(parents=True, exist_ok=True)
        (project / ".tunectl" / name).symlink_to((root / ".tunectl" / name).absolute(), target_is_directory=True)
    dvc_repo.share_cache(root, project, extra_environment)
    return project


def build_environment(project: Path) -> dict[str, str]:
    """Return the environment variables of a build in a worktree: the code in it comes first if the project contains tunectl's."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    if (project / "src" / "tunectl").is_dir():
        environment["PYTHONPATH"] = (
            f"{(project / 'src').absolute()}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
        )
    return environment


def describe_failure(project: Path, code: int) -> str:
    """Return why ``tunectl repro`` in a worktree ended with exit code ``code``: the message of the stage that failed, if one did."""
    failure = ProjectPaths(project).failure
    if failure.is_file():
        note: dict[str, Any] = atomic_io.read_json(failure)
        return f"stage {note['stage']} failed: {note['message']}"
    signal = f" (signal {code - 128}: out of memory, or ended by hand)" if code > 128 else ""
    return f"tunectl repro ended with exit code {code}{signal}"
