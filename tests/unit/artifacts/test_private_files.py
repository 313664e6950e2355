"""Who else on this machine may read a file: nobody, also where an earlier version or a copy has left it open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunectl.access import api_keys
from tunectl.access.api_keys import KeyStore
from tunectl.artifacts import atomic_io, private_files
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example, Message, Source
from tunectl.core.errors import InfrastructureError
from tunectl.inference_log import erasure_ledger, snapshot
from tunectl.inference_log.erasure_ledger import Erasure
from tunectl.preferences import annotation_store, answer_cache
from tunectl.preferences.annotation_store import AnnotationEvent, AnnotationTask
from tunectl.retraining.workspace import RetrainWorkspace

NOW = datetime(2026, 11, 28, tzinfo=UTC)


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """An account that lets everybody read, which most do."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize(("found", "expected"), [(0o644, 0o600), (0o666, 0o600), (0o640, 0o640), (0o400, 0o400)])
def test_what_everybody_may_read_is_closed_and_what_a_group_shares_stays(
    tmp_path: Path, found: int, expected: int
) -> None:
    path = tmp_path / "secret"
    path.write_text("x")
    path.chmod(found)
    private_files.restrict(path)
    assert mode(path) == expected
    private_files.restrict(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_a_file_of_another_account_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, told = tmp_path / "secret", list[str]()
    path.write_text("x")

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    log = SimpleNamespace(warning=lambda words, *given: told.append(words % given))
    monkeypatch.setattr(private_files.logging_setup, "get_logger", lambda name: log)
    private_files.restrict(path)
    assert told == [f"everybody on this machine may use {path} (mode 644): Operation not permitted"]


def test_a_folder_is_made_for_its_owner_and_an_open_one_closed(tmp_path: Path) -> None:
    private_files.make_folder(tmp_path / "a" / "b")
    (tmp_path / "c").mkdir()
    private_files.make_folder(tmp_path / "c")
    assert (mode(tmp_path / "a" / "b"), mode(tmp_path / "c")) == (0o700, 0o700)
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match=f"cannot write {tmp_path / 'file' / 'x'}"):
        private_files.make_folder(tmp_path / "file" / "x")


def test_a_file_of_keys_is_never_open_and_an_open_one_is_closed_when_a_service_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    api_keys.add(path, api_keys.create_key("laptop", ["chat"], None, NOW)[1])
    assert mode(path) == 0o640
    path.chmod(0o644)
    KeyStore(path, 1.0).load()
    assert mode(path) == 0o640


def test_snapshots_and_the_ledger_of_erasures(tmp_path: Path) -> None:
    folder, ledger = tmp_path / "snapshots", tmp_path / "erasures.jsonl"
    (folder / "old").mkdir(parents=True)
    atomic_io.write_text(folder / "old" / "inferences.jsonl", "a private question")
    with snapshot.lock_folder(folder, "test"):
        assert mode(folder) == 0o700
    atomic_io.write_text(ledger, "")
    erasure_ledger.append(ledger, [Erasure("a" * 32, False, NOW)], create=False)
    assert mode(ledger) == 0o600


def test_the_folders_of_a_retrain_that_hold_text(tmp_path: Path) -> None:
    place = RetrainWorkspace(ProjectPaths(tmp_path))
    registry = tmp_path / "releases"
    private = [place.layout.gates, registry / "golden"]
    private += [place.store_dir / name for name in ("windows", "logs", "worktree")]
    (place.store_dir / "worktree").mkdir(parents=True)
    place.layout.gates.mkdir()
    place.close_to_others(registry)
    assert {path.name: mode(path) for path in private} == {path.name: 0o700 for path in private}
    assert mode(registry) == 0o755  # a server may run as another user
    assert mode(place.store_dir) == 0o755  # Alertmanager's account reads the token there


def test_annotations_and_the_work_of_stages_are_closed_and_those_of_an_earlier_version_too(tmp_path: Path) -> None:
    folder, cache = tmp_path / "judgments", tmp_path / "work/annotate-1/a.jsonl"
    source = Source("arena", 1)
    task = AnnotationTask("t", "p", source, [Message("user", "what people asked")], ["a", "b"], ["x", "y"])
    batch = [(Example("e", source, [Message("user", "live text")]), "p")]
    for _ in range(2):
        with annotation_store.open_store(folder) as store:
            store.add([task])
            store.write(AnnotationEvent("e", "t", "ada", "2026", "first", 0, 1.0))
            files = [folder / annotation_store.TASKS, folder / annotation_store.ANNOTATIONS]
            assert [mode(path) for path in (folder, *files)] == [0o700, 0o600, 0o600]
        answer_cache.read_or_generate(cache, batch, lambda: [["x"]])
        assert [mode(path) for path in (cache.parent, cache)] == [0o700, 0o600]
        for path in (folder, cache.parent):
            path.chmod(0o755)
        for path in (*files, cache):
            path.chmod(0o644)
