"""The worktree of a retrain: no hook of a person's runs there, and what a git that was cut off left is mended."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tunectl.backends.vcs import git_worktree
from tunectl.core.errors import InfrastructureError, UsageError


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t.invalid"]
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project that is a folder of its repository."""
    folder = tmp_path / "repository" / "shop"
    folder.mkdir(parents=True)
    git(folder.parent, "init", "--quiet", "--initial-branch=main")
    (folder / "dvc.lock").write_text("one")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "--quiet", "-m", "start")
    return folder


def made(root: Path, tmp_path: Path) -> Path:
    return git_worktree.add(root, tmp_path / "worktree", "tunectl/retrain/a-1", git_worktree.revision(root))


def test_a_branch_is_made_committed_to_and_brought_forward(root: Path, tmp_path: Path) -> None:
    project, before = made(root, tmp_path), git_worktree.revision(root)
    assert project == tmp_path / "worktree" / "shop"
    (project / "dvc.lock").write_text("two")
    commit = git_worktree.commit(project, ["dvc.lock", "conf/absent.yaml"], "Retrain a-1: drift")
    assert git_worktree.list_changed_files(root, before, commit) == ["shop/dvc.lock"]
    assert git_worktree.commit(project, ["dvc.lock"], "again") == commit, "nothing changed, so nothing is committed"
    assert git_worktree.fast_forward(root, "tunectl/retrain/a-1") is None
    assert git_worktree.fast_forward(root, "tunectl/retrain/a-1") is None, "a promotion that was cut does it again"
    assert (root / "dvc.lock").read_text() == "two"
    (root / "dvc.lock").write_text("by hand")
    with pytest.raises(UsageError, match=r"differs from its commit: shop/dvc\.lock"):
        git_worktree.require_clean(root)


def test_hooks_of_people_do_not_run(root: Path, tmp_path: Path) -> None:
    for name in ("post-checkout", "pre-commit", "post-merge", "reference-transaction"):
        hook = root.parent / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\nexit 1\n")
        hook.chmod(0o755)
    project = made(root, tmp_path)
    (project / "dvc.lock").write_text("two")
    git_worktree.commit(project, ["dvc.lock"], "Retrain a-1: drift")
    assert git_worktree.fast_forward(root, "tunectl/retrain/a-1") is None
    assert not (tmp_path / "ran").exists()


def test_stale_locks_of_a_killed_git_are_removed(root: Path, tmp_path: Path) -> None:
    project = made(root, tmp_path)
    (project / "dvc.lock").write_text("two")
    common = root.parent / ".git"
    locks = [common / "worktrees" / "worktree" / "index.lock", common / "refs/heads/tunectl/retrain/a-1.lock"]
    for lock in locks:
        lock.touch()
        with pytest.raises(InfrastructureError, match=r"git (add|commit) failed"):
            git_worktree.commit(project, ["dvc.lock"], "Retrain a-1: drift")
        git_worktree.remove_stale_locks(project)
    git_worktree.commit(project, ["dvc.lock"], "Retrain a-1: drift")
    assert git(project, "log", "-1", "--format=%s") == "Retrain a-1: drift"
