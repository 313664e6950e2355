"""How far a stage is, as a page reads it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from tunectl.artifacts import atomic_io, lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.progress_journal import JournalEnd, JournalLine, JournalStart, JournalStep
from tunectl.pipeline import resolved_config, runner
from tunectl.pipeline.stage_progress import read_stage_progress


@pytest.fixture
def layout(tmp_path: Path) -> ProjectPaths:
    return ProjectPaths(tmp_path)


def write(layout: ProjectPaths, *lines: JournalLine) -> None:
    path = layout.progress("sft")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


START = JournalStart(100.0, "sft", os.getpid(), "abc")


def test_bars_figures_curves_and_the_time_left(layout: ProjectPaths) -> None:
    write(
        layout,
        START,
        JournalStep(101, "reading", 5, None),
        JournalStep(110, "fine-tuning", 0, 8),
        JournalStep(112, "fine-tuning", 1, 8, {"loss": "2.500", "speed": "fast"}),
        JournalStep(120, "fine-tuning", 2, 8, {"loss": "1,001.5", "speed": "nan"}),
    )
    found = read_stage_progress(layout, "sft")
    assert found is not None
    assert (found.state, found.config, found.started_at, found.updated_at) == ("killed", "abc", 100.0, 120)
    reading, fit = found.bars
    assert (reading.label, reading.done, reading.total, reading.seconds_left) == ("reading", 5, None, None)
    assert (fit.done, fit.figures) == (2, {"loss": "1,001.5", "speed": "nan"})
    assert fit.curves == {"loss": [(1, 2.5), (2, 1001.5)]}
    assert fit.seconds_left == 30


def test_a_label_that_begins_again_takes_the_place_of_the_first(layout: ProjectPaths) -> None:
    write(
        layout,
        START,
        JournalStep(101, "fit", 9, 10, {"loss": "1"}),
        JournalStep(102, "fit", 1, 10, {"loss": "3"}),
    )
    found = read_stage_progress(layout, "sft")
    assert found is not None
    assert [(bar.done, bar.started_at, bar.curves) for bar in found.bars] == [(1, 102, {"loss": [(1, 3.0)]})]


def test_the_lock_says_whether_it_runs(layout: ProjectPaths) -> None:
    write(layout, START)
    with lock.file_lock(layout.stage_lock, "stage sft"):
        running = read_stage_progress(layout, "sft")
    with lock.file_lock(layout.stage_lock, "stage align"):
        another = read_stage_progress(layout, "sft")
    killed = read_stage_progress(layout, "sft")
    assert [found.state for found in (running, another, killed) if found] == ["running", "killed", "killed"]
    write(layout, START, JournalEnd(200, "failed", "no row is left"))
    found = read_stage_progress(layout, "sft")
    assert found is not None
    assert (found.state, found.message, found.updated_at) == ("failed", "no row is left", 200)


def test_no_journal_and_a_broken_one_are_none(layout: ProjectPaths) -> None:
    assert read_stage_progress(layout, "sft") is None
    layout.progress("sft").parent.mkdir(parents=True)
    layout.progress("sft").write_bytes(b"\xff\xfe\n")
    assert read_stage_progress(layout, "sft") is None


def test_the_runner_writes_it_with_the_digest_of_the_configuration(
    layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(layout.root)
    record = {"stage": "feedback", "settings": {"feedback": {"method": "none"}}, "code": "c", "sources": {}}
    atomic_io.write_json(layout.config("feedback"), record)
    runner.execute_stage(ProjectPaths(), "feedback")
    found = read_stage_progress(layout, "feedback")
    assert found is not None
    _, resolved = resolved_config.load_stage_config(layout, "feedback")
    assert (found.state, found.config) == ("finished", atomic_io.sha256_json(resolved))
    assert (layout.artifact("feedback") / "manifest.json").is_file()
