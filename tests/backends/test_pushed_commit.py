"""What a job can clone, and which DVC remote it can use: with real Git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tunectl.backends.vcs import dvc_remote, pushed_commit
from tunectl.core.errors import UsageError


def git(folder: Path, *words: str) -> str:
    settings = ("-c", "user.name=t", "-c", "user.email=t@t.invalid", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a commit, in a folder of its repository, beside a bare one."""
    top = tmp_path / "it's $(here)"
    root = top / "sub folder"
    (root / "conf").mkdir(parents=True)
    (root / "conf" / "config.yaml").write_text("seed: 1\n")
    (root / "rows.jsonl.dvc").write_text("outs: []\n")
    git(top, "init", "--quiet")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "--message", "start")
    git(tmp_path, "init", "--quiet", "--bare", "far.git")
    return root


def push(project: Path) -> None:
    git(project, "remote", "add", "some/where", "../far.git")
    git(project, "push", "--quiet", "some/where", "HEAD:refs/heads/a/b")


def test_a_pushed_commit_is_found_with_its_folder_and_data_files(project: Path, tmp_path: Path) -> None:
    push(project)
    found = pushed_commit.find_pushed_commit(project, None)
    assert found.commit == git(project, "rev-parse", "HEAD").strip()
    assert found.folder == "sub folder"
    assert found.data_files == ("rows.jsonl.dvc",)
    assert found.repository == str(tmp_path / "far.git")


def test_another_address_is_taken_as_it_is(project: Path) -> None:
    push(project)
    assert pushed_commit.find_pushed_commit(project, "git@host:team/shop.git").repository == "git@host:team/shop.git"


def test_a_change_that_is_not_committed_is_refused(project: Path) -> None:
    push(project)
    (project / "conf" / "config.yaml").write_text("seed: 2\n")
    with pytest.raises(UsageError, match=r"differs from its commit: .*conf/config\.yaml"):
        pushed_commit.find_pushed_commit(project, None)


def test_settings_that_git_does_not_know_are_refused(project: Path) -> None:
    push(project)
    (project / "conf" / "mine.yaml").write_text("")
    with pytest.raises(UsageError, match=r"files that are in no commit: conf/mine\.yaml"):
        pushed_commit.find_pushed_commit(project, None)
    (project / "conf" / "mine.yaml").unlink()
    (project / "notes.txt").write_text("")
    pushed_commit.find_pushed_commit(project, None)


def test_a_commit_that_was_not_pushed_is_refused(project: Path) -> None:
    with pytest.raises(UsageError, match="has no remote") as caught:
        pushed_commit.find_pushed_commit(project, None)
    assert "git remote add" in caught.value.hint
    push(project)
    git(project, "commit", "--quiet", "--allow-empty", "--message", "more")
    with pytest.raises(UsageError, match=r"is not pushed to any remote \(some/where\)") as caught:
        pushed_commit.find_pushed_commit(project, None)
    assert "git push" in caught.value.hint


@pytest.mark.parametrize(
    "address",
    [
        "https://me:secret@host/shop.git",
        "https://[broken:secret@host",
        "https://ghp_secret@host/shop.git",
        "https://host/shop.git?private_token=glpat-secret",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_shown(project: Path, address: str) -> None:
    push(project)
    with pytest.raises(UsageError, match="has a password in it") as caught:
        pushed_commit.find_pushed_commit(project, address)
    assert "secret" not in str(caught.value)


def write_dvc(root: Path, text: str) -> None:
    (root / ".dvc").mkdir(exist_ok=True)
    (root / ".dvc" / "config").write_text(text)


def test_the_remote_is_the_default_one_or_the_one_that_was_named(tmp_path: Path) -> None:
    text = (
        "[core]\n    remote = one\n['remote \"one\"']\n    url = ssh://host/shop\n['remote \"two\"']\n    url = /srv\n"
    )
    write_dvc(tmp_path, text)
    assert dvc_remote.read_remote(tmp_path, None) == "one"
    assert dvc_remote.read_remote(tmp_path, "two") == "two"
    with pytest.raises(UsageError, match=r"has no remote three, .* there are one, two"):
        dvc_remote.read_remote(tmp_path, "three")


def test_a_remote_that_a_job_cannot_find_is_refused(tmp_path: Path) -> None:
    write_dvc(tmp_path, "[core]\n    analytics = false\n")
    with pytest.raises(UsageError, match=r"has no default remote, .* there are none"):
        dvc_remote.read_remote(tmp_path, None)
    write_dvc(tmp_path, "[core]\n    remote = one\n['remote \"one\"']\n    url = ../store\n")
    with pytest.raises(
        UsageError, match=r"remote one of \.dvc/config is \.\./store, a relative path, which means another folder"
    ):
        dvc_remote.read_remote(tmp_path, None)
