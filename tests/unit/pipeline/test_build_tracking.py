"""What is sent of a build: settings, numbers and verdicts, and nothing of the data or of what the model said."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunectl.config.loading import checks
from tunectl.console import recorded_project
from tunectl.pipeline import build_tracking

ROOT = Path(__file__).parents[3]
RUN = 8
"""Words of a text that are a quotation of it."""


def list_texts(value: Any) -> Iterator[str]:
    """Every string of a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for below in value.values() if isinstance(value, dict) else value:
            yield from list_texts(below)


def list_runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return {tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}


def test_no_row_and_no_answer_is_in_a_file_that_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real build, which the package brings along: its rows, its answers, its reports."""
    monkeypatch.setattr(build_tracking, "start_sync", lambda *_: None)
    layout, _ = recorded_project.unpack(tmp_path, ROOT / "conf")
    rows = [json.loads(line) for path in layout.artifacts.rglob("*.jsonl") for line in path.read_text().splitlines()]
    quoted = {run for row in rows for text in list_texts(row) for run in list_runs(text)}
    assert len(quoted) > 10_000
    root = checks.load_project_config(layout, ["track.to=[mlflow]"]).root
    build = build_tracking.record_build(layout, root, 1.0, 0)
    sent = [path for path in (layout.track / build_tracking.SPOOL / build).rglob("*") if path.is_file()]
    assert {path.name for path in sent} == {"build.json", "verdict.json", "report.html"}
    pages = {path.name: html.unescape(path.read_text()) for path in sent}
    assert "Scores on the test split" in pages["report.html"]
    assert "Answers side by side" not in pages["report.html"]
    assert [name for name, text in pages.items() if quoted & list_runs(text)] == []
