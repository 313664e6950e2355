"""Attributes that an answer leaves out, compared by input."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from tunectl.artifacts import atomic_io
from tunectl.evaluation.results import AnswerRow

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
WHOLE = "Blue Spice is a family friendly pub."
WITHOUT = "Blue Spice is a pub."


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_e2e")


def test_an_attribute_that_is_left_out_more_often_has_its_paired_interval(bench: ModuleType, tmp_path: Path) -> None:
    text = "name[Blue Spice], eatType[pub], food[Thai], area[riverside], priceRange[cheap], customer rating[low], near[Burger King]"
    rows = [
        AnswerRow(
            id=str(number),
            input=f"{text}, familyFriendly[yes]",
            references=[WHOLE],
            fields={},
            answers={"model": WITHOUT if number < 10 else WHOLE, "against": WHOLE},
        )
        for number in range(20)
    ]
    atomic_io.write_rows(tmp_path / "answers.jsonl", rows)
    found = bench.compare_attributes(tmp_path / "answers.jsonl")
    family = found["familyFriendly"]
    assert (family["inputs"], family["tuned"], family["aligned"]) == (20, 0, 10)
    assert family["value"] == 50
    assert 20 < family["low"] < 50 < family["high"] < 80
    assert (found["name"]["value"], found["name"]["low"], found["name"]["high"]) == (0, 0, 0)
