"""The real Evidently: a page of a window, with our numbers in it, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from drift_parts import at, examiner, rows

from tunectl.backends import evidently_report
from tunectl.monitor.window import Span


@pytest.fixture(scope="module")
def parts():
    looking = examiner()
    reference, changed = rows(200, seed=1), rows(120, seed=2, topics=["garden", "bread"])
    bases = {side: looking.baseline("ref", reference, side) for side in ("prompt", "answer")}
    window = looking.window(Span(at(1), at(2)), changed, bases, [], release="r" * 16, missing={})
    return window, changed, {"prompt": reference, "answer": reference}


def test_a_report_of_a_window(parts, tmp_path: Path) -> None:
    window, changed, references = parts
    target = tmp_path / "reports" / f"{window.id}.html"
    evidently_report.write(window, changed, references, target)
    page = target.read_text()
    assert "mmd, permutation p-value" in page
    assert f"{window.signals['prompt_text'].p_value:.3f}"[:4] in page
    assert "<script src=" not in page


def test_a_window_of_which_nothing_could_be_told_has_no_report(parts, tmp_path: Path) -> None:
    from msgspec.structs import replace

    window, changed, references = parts
    target = tmp_path / "empty.html"
    evidently_report.write(replace(window, signals={}), changed, references, target)
    assert not target.exists()
