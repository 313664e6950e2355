"""conf/overrides.yaml: recorded, replayed, replaced, forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.core.errors import ConfigError


@pytest.fixture
def layout(tmp_path: Path) -> ProjectPaths:
    (tmp_path / "conf").mkdir()
    return ProjectPaths(tmp_path)


def _texts(given_ones: list[Override]) -> list[str]:
    return [one.text for one in given_ones]


def test_a_later_override_of_the_same_key_takes_the_place_of_the_earlier(layout: ProjectPaths) -> None:
    recorded = [Override.from_cli("sft.lora_rank=8"), Override.from_cli("experiment=e2e")]
    merged = override_file.merge_overrides(recorded, ["sft.lora_rank=32", "seed=3"])
    assert _texts(merged) == ["experiment=e2e", "sft.lora_rank=32", "seed=3"]


def test_what_was_written_is_replayed_with_its_lines(layout: ProjectPaths) -> None:
    override_file.save_overrides(
        layout, [Override.from_cli("experiment=e2e"), Override.from_cli("data.path=/a b/it's [1].csv")]
    )
    assert layout.overrides.read_text() == (
        "# What `tunectl repro key=value` was given; replayed by every later run and by `dvc repro`, over all other files.\n"
        "# `tunectl repro --reset-overrides` forgets it.\n"
        '- experiment=e2e\n- "data.path=/a b/it\'s [1].csv"\n'
    )
    found = override_file.load_overrides(layout)
    assert [(one.text, str(one.origin)) for one in found] == [
        ("experiment=e2e", "conf/overrides.yaml:3"),
        ("data.path=/a b/it's [1].csv", "conf/overrides.yaml:4"),
    ]


def test_an_unchanged_list_leaves_the_file_and_its_comments_alone(layout: ProjectPaths) -> None:
    layout.overrides.write_text("# mine\n- seed=3\n")
    override_file.save_overrides(layout, [Override.from_cli("seed=3")])
    assert layout.overrides.read_text() == "# mine\n- seed=3\n"
    override_file.save_overrides(layout, [])
    assert layout.overrides.read_text() == override_file.HEADER + "[]\n"


@pytest.mark.parametrize("content", ["", "# nothing\n", "[]\n"])
def test_no_overrides(layout: ProjectPaths, content: str) -> None:
    assert override_file.load_overrides(layout) == []
    layout.overrides.write_text(content)
    assert override_file.load_overrides(layout) == []


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        ("seed: 3\n", ("conf/overrides.yaml:1: must be a list of key=value texts",)),
        (
            "- a=1\n- seed: 3\n- [x]\n",
            (
                "conf/overrides.yaml:2: must be one key=value text, for example: - seed=18",
                "conf/overrides.yaml:3: must be one key=value text, for example: - seed=18",
            ),
        ),
        ("- 'a\n", ("conf/overrides.yaml:2: not YAML: found unexpected end of stream",)),
        ("- caf\N{LATIN SMALL LETTER E WITH ACUTE}=1\n", ("conf/overrides.yaml: not UTF-8 text: byte 0xe9 at 5",)),
        ("[" * 2000, ("conf/overrides.yaml: must be a list of key=value texts",)),
    ],
)
def test_a_file_that_is_no_list_of_overrides_is_refused_and_replaced(
    layout: ProjectPaths, content: str, problems: tuple[str, ...]
) -> None:
    layout.overrides.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError) as caught:
        override_file.load_overrides(layout)
    assert caught.value.problems == problems
    override_file.save_overrides(layout, [])
    assert override_file.load_overrides(layout) == []


@given(st.lists(st.tuples(st.sampled_from(["a", "b.c", "d"]), st.text(min_size=1)), max_size=5))
@example([("a", "0\n")])
def test_any_value_survives(pairs: list[tuple[str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        layout = ProjectPaths(Path(folder))
        (Path(folder) / "conf").mkdir()
        wanted = override_file.merge_overrides([], [f"{key}={value}" for key, value in pairs if _is_line(value)])
        override_file.save_overrides(layout, wanted)
        assert _texts(override_file.load_overrides(layout)) == _texts(wanted)


def _is_line(text: str) -> bool:
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)
