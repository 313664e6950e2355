"""What a killed process leaves beside snapshots is deleted, and nobody is told that text is gone while it is not."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from inference_rows import finish, inference, thumb

from tunectl.artifacts.lock import LockTimeoutError, file_lock
from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.inference_log import erasure, pseudonyms, snapshot
from tunectl.inference_log.log_store import FinishedRequest

KEY = b"0123456789abcdef"
ADA = pseudonyms.pseudonymize("ada", KEY)
PRIVATE = "a very private question"
NOW = datetime(2026, 3, 9, tzinfo=UTC)
SPAN = {"since": NOW - timedelta(400), "until": NOW + timedelta(1), "at": NOW + timedelta(1), "window": None}
URL = "sqlite:///log.sqlite"


def fill(home: Path) -> None:
    with open_log(URL, home) as store:
        for number in range(2):
            asked = {"messages": [{"role": "user", "content": PRIVATE if number == 0 else "Hello?"}]}
            name = f"chatcmpl-{number:06}"
            store.write([inference(number, request=asked, user_hash=ADA if number == 0 else "other")])
            store.write([FinishedRequest(name, finish(number))])
        store.write([thumb(0), thumb(1, id="fb-1")])


def die_at(home: Path, act: str, call: str, number: int) -> None:
    """Do something in a child that kills itself at the ``number``-th call of a function that writes."""
    code = f"""
import os, signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tunectl.artifacts import atomic_io
from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.inference_log import erasure, snapshot
real, calls = atomic_io.{call}, []
def die(*given):
    calls.append(given)
    if len(calls) > {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*given)
atomic_io.{call} = die
NOW = datetime(2026, 3, 9, tzinfo=UTC)
with open_log({URL!r}, Path({str(home)!r})) as store:
    folder = Path({str(home / "snapshots")!r})
    if {act!r} == "freeze":
        snapshot.freeze(store, folder, since=NOW - timedelta(400), until=NOW + timedelta(1), at=NOW + timedelta(1), window=None)
    else:
        erasure.purge(folder, store)
"""
    finished = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert finished.returncode == -signal.SIGKILL, finished.stderr


def holds_text(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and PRIVATE.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("call", "number", "by"),
    [
        ("write_rows", 1, "purge"),
        ("write_json", 0, "purge"),
        ("replace_directory", 0, "purge"),
        ("write_json", 0, "prune"),
        ("write_json", 0, "freeze"),
    ],
)
def test_a_kill_while_freezing_leaves_nothing_behind_for_long(tmp_path, call, number, by):
    fill(tmp_path)
    die_at(tmp_path, "freeze", call, number)
    folder = tmp_path / "snapshots"
    assert holds_text(folder)
    with open_log(URL, tmp_path) as store:
        assert store.erase(ADA).inferences == 1
        if by == "purge":
            assert erasure.purge(folder, store) == 0
        elif by == "prune":
            erasure.prune_snapshots(folder, set(), NOW - timedelta(500))
        else:
            snapshot.freeze(store, folder, **SPAN)
    assert holds_text(folder) == []


@pytest.mark.parametrize(
    ("call", "number"), [("write_rows", 0), ("write_rows", 1), ("write_json", 0), ("replace_directory", 0)]
)
def test_a_kill_while_purging_is_made_good_by_the_next_purge(tmp_path, call, number):
    fill(tmp_path)
    folder = tmp_path / "snapshots"
    with open_log(URL, tmp_path) as store:
        frozen = snapshot.freeze(store, folder, **SPAN)
        store.erase(ADA)
    die_at(tmp_path, "purge", call, number)
    assert holds_text(folder)
    with open_log(URL, tmp_path) as store:
        assert erasure.purge(folder, store) == 1
        assert holds_text(folder) == []
        assert len(snapshot.read(folder, frozen)[0]) == 1


def test_a_kill_between_the_two_renames_loses_no_snapshot(tmp_path):
    fill(tmp_path)
    folder = tmp_path / "snapshots"
    with open_log(URL, tmp_path) as store:
        frozen = snapshot.freeze(store, folder, **SPAN)
        store.erase(ADA)
        before = folder / snapshot.SCRATCH / f"{frozen.id}-abc.old"
        erasure.purge(folder, store)
        before.parent.mkdir(exist_ok=True)
        (folder / frozen.id).rename(before.with_suffix(""))
        (before / "rest").mkdir(parents=True)
        (before / "rest" / "inferences.jsonl").write_text(PRIVATE)
        assert erasure.purge(folder, store) == 0
        assert len(snapshot.read(folder, frozen)[0]) == 1
    assert holds_text(folder) == []


def test_who_purges_waits_for_who_freezes(tmp_path, monkeypatch):
    fill(tmp_path)
    folder = tmp_path / "snapshots"
    monkeypatch.setattr(snapshot, "LOCK_TIMEOUT_SECONDS", 0.2)
    with open_log(URL, tmp_path) as store:
        snapshot.freeze(store, folder, **SPAN)
        with file_lock(tmp_path / "snapshots.lock", "freezing a snapshot"):
            with pytest.raises(
                LockTimeoutError, match=r"snapshots is being written by another process: freezing a snapshot"
            ):
                erasure.purge(folder, store)
            monkeypatch.setattr(snapshot, "LOCK_TIMEOUT_SECONDS", 30.0)
            waiting = threading.Thread(target=erasure.prune_snapshots, args=(folder, set(), NOW - timedelta(500)))
            waiting.start()
            waiting.join(0.3)
            assert waiting.is_alive()
        waiting.join(30)
        assert not waiting.is_alive()


def test_a_reader_that_keeps_the_journal_busy_is_told_of(tmp_path):
    fill(tmp_path)
    reader = sqlite3.connect(tmp_path / "log.sqlite")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM inferences").fetchall()
    with open_log(URL, tmp_path) as store:
        assert store.erase(ADA).journal_busy
        reader.close()
        assert store.purge()
        assert not store.erase(ADA).journal_busy
    assert PRIVATE.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("log.sqlite*"))
