"""Composition of a small tree: choices, merging, origins, interpolation, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from tunectl.config.loading import checks
from tunectl.config.loading.compose import ComposedConfig, _merge_files, compose
from tunectl.config.loading.override_parsing import Override
from tunectl.config.loading.provenance import to_dotted_key
from tunectl.config.schema.base import StrictModel
from tunectl.core.errors import ConfigError, UsageError

FILES = {
    "config.yaml": "defaults:\n  - sft: lora\n  - _self_\n  - experiment: null\n\nname: a\nseed: 17\ndata: null\n",
    "sft/lora.yaml": "# plain\nmethod: lora\nrank: 16\nlr: 1e-3\nwords: [a, b]\nparts: {x: {size: 1}}\n",
    "sft/dora.yaml": "defaults: [lora, _self_]\nmethod: dora\nstrong: true\n",
    "experiment/small.yaml": "# @package _global_\ndefaults:\n  - override /sft: dora\nsft:\n  rank: 4\nname: ${sft.method}\n",
    "experiment/needs.yaml": (
        "# @package _global_\ndata:\n  # the file of the corpus,\n  # which its makers hand out\n  path: ???\nname: ${data.path}\n"
    ),
}


class Lora(StrictModel):
    method: Literal["lora"]
    rank: int = Field(ge=1)
    lr: float
    words: list[str]
    parts: dict[str, Part]


class Dora(Lora):
    method: Literal["dora"]  # type: ignore[assignment]
    strong: bool


class Part(StrictModel):
    size: int


class Data(StrictModel):
    path: str


class Root(StrictModel):
    name: str
    seed: int
    data: Data | None
    sft: Annotated[Lora | Dora, Field(discriminator="method")]


for model in (Lora, Dora, Root):
    model.model_rebuild(_types_namespace={"Part": Part, "Lora": Lora, "Dora": Dora, "Data": Data})


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "conf"


def _compose(conf: Path, *words: str) -> ComposedConfig:
    return compose(conf, [Override.from_cli(word) for word in words])


def _origins(found: ComposedConfig) -> dict[str, str]:
    return {to_dotted_key(path): str(origin) for path, origin in found.origins.by_path.items()}


def _problems(conf: Path, *words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        checks.validate_config(Root, _compose(conf, *words))
    return list(caught.value.problems)


def test_files_are_laid_over_each_other_and_each_value_knows_its_line(conf: Path) -> None:
    found = _compose(conf, "experiment=small")
    root = checks.validate_config(Root, found)
    assert (root.sft.method, root.sft.rank, root.sft.lr, root.name) == ("dora", 4, 1e-3, "dora")
    assert found.choices == {"sft": "dora", "experiment": "small"}
    origins = _origins(found)
    assert origins["sft.method"] == "conf/sft/dora.yaml:2"
    assert origins["sft.rank"] == "conf/experiment/small.yaml:5"
    assert origins["sft.lr"] == "conf/sft/lora.yaml:4"
    assert origins["sft.parts.x.size"] == "conf/sft/lora.yaml:6"
    assert origins["sft.words.1"] == "conf/sft/lora.yaml:5"
    assert origins["seed"] == "conf/config.yaml:7"


def test_an_override_wins_over_every_file(conf: Path) -> None:
    found = _compose(
        conf, "sft.rank=64", "experiment=small", "sft.words=[c]", "sft.parts.x.size=2", "sft.parts.y={size: 3}"
    )
    root = checks.validate_config(Root, found)
    assert (root.sft.rank, root.sft.words) == (64, ["c"])
    assert {name: part.size for name, part in root.sft.parts.items()} == {"x": 2, "y": 3}
    origins = _origins(found)
    assert origins["sft.rank"] == "override sft.rank=64"
    assert origins["sft.parts.y.size"] == "override sft.parts.y={size: 3}"
    assert "sft.words.1" not in origins


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("name=x", "x"),
        ("name='3'", "3"),
        ('name="a, b"', "a, b"),
        ("name=a=b", "a=b"),
        ("name=/data/a b (1)/x=y.csv", "/data/a b (1)/x=y.csv"),
        ("name=~/häuser/*.{csv,tsv}", "~/häuser/*.{csv,tsv}"),
        ("name= x ", "x"),
        ("name=", ""),
        ("name=C:\\x", "C:\\x"),
        ("seed=1e3", 1000.0),
        ("seed=null", None),
        ("sft.words=[a,'b c']", ["a", "b c"]),
        ("sft.words.0=z", ["z", "b"]),
    ],
)
def test_values_are_read_by_hydras_grammar_or_as_they_stand(conf: Path, text: str, value: Any) -> None:
    tree = _compose(conf, text).tree
    key = text.partition("=")[0]
    assert (tree["sft"]["words"] if key.startswith("sft.words") else tree[key]) == value


def test_a_value_that_must_be_given_is_explained_by_the_comment_above_it(conf: Path) -> None:
    assert _problems(conf, "experiment=needs") == [
        (
            "data.path: must be given (conf/experiment/needs.yaml:5): data.path=<value>\n"
            "    the file of the corpus, which its makers hand out"
        )
    ]
    assert checks.validate_config(Root, _compose(conf, "experiment=needs", "data.path=x=1.csv")).name == "x=1.csv"


def test_an_experiment_in_the_recipe_may_be_undone(conf: Path) -> None:
    text = FILES["config.yaml"].replace("experiment: null", "experiment: small")
    (conf / "config.yaml").write_text(text)
    assert _compose(conf).choices["experiment"] == "small"
    assert "experiment" not in _compose(conf, "experiment=null").choices


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["sft.words.7=z"],
            "override sft.words.7=z: sft.words is a list of 2; it has no entry 7 (the first is 0)",
        ),
        (
            ["sft={rank: 3}"],
            "override sft={rank: 3}: chooses a file of conf/sft; sft.<setting>=<value> sets a value",
        ),
        (["sft=null"], "override sft=null: conf/sft has no option null; there are dora, lora"),
        (
            ["sft.parts.x=3"],
            "sft.parts.x = 3 (override sft.parts.x=3): must be a section with size",
        ),
        (
            ["sft.parts.x.sise=3"],
            "sft.parts.x.sise = 3 (override sft.parts.x.sise=3): no such setting; did you mean sft.parts.x.size?",
        ),
        (
            ["sft.strong=true"],
            "sft.strong = true (override sft.strong=true): no such setting where method is lora, only where method is dora",
        ),
        (["sft.method=dora"], "sft.strong: missing (conf/sft/lora.yaml); must be true or false"),
        (["name=${sft}"], 'name = {"method": "lora", "rank": 16, "lr": 0.001, "words": ["a", "b"], "parts": {"x":'),
        (
            ["name=${sft.rnk}"],
            'name = "${sft.rnk}" (override name=${sft.rnk}): there is no sft.rnk; did you mean ${sft.rank}?',
        ),
        (["name=${a"], "override name=${a: the value cannot be read; check its brackets, quotes and commas"),
        (["seed=true"], "seed = true (override seed=true): must be a whole number"),
    ],
)
def test_what_is_refused(conf: Path, words: list[str], problem: str) -> None:
    found = _problems(conf, *words)
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_an_empty_config_file_lacks_every_section(conf: Path) -> None:
    (conf / "config.yaml").write_text("")
    assert [line.partition(":")[0] for line in _problems(conf)] == list(Root.model_fields)


def test_a_missing_section_is_one_line(conf: Path) -> None:
    (conf / "config.yaml").write_text("defaults:\n  - _self_\nname: a\nseed: 1\ndata: null\n")
    assert _problems(conf) == ["sft: missing (conf/config.yaml); must be a section whose method is one of lora, dora"]
    (conf / "data").mkdir()
    (conf / "data/big.yaml").write_text("path: x\none: 1\ntwo: 2\nthree: 3\n")
    (conf / "config.yaml").write_text("defaults:\n  - data: big\n  - _self_\nname: a\nseed: 1\n")
    assert _problems(conf)[-1].startswith("sft: missing (conf/config.yaml); ")  # not where most values come from


def test_an_override_in_an_experiment_that_matches_nothing_is_reported_without_hydras_advice(conf: Path) -> None:
    (conf / "experiment/small.yaml").write_text("# @package _global_\ndefaults:\n  - override /stf: dora\n")
    with pytest.raises(ConfigError) as caught:
        _compose(conf, "experiment=small")
    assert "Could not override 'stf'" in str(caught.value)
    assert "+" not in str(caught.value)


def test_an_absent_file_named_by_another_is_reported_with_its_line(conf: Path) -> None:
    (conf / "sft/dora.yaml").write_text("defaults: [lara, _self_]\nmethod: dora\nstrong: true\n")
    with pytest.raises(ConfigError) as caught:
        _compose(conf, "sft=dora", "seed.x=3")
    assert caught.value.problems[-1] == (
        "conf/sft/dora.yaml:1: conf/sft has no option lara; there are dora, lora; did you mean sft=lora?"
    )


def test_a_folder_without_a_recipe_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist, so this is not a project's folder"):
        compose(tmp_path / "conf")


def test_composing_leaves_hydra_as_it_was(conf: Path) -> None:
    from hydra.core.global_hydra import GlobalHydra

    _compose(conf)
    assert not GlobalHydra.instance().is_initialized()


def test_the_same_files_are_composed_once_and_a_change_is_seen(conf: Path, tmp_path: Path) -> None:
    _merge_files.cache_clear()
    first = _compose(conf)
    first.tree["sft"]["words"].append("what a caller does to its tree stays its own")
    other = shutil.copytree(conf, tmp_path / "other" / "conf")
    assert _compose(other).tree["sft"]["words"] == ["a", "b"]
    assert (_merge_files.cache_info().misses, _merge_files.cache_info().hits) == (1, 1)
    path = conf / "sft" / "lora.yaml"
    path.write_text(path.read_text().replace("rank: 16", "rank: 32"))
    found = _compose(conf)
    assert (found.tree["sft"]["rank"], _compose(other).tree["sft"]["rank"]) == (32, 16)
    assert _origins(found)["sft.rank"] == "conf/sft/lora.yaml:3"
    (conf / "sft" / "wide.yaml").write_text("defaults: [lora, _self_]\nrank: 64\n")
    assert _compose(conf, "sft=wide").tree["sft"]["rank"] == 64


def test_hydra_works_out_its_files_once_where_it_can_be_listened_to(
    conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra._internal import config_loader_impl

    listed, real = [], config_loader_impl.create_defaults_list
    monkeypatch.setattr(
        config_loader_impl, "create_defaults_list", lambda **words: (listed.append(1), real(**words))[1]
    )
    _merge_files.cache_clear()
    once = _compose(conf, "experiment=small")
    assert len(listed) == 1, "this Hydra merges its files by another method: see _note_merged_files"
    monkeypatch.setattr("tunectl.config.loading.compose._note_merged_files", lambda loader: [])
    _merge_files.cache_clear()
    twice = _compose(conf, "experiment=small")
    assert len(listed) == 3
    assert (once.tree, _origins(once), once.choices) == (twice.tree, _origins(twice), twice.choices)
