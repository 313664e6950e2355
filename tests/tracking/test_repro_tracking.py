"""``tunectl repro`` keeps what it tells trackers, whether or not there is one, and neither waits nor fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sweep_project as project

from tunectl.artifacts.paths import ProjectPaths
from tunectl.pipeline import run_ledger
from tunectl.tracking import spool
from tunectl.tracking.build_record import BuildRecord

TRACK = ("track.to=[mlflow]", "track.uri=http://127.0.0.1:9", "track.timeout_seconds=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project.make(tmp_path_factory.mktemp("track") / "shop", build=False)


def newest(folder: Path) -> BuildRecord:
    return spool.load(spool.list_builds(folder / ".tunectl" / "track" / "spool")[-1])


def test_builds_wait_in_the_spool_with_the_stages_that_ran(folder: Path) -> None:
    text = project.tunectl(folder, "repro", "--unattended", "--to", "sft", "sft.lora_rank=8", *TRACK)
    assert "mlflow (for track.to)" in text
    assert "pip install 'tunectl-lm[mlflow]'" in text
    found = newest(folder)
    assert [stage.name for stage in found.stages] == ["split", "sft"]
    assert found.stages[1].metrics["steps"] == 8
    assert found.params == {"seed": "17", "project": "local_lens", "sft.lora_rank": "8"}
    assert list(found.digests) == ["split"]
    assert found.exit_code == 0
    time.sleep(1.1)  # names of builds begin with the second
    project.tunectl(folder, "repro", "--unattended", "--to", "sft")
    assert newest(folder).stages == []
    assert newest(folder).id != found.id


def test_a_build_that_fails_says_where(folder: Path) -> None:
    broken = (
        'import json, pathlib, sys\nnote = {"stage": "sft", "exit_code": 5, "message": "out of memory", "hint": ""}\n'
        'pathlib.Path(".tunectl/failure.json").write_text(json.dumps(note))\nsys.exit(1)\n'
    )
    with replace_sft(folder, broken):
        project.tunectl(folder, "repro", "--unattended", "--to", "sft", code=5)
    found = newest(folder)
    assert (found.exit_code, found.tags["tunectl.failure"]) == (5, "sft: out of memory")
    layout = ProjectPaths(folder)
    last = run_ledger.read_run(layout, run_ledger.list_runs(layout)[0])
    assert last.failure is not None
    assert (last.exit_code, last.failure.stage, last.failure.message, last.targets) == (
        5,
        "sft",
        "out of memory",
        ["sft"],
    )


@contextmanager
def replace_sft(folder: Path, text: str) -> Iterator[None]:
    """The stage sft is another script for a while; names of builds begin with the second, so the next one has another."""
    file, before = folder / "sft.py", (folder / "sft.py").read_text()
    time.sleep(1.1)
    file.write_text(text)
    try:
        yield
    finally:
        file.write_text(before)


def test_a_build_that_dvc_ends_is_kept(folder: Path) -> None:
    with replace_sft(folder, "import sys\nsys.exit(1)\n"):
        project.tunectl(folder, "repro", "--unattended", "--to", "sft", *TRACK, code=5)
    assert newest(folder).exit_code == 5


def test_a_build_that_is_interrupted_is_kept(folder: Path) -> None:
    with replace_sft(folder, "import pathlib, time\npathlib.Path('.tunectl/here').touch()\ntime.sleep(120)\n"):
        words = [sys.executable, "-m", "tunectl", "repro", "--unattended", "--to", "sft", *TRACK]
        process = subprocess.Popen(words, cwd=folder, env=project.ENVIRONMENT)
        end = time.monotonic() + 60
        while not (folder / ".tunectl" / "here").exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert newest(folder).exit_code == 130


def test_every_run_is_in_the_ledger(folder: Path) -> None:
    time.sleep(1.1)
    project.tunectl(folder, "repro", "--unattended", "--to", "sft")
    layout = ProjectPaths(folder)
    names = run_ledger.list_runs(layout)
    last = run_ledger.read_run(layout, names[0])
    assert len(names) >= 2
    assert (last.exit_code, last.unattended, last.targets) == (0, True, ["sft"])
    assert last.commit
    assert "sft" in last.settings


SILENT_CLIENT = """
import socket, urllib.parse
class MlflowClient:
    def __init__(self, tracking_uri, registry_uri):
        address = urllib.parse.urlsplit(tracking_uri)
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.recv(1)
        raise ConnectionError("the server has closed the connection")
"""
"""MLflow's client as it is in the middle of a request to a server that does not answer."""


def test_a_build_does_not_wait_for_a_server_that_does_not_answer(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    for name, text in {"__init__": SILENT_CLIENT, "entities": "", "exceptions": ""}.items():
        (tmp_path / "mlflow" / f"{name}.py").write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        words = ["track.to=[mlflow]", f"track.uri=http://127.0.0.1:{silent.getsockname()[1]}"]
        path = f"{tmp_path}{os.pathsep}{project.ENVIRONMENT['PYTHONPATH']}"
        time.sleep(1.1)
        with ThreadPoolExecutor(1) as pool:
            accepted = pool.submit(lambda: (silent.accept()[0], time.monotonic()))
            project.tunectl(folder, "repro", "--unattended", "--to", "sft", *words, PYTHONPATH=path)
            ended = time.monotonic()
            connection, asked = accepted.result()
        assert ended - asked < 5
        with connection:
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):  # whoever sends still waits; the build has ended
                connection.recv(1)
    assert newest(folder).exit_code == 0


def test_without_a_tracker_nothing_is_kept(tmp_path: Path) -> None:
    fresh = project.make(tmp_path / "shop")
    assert not (fresh / ".tunectl" / "track" / "spool").exists()
