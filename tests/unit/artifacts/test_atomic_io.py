"""Writes are whole or not at all; reads name what is wrong."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import version_0_1
from hypothesis import given
from hypothesis import strategies as st

from tunectl.artifacts import atomic_io, lock, manifest
from tunectl.artifacts.record_format import NewerRecordError
from tunectl.artifacts.records import RejectedRow, Source
from tunectl.artifacts.row_counts import RowCounter, load, save
from tunectl.core.errors import ArtifactError, DataError, InfrastructureError, TunectlError


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    atomic_io.write_json(target, {"old": 1})
    with pytest.raises(ValueError, match="half"), atomic_io.atomic_open(target) as stream:  # noqa: PT012
        stream.write(b"half")
        raise ValueError("half")
    assert atomic_io.read_json(target) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_that_root_replaces_keeps_its_owner_and_group(tmp_path: Path) -> None:
    target = tmp_path / "keys.json"
    atomic_io.write_json(target, [], 0o640)
    os.chown(target, 1234, 4321)
    atomic_io.write_json(target, [1], 0o640)
    facts = target.stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (1234, 4321, 0o640)


def test_json_does_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    atomic_io.write_json(tmp_path / "a", {"b": 1, "a": {"d": 2, "c": 3}})
    atomic_io.write_json(tmp_path / "b", {"a": {"c": 3, "d": 2}, "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_line_of_another_shape_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"file": "a", "row": 1}\n{"file": 3}\n')
    with pytest.raises(DataError) as caught:
        list(atomic_io.read_rows(path, Source))
    assert caught.value.message == f"{path}:2 is not the expected JSON: Expected `str`, got `int` - at `$.file`"


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        atomic_io.read_json(tmp_path / "none.json")
    assert str(caught.value) == f"{tmp_path}/none.json does not exist\n  run: tunectl repro"


def test_a_read_only_place_is_named_with_its_reason(tmp_path: Path) -> None:
    # /proc refuses new files for everyone, root included.
    with pytest.raises(InfrastructureError, match=r"cannot write /proc/x/a\.json: "):
        atomic_io.write_text(Path("/proc/x/a.json"), "a")


@given(st.lists(st.builds(Source, file=st.text(max_size=20), row=st.integers(0, 2**40))))
def test_rows_come_back_as_they_went(rows: list[Source]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        assert atomic_io.write_rows(path, rows) == len(rows)
        assert list(atomic_io.read_rows(path, Source)) == rows


def test_a_folder_takes_the_place_of_the_old_one_only_when_finished(tmp_path: Path) -> None:
    target, scratch = tmp_path / "artifact", tmp_path / "scratch"
    with atomic_io.atomic_directory(target, scratch) as fresh:
        (fresh / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_io.atomic_directory(target, scratch) as fresh:  # noqa: PT012
        (fresh / "b").write_text("2")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["a"]
    assert list(scratch.iterdir()) == []


def test_kill_in_the_middle_of_a_write_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    code = f"""
import sys, time
from pathlib import Path
from tunectl.artifacts import atomic_io
with atomic_io.atomic_open(Path({str(target)!r})) as stream:
    stream.write(b"new" * 100000); stream.flush(); print("half", flush=True); time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert target.read_text() == "old"


