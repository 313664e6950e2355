"""Which of two answers to one input is better, and whether a reward model said so."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from tunectl.evaluation.slot_error import SlotMatch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
WHOLE = SlotMatch(right=(("food", "Thai"), ("area", "north")), missing=(), wrong=(), added=())
NO_FOOD = SlotMatch(right=(("area", "north"),), missing=(("food", "Thai"),), wrong=(), added=())
NOTHING = SlotMatch(right=(), missing=(("food", "Thai"),), wrong=(("area", "north", "south"),), added=())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("e2e_ranking")


def test_pairs_of_one_input_with_other_numbers_of_errors_count(bench: ModuleType) -> None:
    found = bench.compare_answers([WHOLE, NO_FOOD, NOTHING, WHOLE, WHOLE, NO_FOOD], [3.0, 2.0, 2.5, 1.0, 1.0, 0.5], 3)
    assert found.of_input == [(2, 3), (2, 2)], "nobody compares answers to two inputs, nor two whole ones"
    assert found.by_error == {"food missing": [True, True, True], "area wrong": [False]}


def test_an_input_whose_answers_are_equally_good_is_left_out(bench: ModuleType) -> None:
    assert bench.compare_answers([WHOLE, WHOLE], [1.0, 2.0], 2).of_input == []
