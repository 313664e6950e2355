"""Register releases as Git tags, in GTO's format: a version for a release, a stage for the champion."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import require_installed


def register(root: Path, name: str, *, release: str, commit: str | None, stage: str | None) -> list[str]:
    """Tag a release's commit with the next version in GTO's format, assign ``stage`` to it if given, and return the new tags.

    A release that has a version already gets no second one. GTO allows no underscore in a name; it is replaced by a dash.
    Raises  UsageError outside Git, or for a release made from changes that were not committed; InfrastructureError with GTO's error message.
    """
    require_installed("gto", extra="pipeline")
    if commit is None:
        raise UsageError(
            f"release {release} was made outside Git, so there is no commit to tag", hint="git init, then package again"
        )
    if commit.endswith("-dirty"):
        raise UsageError(
            f"release {release} was made from changes that are not committed (on top of {commit[:12]})",
            hint="commit them, then: tunectl repro; a release with the same content keeps its id",
        )
    artifact, before = name.replace("_", "-"), _tags(root)
    message = f"release {release}"
    version = _version(root, artifact, message)
    if version is None:
        _gto(root, ["register", "--message", message, "--", artifact, commit])
        version = _version(root, artifact, message)
    if stage is not None:
        _gto(root, ["assign", "--version", version or "", "--stage", stage, "--message", message, "--", artifact])
    return sorted(_tags(root) - before)


def _version(root: Path, artifact: str, message: str) -> str | None:
    """Return the version whose tag says ``message``."""
    arguments = ["for-each-ref", f"refs/tags/{artifact}@v*", "--format=%(refname:short) %(contents:subject)"]
    for line in _call(["git", *arguments], root).splitlines():
        tag, _, description = line.partition(" ")
        if description == message:
            return tag.partition("@")[2]
    return None


def _tags(root: Path) -> set[str]:
    return set(_call(["git", "tag"], root).split())


def _gto(root: Path, arguments: Sequence[str]) -> None:
    try:
        _call([sys.executable, "-m", "gto.cli", *arguments], root)
    except InfrastructureError as error:
        if "already" not in error.message:  # the stage is assigned to this version
            raise


def _call(command: Sequence[str], root: Path) -> str:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    process = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        command_text = " ".join(command[2:] if command[0] == sys.executable else command)
        output = " ".join((process.stderr or process.stdout).split())
        raise InfrastructureError(
            f"{command_text} failed: {output[-300:]}",
            hint=f"correct in {root} what the message names (git tag lists the tags), then run the same command again",
        )
    return process.stdout
