"""The best trial against the start on the test split: paired, and no difference is a result."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tunectl.artifacts.records import Message
from tunectl.config.schema.evaluate import Evaluate
from tunectl.core.errors import UsageError
from tunectl.evaluation.items import Item
from tunectl.pipeline import sweep_confirm

pytest.importorskip("sacrebleu")
CONF = Path(__file__).parents[3] / "conf"
SETTINGS = Evaluate.model_validate(yaml.safe_load((CONF / "evaluate" / "default.yaml").read_text()))


def right(number: int) -> str:
    return f"shop number {number} is open every day of the week"


def side(good: int, count: int = 40, system: str = "tuned") -> Any:
    """A build that answers ``good`` of its inputs well."""
    items = {f"e{n}": Item(f"e{n}", (Message("user", "?"),), (right(n),), cluster=f"c{n}") for n in range(count)}
    answers = {f"e{n}": {system: right(n) if n < good else "nobody knows what this is about"} for n in range(count)}
    return SimpleNamespace(items=items, answers=answers, settings=SETTINGS, seed=7)


@pytest.mark.parametrize(
    ("start", "best", "verdict"), [(10, 35, "better"), (35, 10, "worse"), (20, 21, "no_difference")]
)
def test_the_interval_decides(start: int, best: int, verdict: str) -> None:
    found = sweep_confirm.compare_builds(3, side(start), side(best))
    assert found.verdict == verdict
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.best - found.start <= found.high
    assert (found.trial, found.inputs, found.metric) == (3, 40, "bleu")


def test_equal_builds_do_not_differ() -> None:
    found = sweep_confirm.compare_builds(3, side(20), side(20))
    assert (found.verdict, found.best - found.start) == ("no_difference", 0.0)


def test_inputs_that_only_one_build_has_are_left_out_and_none_is_an_error() -> None:
    assert sweep_confirm.compare_builds(1, side(5, 30), side(5, 40)).inputs == 30
    other = side(5)
    other.answers = {f"x{name}": value for name, value in other.answers.items()}
    with pytest.raises(UsageError, match="have 0 test inputs in common, so they cannot be compared"):
        sweep_confirm.compare_builds(1, side(5), other)
