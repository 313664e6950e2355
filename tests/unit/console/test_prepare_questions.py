"""Questions for people are prepared from the page People: one process, found by its lock, whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from console_projects import Console, build, read_form

from tunectl.artifacts import manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.main import main
from tunectl.pipeline import background_build, background_prepare, candidate_generation
from tunectl.preferences import annotation_store

STORE = "judgments"
PREPARE, STOP = "/people/prepare", "/people/prepare/stop"
WRITER = """
import sys, time
from pathlib import Path
from tunectl.preferences import annotation_store
with annotation_store.open_store(Path("judgments"), annotation_store.PREPARE):
    print("inputs answered: 8 of 60", flush=True)
    time.sleep(120)
"""
"""Holds the store as ``tunectl annotate prepare`` does, without a model."""


@pytest.fixture
def console(tmp_path: Path) -> Console:
    layout = build(tmp_path / "shop")
    manifest.write(layout.artifact("model"), manifest.Manifest("model", "0" * 64))
    return Console(layout)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that were started in place of ``tunectl annotate prepare``."""
    found: list[subprocess.Popen[bytes]] = []

    def start(layout: ProjectPaths, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        assert words == ["annotate", "prepare"]
        with log.open("wb") as stream:
            found.append(
                subprocess.Popen([sys.executable, "-c", WRITER, *words], cwd=layout.root, stdout=stream, stderr=stream)
            )
        return found[-1]

    monkeypatch.setattr(background_build, "start_detached", start)
    yield found
    for process in found:
        process.kill()
        process.wait()


def test_questions_are_prepared_once_followed_and_stopped(
    console: Console, started: list[subprocess.Popen[bytes]]
) -> None:
    assert f'href="{PREPARE}">Prepare questions' in console.client.get("/people").text
    page = console.client.get(PREPARE).text
    assert "60, drawn from train" in page
    assert "sft and sft" in page
    form = read_form(console, PREPARE)
    assert console.post(PREPARE, **form, answer="start", reason=" ").status_code == 422
    assert console.post(PREPARE, questions="7", answer="start", reason="x").status_code == 409
    assert not started
    assert console.post(PREPARE, **form, answer="start", reason="before the meeting").headers["location"] == "/people"
    assert background_prepare.find_prepare(console.layout.root / STORE) == started[0].pid
    again = console.post(PREPARE, **form, answer="start", reason="me, too")
    assert (again.status_code, "being prepared already" in again.text, len(started)) == (409, True, 1)
    shown = console.client.get("/people.json").json()
    assert (shown["is_preparing"], shown["is_open"], shown["request"]["reason"]) == (True, False, "before the meeting")
    text = console.client.get("/people").text
    for words in (
        "The models are writing questions",
        "before the meeting",
        "inputs answered: 8 of 60",
        f'href="{STOP}"',
    ):
        assert words in text, words
    stop = read_form(console, STOP)
    assert console.post(STOP, process="1", reason="x").status_code == 409
    assert console.post(STOP, **stop, reason="too slow").status_code == 303
    assert started[0].wait(30) != 0
    assert "No questions are being prepared." in console.client.get(STOP).text
    assert not console.client.get("/people.json").json()["is_preparing"]


def test_what_stands_in_the_way_is_said_before_anything_starts(
    console: Console, started: list[subprocess.Popen[bytes]]
) -> None:
    with annotation_store.open_store(console.layout.root / STORE):
        assert console.client.get("/people.json").json()["is_open"]
        assert "is open, and only one process" in console.client.get(PREPARE).text
        refused = console.post(PREPARE, questions="0", answer="start", reason="x")
        assert refused.status_code == 409
    (console.layout.artifact("sft") / "manifest.json").unlink()
    assert "Not built yet: sft." in console.client.get(PREPARE).text
    assert not started


def test_the_command_line_says_that_it_prepares(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def generate(layout: ProjectPaths, _root: object) -> Iterator[candidate_generation.CandidateBatch]:
        seen.extend([background_prepare.find_prepare(layout.root / STORE), console.client.get("/people.json").json()])
        yield candidate_generation.CandidateBatch([], 1, 1, 0)

    monkeypatch.setattr(candidate_generation, "generate_candidates", generate)
    monkeypatch.chdir(console.layout.root)
    assert main(["annotate", "prepare"]) == 0
    assert seen[0] == os.getpid()
    assert (seen[1]["is_preparing"], seen[1]["is_open"]) == (True, False)


def test_a_preparation_that_fails_leaves_its_reason_on_the_page(console: Console) -> None:
    store = console.layout.root / STORE
    (console.layout.conf / "overrides.yaml").write_text("- annotate.prepare.inputs=none\n")
    begun = time.monotonic()
    background_prepare.start_prepare(console.layout, store, author="ann", reason="try")
    assert time.monotonic() - begun < background_build.START_SECONDS
    (console.layout.conf / "overrides.yaml").unlink()
    assert "annotate.prepare.inputs" in console.client.get("/people.json").json()["log"]
