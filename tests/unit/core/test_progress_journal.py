"""The progress of a stage as a file: few lines, whole whatever happens, and never the reason why a stage fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tunectl.core import progress, progress_journal
from tunectl.core.progress_journal import JournalEnd, JournalStart, JournalStep, ProgressJournal, read_lines


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_a_stage_leaves_start_steps_and_end(tmp_path: Path) -> None:
    path = tmp_path / "progress" / "sft.jsonl"
    with progress_journal.record_progress(path, "sft", "abc"), progress.bar("fine-tuning", 3) as shown:
        shown.advance(loss="2.5")
        shown.advance(2, loss="1.5")
    start, *steps, end = read_lines(path)
    assert isinstance(start, JournalStart)
    assert (start.stage, start.pid, start.config) == ("sft", os.getpid(), "abc")
    assert [(step.label, step.done, step.total, step.figures) for step in steps if isinstance(step, JournalStep)] == [
        ("fine-tuning", 3, 3, {"loss": "1.5"})
    ]
    assert isinstance(end, JournalEnd)
    assert (end.outcome, end.message) == ("finished", "")


def test_bars_are_drawn_as_before_and_the_renderer_comes_back(tmp_path: Path) -> None:
    seen: list[tuple[str, float | None]] = []

    class Renderer:
        def bar(self, label: str, total: float | None) -> object:
            seen.append((label, total))
            return progress._Silent().bar(label, total)

    with progress.use_renderer(Renderer()):  # type: ignore[arg-type]
        before = progress.get_renderer()
        with progress_journal.record_progress(tmp_path / "a.jsonl", "a", ""):
            assert list(progress.track([1, 2], "rows")) == [1, 2]
        assert progress.get_renderer() is before
    assert seen == [("rows", 2)]


def test_at_most_two_lines_a_second_and_fewer_in_a_long_stage(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "a.jsonl"
    journal = ProgressJournal(path, progress._Silent(), clock)
    with journal.bar("rows", None) as shown:
        for _ in range(3000):  # 30 s
            clock.now += 0.01
            shown.advance()
    seconds = Counter(int(line.at) for line in read_lines(path))
    assert max(seconds.values()) <= 2
    assert 55 <= sum(seconds.values()) <= 60
    clock.now += 24 * 3600
    before = len(read_lines(path))
    with journal.bar("later", None) as shown:
        for _ in range(600):  # 60 s
            clock.now += 0.1
            shown.advance()
    assert len(read_lines(path)) - before <= 13


def test_many_short_bars_do_not_flood_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with progress_journal.record_progress(path, "a", ""):
        for _ in range(500):
            with progress.bar("files", 1) as shown:
                shown.advance()
    assert len(read_lines(path)) <= 5


def test_a_failure_is_the_last_line_and_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(ValueError, match="no row"), progress_journal.record_progress(path, "a", ""):
        raise ValueError("no row is left\nlook there")
    end = read_lines(path)[-1]
    assert isinstance(end, JournalEnd)
    assert (end.outcome, end.message) == ("failed", "no row is left")
    with pytest.raises(KeyboardInterrupt), progress_journal.record_progress(path, "a", ""):
        raise KeyboardInterrupt
    end = read_lines(path)[-1]
    assert isinstance(end, JournalEnd)
    assert (end.outcome, end.message) == ("stopped", "KeyboardInterrupt")


def test_the_journal_before_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for config in ("first", "second", "third"):
        with progress_journal.record_progress(path, "a", config):
            pass
    configs = [read_lines(file)[0].config for file in (path, path.with_suffix(".previous"))]  # type: ignore[union-attr]
    assert configs == ["third", "second"]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.jsonl", "a.previous"]


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "progress").write_text("a file where the folder should be")
    with progress_journal.record_progress(tmp_path / "progress" / "a.jsonl", "a", ""):
        assert list(progress.track([1], "rows")) == [1]
    assert read_lines(tmp_path / "progress" / "a.jsonl") == []


def test_lines_that_were_cut_off_or_changed_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with progress_journal.record_progress(path, "a", ""):
        pass
    path.write_bytes(path.read_bytes() + b'{"event":"other"}\n\xff\n{"event":"st')
    assert [type(line) for line in read_lines(path)] == [JournalStart, JournalEnd]


def test_a_kill_leaves_it_open_and_another_process_goes_on_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    code = (
        "import os, signal, subprocess, sys\n"
        "from pathlib import Path\n"
        "from tunectl.core import progress, progress_journal\n"
        "rank = 'import time; from tunectl.core import progress, progress_journal as j; j.continue_journal()\\n'"
        "'with progress.bar(\"fit\", 2) as bar: time.sleep(0.6); bar.advance()'\n"
        "with progress_journal.record_progress(Path(sys.argv[1]), 'a', 'x'):\n"
        "    subprocess.run([sys.executable, '-c', rank], check=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL
    start, step = read_lines(path)
    assert isinstance(start, JournalStart)
    assert isinstance(step, JournalStep)
    assert (step.label, step.done, step.total) == ("fit", 1, 2)
    assert progress_journal.VARIABLE not in os.environ
