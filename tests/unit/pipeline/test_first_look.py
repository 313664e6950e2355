"""What follows a first look."""

from __future__ import annotations

from pathlib import Path

import pytest
from conf_copy import copy_conf

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli import up
from tunectl.config.loading import override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.core.errors import ConfigError
from tunectl.pipeline import first_look


@pytest.fixture
def layout(tmp_path: Path) -> ProjectPaths:
    copy_conf(tmp_path)
    layout = ProjectPaths(tmp_path)
    override_file.save_overrides(layout, [])
    return layout


def record(layout: ProjectPaths, *words: str) -> None:
    override_file.save_overrides(layout, [Override.from_cli(word) for word in words])


def test_a_first_look_says_what_it_left_out_and_what_comes_next(layout: ProjectPaths) -> None:
    record(layout, "experiment=first", "seed=3")
    assert [line.partition("    ")[0] for line in first_look.next_lines(layout)] == [
        "this was a first look: nothing was learned from people's preferences, and nothing was packaged",
        "next: tunectl repro experiment=small",
        "next: tunectl repro --reset-overrides",
    ]
    (layout.conf / "experiment" / "small.yaml").unlink()
    assert [line.partition("    ")[0] for line in first_look.next_lines(layout)][1:] == [
        "next: tunectl repro --reset-overrides"
    ]


def test_other_recipes_are_no_first_look(layout: ProjectPaths) -> None:
    assert first_look.next_lines(layout) == []
    record(layout, "experiment=small")
    assert first_look.next_lines(layout) == []


def test_only_a_project_in_which_nothing_was_asked_for_or_built_is_untouched(layout: ProjectPaths) -> None:
    assert first_look.is_untouched(layout)
    record(layout, "seed=3")
    assert not first_look.is_untouched(layout)
    record(layout)
    (layout.root / "dvc.lock").write_text("schema: '2.0'\n")
    assert not first_look.is_untouched(layout)


def test_up_begins_with_a_first_look_and_then_goes_on_with_what_was_asked_for(layout: ProjectPaths) -> None:
    assert up._choose_build(layout, []) == ["experiment=first"]
    assert up._choose_build(layout, ["seed=3"]) == ["seed=3"]
    record(layout, "experiment=small")
    assert up._choose_build(layout, []) == []
    with pytest.raises(ConfigError, match="lora_rank"):
        up._choose_build(layout, ["sft.lora_rnak=8"])
