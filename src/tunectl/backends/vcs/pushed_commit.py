"""The commit that a job clones: checked out here, without uncommitted changes, and pushed to a remote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunectl.backends.vcs import git_worktree
from tunectl.core.errors import UsageError
from tunectl.core.url_credentials import has_credentials


@dataclass(frozen=True, slots=True)
class PushedCommit:
    """The commit that a job on a cluster clones, with its repository, and the project's folder in it."""

    commit: str
    repository: str
    folder: str
    """Path of the project in its repository; empty where it is the whole repository."""
    data_files: tuple[str, ...]
    """Files of ``dvc add`` in the project, which DVC fetches."""


def find_pushed_commit(root: Path, repository: str | None) -> PushedCommit:
    """Return the commit that is checked out, and the repository from which a job can clone it.

    Args:
        root: the project.
        repository: an address in place of that of the remote.

    Raises:
        UsageError: there are changes that are not committed, the commit was not pushed, or the address has credentials.
    """
    commit = git_worktree.revision(root)
    git_worktree.require_clean(root)
    loose = git_worktree.list_untracked_files(root, ("conf", "src", "dvc.yaml"))
    if loose:
        raise UsageError(
            f"{root.resolve()} has files that are in no commit: {', '.join(loose[:3])}",
            hint="a job clones a commit; add and commit them, or put them into .gitignore",
        )
    remote = _find_remote(root, commit)
    address = repository or _expand(root, git_worktree.read_remote_address(root, remote))
    if has_credentials(address):
        raise UsageError(
            "the address of the repository has a password in it, or a token, which would stand in the job's file",
            hint="set submit.repository to one without, and give the job's machines a key or a credential helper",
        )
    folder = git_worktree.project_path(root, Path()).as_posix()
    files = git_worktree.list_tracked_files(root, "*.dvc")
    return PushedCommit(commit, address, "" if folder == "." else folder, tuple(files))


def _find_remote(root: Path, commit: str) -> str:
    branches = git_worktree.list_remote_branches(root, commit)
    names = sorted(git_worktree.list_remotes(root), key=len, reverse=True)
    if not names:
        raise UsageError(
            f"{root.resolve()} has no remote, and a job clones the project from one",
            hint="git remote add origin ADDRESS; git push --set-upstream origin BRANCH",
        )
    for branch in branches:
        for name in names:
            if branch.startswith(f"{name}/"):
                return name
    raise UsageError(
        f"commit {commit[:12]} is not pushed to any remote ({', '.join(sorted(names))}), and a job clones it from one",
        hint="git push, then submit again",
    )


def _expand(root: Path, address: str) -> str:
    """Return a local folder as an absolute path, since the job's clone is made elsewhere."""
    local = (git_worktree.read_top(root) / address).resolve()
    return str(local) if "://" not in address and local.exists() else address
