"""The space of a sweep: conditions, grids, current values, and overrides that mean what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tunectl.config.loading import override_parsing
from tunectl.config.loading.compose import _value
from tunectl.config.schema.sweep import Sweep
from tunectl.sweeps import search_space

SECTION: dict[str, Any] = {
    "name": "s",
    "space": {
        "sft": ["lora", "dora"],
        "sft.lora_alpha": [16, 32],
        "sft.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    },
    "only_if": {"sft.lora_alpha": {"sft": "dora"}},
    "objective": [{"metric": "sft.validation_loss", "direction": "minimize"}],
    "stage": "sft",
    "n_trials": 4,
    "max_hours": None,
    "workers": 1,
    "sampler": "tpe",
    "pruner": None,
    "start": "current",
    "confirm": False,
    "storage": "sqlite:///s.sqlite",
    "storage_env": "S",
    "heartbeat_seconds": 1,
    "max_attempts": 3,
}


def section(**changes: Any) -> Sweep:
    return Sweep.model_validate({**SECTION, **changes})


class First:
    """Suggests the lower end, or the choice of that place."""

    def __init__(self, place: int) -> None:
        self.place = place

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        return low

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        return low

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[min(self.place, len(choices) - 1)]


def test_a_setting_is_varied_only_where_its_condition_holds() -> None:
    assert search_space.suggest_values(section(), First(0)) == {"sft": "lora", "sft.learning_rate": 1e-4}
    found = search_space.suggest_values(section(), First(1))
    assert found == {"sft": "dora", "sft.lora_alpha": 32, "sft.learning_rate": 1e-4}


def test_whole_bounds_give_whole_numbers_and_lists_stay_lists() -> None:
    space = {
        "sft.epochs": {"low": 1, "high": 4, "log": False},
        "sft.target_modules": [["q_proj"], ["q_proj", "v_proj"]],
    }
    found = search_space.suggest_values(section(space=space, only_if={}), First(1))
    assert found == {"sft.epochs": 1, "sft.target_modules": ["q_proj", "v_proj"]}
    assert (
        search_space.format_override("sft.target_modules", ["q_proj", "v_proj"]) == "sft.target_modules=[q_proj,v_proj]"
    )


def test_a_grid_has_each_combination_once() -> None:
    space = {"sft": ["lora", "dora"], "sft.lora_alpha": [16, 32], "sft.lora_rank": [8, 16]}
    found = search_space.expand_grid(section(space=space, sampler="grid"))
    assert len(found) == 2 + 4  # alpha is varied for dora alone
    assert {tuple(sorted(values.items())) for values in found} == {tuple(sorted(values.items())) for values in found}
    assert found[0] == {"sft": "lora", "sft.lora_rank": 8}


def test_the_values_that_are_checked_hold_every_bound_and_choice() -> None:
    rows = search_space.list_test_values(section())
    assert rows == [
        {"sft": "lora", "sft.learning_rate": 1e-4},
        {"sft": "dora", "sft.learning_rate": 1e-2},
        {"sft": "dora", "sft.lora_alpha": 16},
        {"sft": "dora", "sft.lora_alpha": 32},
    ]


def test_current_values_are_those_that_the_space_contains() -> None:
    tree = {"sft": {"learning_rate": 1e-3, "lora_alpha": 32}}
    assert search_space.current_values(section(), tree, {"sft": "lora"}) == {"sft": "lora", "sft.learning_rate": 1e-3}
    tree = {"sft": {"learning_rate": 0.5, "lora_alpha": 32}}
    assert search_space.current_values(section(), tree, {"sft": "dora"}) == {"sft": "dora", "sft.lora_alpha": 32}


@given(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["null", "true", "1e5", "a b", "it's", "x=y", "[z", "", "sft/lora", "q_proj", "a\\b", "nan", "7"])
    | st.lists(st.sampled_from(["q_proj", "v,b", "true"]), min_size=1, max_size=3)
)  # fmt: skip
def test_an_override_is_read_back_as_what_was_chosen(value: Any) -> None:
    problems: list[override_parsing.OverrideError] = []
    text = search_space.format_override("a.b", value)
    given = override_parsing.Override.from_cli(text)
    _, values = override_parsing.classify_overrides(Path("conf"), [given], problems, _value)
    assert not problems
    assert values[0][2] == value
    assert type(values[0][2]) is type(value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": {"sft.epochs": {"low": 3, "high": 3, "log": False}}, "only_if": {}}, "low must be smaller"),
        (
            {"space": {"sft.epochs": {"low": 0, "high": 3, "log": True}}, "only_if": {}},
            "log: true needs bounds above 0",
        ),
        ({"only_if": {"sft.lora_rank": {"sft": "lora"}}}, "only_if names sft.lora_rank, which is not in space"),
        ({"only_if": {"sft": {"sft.lora_alpha": 16}}}, "must come before sft in space"),
        ({"only_if": {"sft.lora_alpha": {"sft": "qlora"}}}, "which is not in the list of space.sft"),
        ({"sampler": "grid"}, "sampler grid needs lists, but sft.learning_rate is a range"),
        (
            {
                "objective": [{"metric": "sft.seconds", "direction": "minimize"}] * 2,
                "pruner": {"method": "asha", "stage": "sft", "min_resource": 1, "reduction_factor": 2},
            },
            "pruner needs one objective",
        ),
    ],
)
def test_a_section_that_cannot_work_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        section(**changes)