def make(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    manifest.write(folder, manifest.Manifest("split", "c0ffee"))
    return folder


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    with pytest.raises(ArtifactError) as caught:
        manifest.read(folder)
    assert (
        str(caught.value)
        == f"{folder} has no manifest, so it is not a finished artifact\n  run: tunectl repro --to split"
    )


def test_a_changed_and_a_missing_file_are_found(tmp_path: Path) -> None:
    folder = make(tmp_path / "split")
    assert manifest.verify(folder).outputs.keys() == {"a.txt"}
    (folder / "a.txt").write_text("b")
    with pytest.raises(
        ArtifactError, match=r"split/a\.txt is corrupted: its SHA-256 is not the recorded ca978112ca1b…"
    ):
        manifest.verify(folder)
    (folder / "a.txt").unlink()
    with pytest.raises(ArtifactError, match=r"split/a\.txt is missing, though the manifest lists it"):
        manifest.verify(folder)


def test_a_manifest_holds_no_clock(tmp_path: Path) -> None:
    first, second = make(tmp_path / "one"), make(tmp_path / "two")
    assert (first / manifest.NAME).read_bytes() == (second / manifest.NAME).read_bytes()


def test_an_artifact_of_0_1_is_to_be_made_again_and_a_later_one_is_refused(tmp_path: Path) -> None:
    folder = version_0_1.copy_project(tmp_path / "project") / "artifacts" / "split"
    with pytest.raises(ArtifactError) as caught:
        manifest.verify(folder)
    assert str(caught.value) == (
        f"{folder / 'manifest.json'} was written by a tunectl older than 0.2, which this version cannot read\n  run again: tunectl repro --to split"
    )
    manifest.write(folder, manifest.Manifest("split", "c0ffee"))
    assert manifest.verify(folder).version == manifest.VERSION
    later = {**atomic_io.read_json(folder / manifest.NAME), "version": 99}
    atomic_io.write_json(folder / manifest.NAME, later)
    with pytest.raises(NewerRecordError, match=r"split/manifest\.json is a manifest of version 99"):
        manifest.read(folder)


def account_of(tmp_path: Path, kept: int, rejected: int, allowed: float) -> None:
    tally = RowCounter("ingest")
    tally.read(kept + rejected)
    tally.keep(kept)
    for row in range(rejected):
        tally.reject(RejectedRow(Source("a.csv", row + 1), "empty", "no text"))
    save(tally, tmp_path, records_out=kept, max_rejected_share=allowed, setting="ingest.max_rejected_share")


def test_an_account_adds_up_and_is_read_back(tmp_path: Path) -> None:
    account_of(tmp_path, 8, 2, 0.2)
    account = load(tmp_path)
    assert (account.rows_in, account.kept, account.rejected) == (10, 8, {"empty": 2})
    assert sum(1 for _ in atomic_io.read_rows(tmp_path / "rejects.jsonl", RejectedRow)) == 2


def test_too_many_rejects_stop_the_stage_but_leave_the_evidence(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        account_of(tmp_path, 7, 3, 0.2)
    assert str(caught.value) == (
        "ingest: 30.0% of 10 rows were rejected; the limit is 20%\n"
        "          3  empty: first a.csv:1 no text\n"
        "  fix the data, or allow more: ingest.max_rejected_share=<share from 0 to 1>"
    )
    assert load(tmp_path).rejected == {"empty": 3}


def test_all_rows_rejected_is_an_error_whatever_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ingest: all 3 rows were rejected"):
        account_of(tmp_path, 0, 3, 1.0)


def test_a_sum_that_does_not_hold_is_our_bug() -> None:
    tally = RowCounter("curate")
    tally.read(3)
    tally.keep(2)
    with pytest.raises(TunectlError, match="curate: 3 rows in, but 2 kept and 0 rejected"):
        tally.finish(records_out=2)


def test_two_runs_at_once_are_refused_and_a_killed_one_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = f"""
import time
from pathlib import Path
from tunectl.artifacts import lock
with lock.file_lock(Path({str(path)!r}), "stage sft"):
    print("held", flush=True); time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(InfrastructureError) as caught, lock.file_lock(path, "repro"):
        pass
    assert caught.value.message.startswith(
        f"another run is working in this project: stage sft, process {process.pid}, since "
    )
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with lock.file_lock(path, "repro"):
                return
        except InfrastructureError:
            time.sleep(0.05)
    pytest.fail("the lock of a killed process stayed")


def test_looking_whether_a_lock_is_taken_makes_and_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not lock.is_locked(path)
    assert not path.exists()
    with lock.file_lock(path, "stage sft"):
        assert lock.is_locked(path)
    assert not lock.is_locked(path)
    with lock.file_lock(path, "stage sft"):
        pass


def test_a_lock_is_held_on_a_full_disk(tmp_path, monkeypatch):
    """Its text is for whoever finds it taken; without room for that the lock is as good."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock.os, "pwrite", refuse)
    with lock.file_lock(tmp_path / "lock", "a test"):
        assert lock.is_locked(tmp_path / "lock")
        with pytest.raises(lock.LockTimeoutError, match="an unnamed process"), lock.file_lock(tmp_path / "lock", "two"):
            pass
    assert not lock.is_locked(tmp_path / "lock")
