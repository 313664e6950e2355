"""The files that hold the watcher's secrets: whole, closed to others, and never read half-written."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tunectl.artifacts import atomic_io
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.retraining import secret_files


def test_it_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "retrain" / "secret"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: secret_files.load_or_create(path, signs=True), range(8)))
    assert len(found) == 1
    assert len(found.pop()) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["secret"]


def test_a_kill_while_it_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic_io.os, "link", cut)
    with pytest.raises(KeyboardInterrupt):
        secret_files.load_or_create(tmp_path / "secret")
    assert not (tmp_path / "secret").exists()


def test_what_signs_is_refused_where_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret_files.load_or_create(path, signs=True)
    path.chmod(0o644)
    with pytest.raises(InfrastructureError) as error:
        secret_files.load_or_create(path, signs=True)
    assert error.value.message == (f"{path} signs approval links, and other users may read it (mode 644)")
    assert error.value.hint.startswith("delete it: a new one is created, and open approvals are requested again")


def test_a_readable_token_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    said: list[str] = []
    monkeypatch.setattr(secret_files._log, "warning", lambda words, *given: said.append(words % given))
    secret_files.load_or_create(path)
    path.chmod(0o640)
    secret_files.load_or_create(path)
    assert said == []
    path.chmod(0o644)
    secret_files.load_or_create(path)
    assert said == [f"everybody on this machine may read {path} (mode 644)"]


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe\x00"])
def test_one_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(InfrastructureError, match=r"token holds \d characters; at least 32 are needed"):
        secret_files.load_or_create(path)


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="cannot be read: Is a directory"):
        secret_files.load_or_create(tmp_path)


def test_the_token_of_version_0_1_is_not_replaced(tmp_path: Path) -> None:
    old = tmp_path / ".tunectl" / "watch" / "token"
    old.parent.mkdir(parents=True)
    old.write_text("b" * 64 + "\n")
    new = tmp_path / ".tunectl" / "retrain" / "token"
    with pytest.raises(UsageError) as error:
        secret_files.load_token(tmp_path, ".tunectl/retrain/token")
    assert error.value.message == f"{new} does not exist, but version 0.1 left a token in {old}"
    assert f"mkdir -p {new.parent} && mv {old} {new}" in error.value.hint
    assert not new.exists()
    new.parent.mkdir()
    old.rename(new)
    assert secret_files.load_token(tmp_path, ".tunectl/retrain/token") == "b" * 64


def test_a_new_project_gets_a_token(tmp_path: Path) -> None:
    assert len(secret_files.load_token(tmp_path, ".tunectl/retrain/token")) == 64
