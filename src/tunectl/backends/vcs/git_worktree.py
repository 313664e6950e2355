"""Run git as a subprocess: worktrees for unattended retrains and trials, and queries of commits and files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tunectl.core.errors import InfrastructureError, UsageError

SETTINGS = (
    "core.hooksPath=/dev/null",
    "gc.auto=0",
    "commit.gpgsign=false",
    "user.name=tunectl retrain controller",
    "user.email=retrain@tunectl.invalid",
)
"""Author of the commits; and no hooks, which are for people: one that asks, or checks out data (``dvc install``), would stop an unattended retrain."""


def revision(root: Path) -> str:
    """Return the full SHA of the commit that is checked out.

    Raises  UsageError outside Git or before the first commit.
    """
    process = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if process.returncode:
        raise UsageError(
            f"{root.resolve()} has no commit yet, and a build elsewhere starts from one",
            hint="git init; git add .; git commit",
        )
    return process.stdout.strip()


def require_clean(root: Path) -> None:
    """Check that there are no uncommitted changes: a worktree has committed files only.

    Raises  UsageError naming the first files that differ from the commit.
    """
    changed = [line[3:] for line in _check_output(root, "status", "--porcelain", "--untracked-files=no").splitlines()]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UsageError(
            f"{root.resolve()} differs from its commit: {', '.join(changed[:3])}{more}",
            hint="commit it (dvc.lock and artifacts/config too) or take it back: git status",
        )


def list_untracked_files(root: Path, paths: Sequence[str]) -> list[str]:
    """Return the files in ``paths`` (folders or files of the project) that are neither tracked nor ignored."""
    return _check_output(root, "ls-files", "--others", "--exclude-standard", "--", *paths).splitlines()


def list_tracked_files(root: Path, pattern: str) -> list[str]:
    """Return the project's tracked files that match ``pattern``, such as ``*.dvc``."""
    return [name for name in _check_output(root, "ls-files", "-z", "--", pattern).split("\0") if name]


def list_remotes(root: Path) -> list[str]:
    """Return the names of Git's remotes."""
    return _check_output(root, "remote").splitlines()


def read_remote_address(root: Path, remote: str) -> str:
    """Return the fetch URL of the remote ``remote``."""
    return _check_output(root, "remote", "get-url", remote).strip()


def list_remote_branches(root: Path, commit: str) -> list[str]:
    """Return ``REMOTE/BRANCH`` of all remote branches that contain ``commit``, as of the last fetch or push."""
    arguments = ("for-each-ref", "--contains", commit, "--format=%(refname:lstrip=2)", "refs/remotes")
    return _check_output(root, *arguments).splitlines()


def add(root: Path, folder: Path, branch: str | None, commit: str) -> Path:
    """Create a worktree at ``folder``, which is replaced: on ``branch``, created at or reset to ``commit``, or detached (None).

    Returns  the path of the project inside it (a project may be a folder of its repository).
    """
    remove(root, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    head = ["-B", branch] if branch is not None else ["--detach"]
    _check_output(root, "worktree", "add", "--force", *head, str(folder.absolute()), commit)
    return project_path(root, folder)


def project_path(root: Path, folder: Path) -> Path:
    """Return the project's folder in a worktree of its repository at ``folder``."""
    return folder / _check_output(root, "rev-parse", "--show-prefix").strip()


def read_top(root: Path) -> Path:
    """Return the top folder of the repository that contains the project."""
    return Path(_check_output(root, "rev-parse", "--show-toplevel").strip())


def remove_stale_locks(project: Path) -> None:
    """Delete the lock files that a killed git left in a worktree; only for a worktree that no process uses."""
    branch = _git(project, "symbolic-ref", "HEAD").stdout.strip() or "HEAD"
    for name in ("index", "HEAD", branch):
        (project / _check_output(project, "rev-parse", "--git-path", f"{name}.lock").strip()).unlink(missing_ok=True)


def remove(root: Path, folder: Path) -> None:
    """Remove a worktree; its branch stays."""
    _git(root, "worktree", "unlock", str(folder.absolute()))
    _git(root, "worktree", "remove", "--force", "--force", str(folder.absolute()))
    shutil.rmtree(folder, ignore_errors=True)
    _check_output(root, "worktree", "prune")


def commit(project: Path, paths: Sequence[str], message: str) -> str:
    """Commit ``paths`` of a worktree, ignored or not; return the new SHA, or the current one if nothing changed."""
    existing = [path for path in paths if (project / path).exists()]
    if existing:
        _check_output(project, "add", "--force", "--", *existing)
    if _git(project, "diff", "--cached", "--quiet").returncode:
        _check_output(project, "commit", "--quiet", "--no-verify", "--message", message)
    return revision(project)


def fast_forward(root: Path, branch: str) -> str | None:
    """Fast-forward the checked-out branch to ``branch``; return None on success, else the reason."""
    if _git(root, "merge-base", "--is-ancestor", "HEAD", branch).returncode:
        return f"the checked-out branch has moved on; merge {branch} by hand"
    process = _git(root, "merge", "--ff-only", "--quiet", branch)
    return (
        None
        if not process.returncode
        else f"git merge --ff-only {branch}: {(process.stderr or process.stdout).strip()[:300]}"
    )


def has_unmerged_commits(root: Path, branch: str) -> bool:
    """Return whether ``branch`` exists and has commits that the checked-out branch lacks."""
    return _git(root, "merge-base", "--is-ancestor", branch, "HEAD").returncode == 1


def list_changed_files(root: Path, before: str, after: str) -> list[str]:
    """Return the files that differ between the commits ``before`` and ``after``, as paths relative to the repository."""
    return _check_output(root, "diff", "--name-only", before, after).splitlines()


def list_differences(root: Path, commit: str) -> list[str]:
    """Return the project's files that differ from ``commit``, as paths relative to the project.

    Raises  InfrastructureError where the repository lacks the commit.
    """
    return _check_output(root, "diff", "--name-only", "--relative", commit, "--", ".").splitlines()


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("git") is None:
        raise InfrastructureError("git is not installed, and worktrees need it", hint="apt-get install git")
    settings = [part for setting in SETTINGS for part in ("-c", setting)]
    return subprocess.run(["git", *settings, *arguments], cwd=root, capture_output=True, text=True, check=False)


def _check_output(root: Path, *arguments: str) -> str:
    process = _git(root, *arguments)
    if process.returncode:
        command = " ".join(argument for argument in arguments[:3] if not argument.startswith("-"))
        raise InfrastructureError(
            f"git {command} failed in {root}: {(process.stderr or process.stdout).strip()[:500]}",
            hint="run git status there: the repository may be locked or damaged",
        )
    return process.stdout
