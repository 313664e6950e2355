"""The real Evidently: a page of a window, with our numbers in it, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from drift_fixtures import at, examiner, rows

from tunectl.monitoring import evidently_report
from tunectl.monitoring.window import TimeSpan


@pytest.fixture(scope="module")
def parts():
    looking = examiner()
    reference, changed = rows(200, seed=1), rows(120, seed=2, topics=["garden", "bread"])
    bases = {side: looking.measure_reference("ref", reference, side) for side in ("prompt", "answer")}
    window = looking.examine_window(TimeSpan(at(1), at(2)), changed, bases, [], release="r" * 16, missing={})
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


def test_what_somebody_asked_ends_no_script_of_the_page(parts, tmp_path: Path) -> None:
    from msgspec.structs import replace

    window, changed, references = parts
    assert window.signals["prompt_text"].shifted, "only then are there texts in the page"
    hostile = [replace(row, prompt=f"{row.prompt} </script><script>alert(1)</script>") for row in changed]
    target = tmp_path / "hostile.html"
    evidently_report.write(window, hostile, references, target)
    page = target.read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "</script><script>alert" not in page


def test_pictures_of_a_large_window_are_drawn_of_some_of_its_rows() -> None:
    from tunectl.monitoring.signals import SIGNALS

    shown = [one for one in SIGNALS if one.name in ("prompt_text", "answer_tokens")]
    few, many = rows(30, seed=3), rows(evidently_report.DRAWN * 2 + 5, seed=4)
    table = evidently_report._table(shown, {"prompt": few, "answer": many})
    assert {len(column) for column in table.values()} == {len(many[::3])}
    assert table["prompt_text"][:30] == [row.prompt for row in few]
    assert evidently_report._table(shown, {"prompt": [], "answer": few})["prompt_text"] == [None] * 30
