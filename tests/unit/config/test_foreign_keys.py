"""Files of LLaMA-Factory and Axolotl as experiments of ours."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from conf_copy import copy_conf

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.main import main
from tunectl.config.loading import checks, foreign_import, foreign_keys, foreign_yaml
from tunectl.config.loading.foreign_keys import EFFECT, NONE, TOOL, ImportedConfig
from tunectl.config.loading.override_parsing import Override
from tunectl.config.schema.root import TunectlConfig
from tunectl.core.errors import ConfigError

HERE = Path(__file__).parent / "foreign"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_conf(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _compose(project: Path, draft: ImportedConfig, *words: str) -> TunectlConfig:
    (project / "conf/experiment/imported.yaml").write_text(
        foreign_yaml.to_experiment_yaml(draft, "theirs.yaml", "imported")
    )
    given = [Override.from_cli(word) for word in ("experiment=imported", *words)]
    return checks.load_config(ProjectPaths(project), given).root


def _reasons(draft: ImportedConfig, matters: str) -> dict[str, str]:
    return {item.key: item.reason for item in draft.dropped if item.matters == matters}


def test_a_llama_factory_file_becomes_an_experiment_that_composes(project: Path) -> None:
    given = foreign_yaml.load_yaml((HERE / "llama3_lora_sft.yaml").read_text(), "f")
    draft = foreign_import.import_llama_factory(given, {})
    paths = ("ingest.sources.identity.path=a.json", "ingest.sources.alpaca_en_demo.path=b.json")
    root = _compose(project, draft, f"model.source.revision={COMMIT}", *paths)
    assert (root.sft.method, root.sft.lora_rank, root.sft.lora_alpha, root.sft.target_modules) == (
        "qlora",
        8,
        16,
        ["q_proj", "v_proj"],
    )
    assert (root.sft.learning_rate, root.sft.lr_scheduler, root.sft.warmup_ratio, root.sft.epochs) == (
        1e-4,
        "cosine",
        0.1,
        3,
    )
    assert (root.sft.batch_size, root.sft.max_length, root.sft.neftune_noise_alpha) == (8, 2048, 5)
    assert root.sft.early_stopping is not None
    assert root.sft.early_stopping.patience == 3
    assert root.track.to == ["wandb"]
    assert (root.split.shares.train, root.split.shares.validation) == (0.8, 0.1)
    assert (root.seed, root.hardware.dtype, root.model.chat_template) == (42, "bfloat16", "llama3")
    assert _reasons(draft, EFFECT) == {
        "deepspeed": "several processes are declared with launch=torchrun or launch=ray; DeepSpeed is not used",
        "max_samples": "rows are not cut off silently; make a smaller file",
    }
    assert list(_reasons(draft, TOOL)) == ["shiny_new_thing"]
    assert "packing" in _reasons(draft, NONE)


def test_what_must_still_be_given_is_asked_for_with_the_reason(project: Path) -> None:
    draft = foreign_import.import_llama_factory({"model_name_or_path": "acme/tiny", "dataset": "ads"}, {})
    with pytest.raises(ConfigError) as caught:
        _compose(project, draft)
    assert caught.value.problems == (
        (
            "model.source.revision: must be given (conf/experiment/imported.yaml:13): model.source.revision=<value>\n"
            "    the whole commit hash, 40 digits, from the list of commits of acme/tiny"
        ),
        (
            "ingest.sources.ads.path: must be given (conf/experiment/imported.yaml:31): ingest.sources.ads.path=<value>\n"
            "    the file of data set ads; dataset_info.json was not found or lacks it"
        ),
    )


def test_data_sets_are_found_in_their_list(project: Path) -> None:
    declared: dict[str, Any] = {
        "ads": {"file_name": "ads.json", "columns": {"prompt": "brief", "response": "ad", "system": "tone"}},
        "chats": {"file_name": "chats.json", "formatting": "sharegpt", "columns": {"messages": "conversations"}},
        "openai": {
            "file_name": "o.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {"role_tag": "role", "content_tag": "content"},
        },
        "hub": {"hf_hub_url": "acme/ads", "subset": "en"},
        "pairs": {"file_name": "p.json", "ranking": True},
    }
    given = {"model_name_or_path": "./model", "dataset": "ads,chats,openai,hub,pairs", "dataset_dir": "data"}
    draft = foreign_import.import_llama_factory(given, declared)
    root = _compose(project, draft, "ingest.sources.hub.revision=v1.0")
    sources: Any = root.ingest.sources
    assert (sources["ads"].path, sources["ads"].format) == ("data/ads.json", "columns")
    assert (sources["ads"].columns.prompt, sources["ads"].columns.answer) == (["brief"], "ad")
    assert (sources["chats"].format, sources["openai"].format) == ("sharegpt", "messages")
    assert (sources["hub"].id, sources["hub"].subset, sources["hub"].revision) == ("acme/ads", "en", "v1.0")
    assert "pairs holds preferences" in _reasons(draft, EFFECT)["dataset"]


USUAL = {"prompt": "instruction", "query": "input", "response": "output"}


@pytest.mark.parametrize(
    ("columns", "format_", "prompt"),
    [
        (USUAL, "alpaca", None),
        ({**USUAL, "system": "system", "history": "history"}, "alpaca", None),
        ({**USUAL, "system": "system", "history": "history", "tools": "tools"}, "alpaca", None),
        ({**USUAL, "system": ""}, "alpaca", None),
        ({**USUAL, "system": "tone"}, "columns", ["instruction", "input"]),
        ({"prompt": "instruction", "response": "output"}, "columns", ["instruction"]),
        ({"prompt": "brief", "response": "ad"}, "columns", ["brief"]),
        ({}, "alpaca", None),
    ],
)
def test_usual_columns_of_alpaca_are_read_by_that_format(
    project: Path, columns: dict[str, str], format_: str, prompt: list[str] | None
) -> None:
    given = {"model_name_or_path": "./model", "dataset": "ads", "dataset_dir": "data"}
    draft = foreign_import.import_llama_factory(given, {"ads": {"file_name": "ads.json", "columns": columns}})
    sources: Any = _compose(project, draft).ingest.sources
    assert (sources["ads"].format, sources["ads"].columns.prompt) == (format_, prompt)
    assert "dataset" not in _reasons(draft, EFFECT)


@pytest.mark.parametrize(
    ("more", "rest"), [({"history": "past"}, "history"), ({"history": "past", "tools": "tools"}, "history and tools")]
)
def test_columns_that_cannot_be_declared_are_listed(more: dict[str, str], rest: str) -> None:
    entry = {"file_name": "ads.json", "columns": {**USUAL, **more}}
    draft = foreign_import.import_llama_factory({"dataset": "ads"}, {"ads": entry})
    assert draft.values["ingest.sources.ads.format"] == "columns"
    assert f"ads: no setting declares a column for {rest}; " in _reasons(draft, EFFECT)["dataset"]


@pytest.mark.parametrize(
    ("entry", "format_"),
    [
        ({"columns": {"messages": "conversations"}, "tags": {"role_tag": "role"}}, "sharegpt"),
        ({"columns": {"messages": "messages"}}, "messages"),
        ({"columns": {"messages": "conversation"}, "tags": {"role_tag": "role"}}, "messages"),
        ({"tags": {"role_tag": "role"}}, "messages"),
        ({}, "sharegpt"),
        ({"formatting": "openai"}, "messages"),
        ({"formatting": "openai", "columns": {"messages": "conversations"}}, "sharegpt"),
    ],
)
def test_the_column_of_turns_decides_the_format(entry: dict[str, Any], format_: str) -> None:
    entry = {"file_name": "chats.json", "formatting": "sharegpt", **entry}
    draft = foreign_import.import_llama_factory({"dataset": "chats"}, {"chats": entry})
    assert draft.values["ingest.sources.chats.format"] == format_


def test_an_axolotl_file_becomes_an_experiment_that_composes(project: Path) -> None:
    draft = foreign_import.import_axolotl(foreign_yaml.load_yaml((HERE / "lora-1b.yml").read_text(), "f"))
    root = _compose(project, draft, "ingest.sources.gpt4_llm_cleaned.revision=v1")
    assert (root.sft.method, root.sft.lora_rank, root.sft.lora_alpha, root.sft.lora_dropout) == ("lora", 16, 32, 0.05)
    assert root.sft.target_modules == ["gate_proj", "q_proj", "v_proj"]
    assert (root.sft.batch_size, root.sft.epochs, root.sft.optimizer) == (4, 1, "adamw_8bit")
    assert (root.sft.evals_per_epoch, root.sft.loss_on, root.track.to) == (4, "assistant", ["wandb"])
    assert root.hardware.gradient_checkpointing
    source: Any = root.model.source
    assert (source.repo, source.revision) == ("acme/Tiny-3.2-1B", COMMIT)
    sources: Any = root.ingest.sources
    assert (sources["gpt4_llm_cleaned"].id, sources["gpt4_llm_cleaned"].format) == ("acme/GPT4-LLM-Cleaned", "alpaca")
    assert (sources["chats"].path, sources["chats"].format) == ("./data/chats.jsonl", "sharegpt")
    assert list(_reasons(draft, EFFECT)) == ["warmup_steps"]
    assert _reasons(draft, TOOL) == {}


def test_what_the_file_is_silent_about_gets_the_other_tools_default() -> None:
    theirs = foreign_import.import_llama_factory({"model_name_or_path": "a/b", "lora_rank": 32}, {})
    assert (theirs.values["sft.lora_alpha"], theirs.notes["sft.lora_alpha"]) == (64, "LLaMA-Factory's default")
    assert theirs.values["sft.learning_rate"] == 5e-5
    other = foreign_import.import_axolotl({"base_model": "a/b", "adapter": "lora"})
    assert (other.values["sft.lr_scheduler"], other.values["sft.warmup_ratio"]) == ("cosine", 0.03)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("finetuning_type", "full", "tunectl tunes low-rank adapters; full, freeze and oft are not offered"),
        (
            "stage",
            "dpo",
            "only supervised tuning is taken over; preferences are declared in groups of their own: preferences, reward, align",
        ),
        ("lr_scheduler_type", "rex", "schedule rex is not offered; there are constant, cosine, linear"),
        ("optim", "muon", "optimizer muon is not offered; there are adafactor, adamw, adamw_8bit, lion, sgd"),
        ("val_size", 500, "a number of rows; tunectl takes shares: split.shares.validation=<0 to 1>"),
        ("quantization_bit", 8, "8 bits are not offered; qlora uses 4"),
        (
            "template",
            "qwen3",
            "qwen3 is not one of our named templates, so the model's own is used; tunectl data inspect shows it",
        ),
        ("cutoff_len", 10.5, "10.5 is not a whole number"),
    ],
)
def test_values_without_counterpart_give_their_reason(key: str, value: Any, reason: str) -> None:
    draft = foreign_import.import_llama_factory({key: value}, {})
    assert _reasons(draft, EFFECT)[key] == reason


def test_switches_that_cannot_be_combined_are_listed() -> None:
    draft = foreign_import.import_axolotl({"base_model": "a/b", "adapter": "qlora", "peft_use_dora": True})
    assert draft.groups["sft"] == "qlora"
    assert _reasons(draft, EFFECT) == {"dora": "tunectl does not combine dora with qlora"}


def test_every_data_set_of_a_list_is_taken_over(project: Path) -> None:
    sets: list[Any] = [
        {"path": "chats.jsonl", "type": "chat_template", "field_messages": "conversations"},
        {"path": "table.csv", "type": {"field_instruction": "q", "field_output": "a"}},
        {"path": "json", "data_files": ["one.json", "two.json"], "type": "alpaca"},
        {"path": "raw.parquet", "type": "completion", "field": "content"},
        "nothing",
    ]
    draft = foreign_import.import_axolotl({"base_model": "./base", "adapter": "lora", "datasets": sets})
    sources = _compose(project, draft).ingest.sources
    assert {name: (source.path, source.format) for name, source in sources.items() if source.method == "files"} == {
        "chats": ("chats.jsonl", "sharegpt"),
        "table": ("table.csv", "columns"),
        "one": ("one.json", "alpaca"),
        "two": ("two.json", "alpaca"),
        "raw": ("raw.parquet", "columns"),
    }
    assert draft.values["sft.loss_on"] == "assistant"  # one of them holds conversations
    assert [item.reason for item in draft.dropped if item.key == "datasets"] == ["'nothing' names no path"]


def test_a_prompt_type_of_the_users_own_pins_columns(project: Path) -> None:
    kind = {"field_instruction": "brief", "field_input": "place", "field_output": "ad", "format": "{instruction}"}
    entry = {"path": "ads.jsonl", "type": kind}
    draft = foreign_import.import_axolotl({"base_model": "./m", "adapter": "lora", "datasets": [entry]})
    sources: Any = _compose(project, draft).ingest.sources
    assert (sources["ads"].columns.prompt, sources["ads"].columns.answer) == (["brief", "place"], "ad")


@pytest.mark.parametrize("name", ["0", "true", "null", "12-ads"])
def test_a_data_set_whose_name_yaml_reads_as_no_text_gets_another_one(name: str) -> None:
    draft = foreign_import.import_llama_factory({"dataset": name}, {})
    assert [source.startswith("data_") for source in draft.sources] == [True]


@pytest.mark.parametrize("value", [1, 0.5, "text", "1e-4", True, ["a"], {"a": 1}, 10**20, 10**400, math.inf])
def test_no_value_of_any_kind_breaks_an_import(value: Any) -> None:
    for given, translate in (
        (foreign_keys.list_rules("llama-factory"), lambda settings: foreign_import.import_llama_factory(settings, {})),
        (foreign_keys.list_rules("axolotl"), foreign_import.import_axolotl),
    ):
        for key in given:
            draft = translate({key: value})
            assert all(item.reason for item in draft.dropped)
            assert foreign_yaml.to_experiment_yaml(draft, "f", "n").startswith("# @package _global_\n")


def test_the_verb_writes_once_and_prints_what_is_left(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["import", "axolotl", str(HERE / "lora-1b.yml")]
    assert main([*words, "--write"]) == 0
    said = capsys.readouterr()
    assert said.out == "wrote conf/experiment/lora_1b.yaml\n"
    assert (
        "    warmup_steps             a number of steps; tunectl takes a share of all steps: sft.warmup_ratio\n"
        in said.err
    )
    assert main([*words, "--write"]) == 2
    assert capsys.readouterr().err == (
        "tunectl: conf/experiment/lora_1b.yaml exists already\n"
        "  choose another with --name, or replace it with --force\n"
    )
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "sft.lora_rank=16" in found["overrides"]
    assert found["no_counterpart"][0]["key"] == "strict"
    assert main([*words, "--overrides"]) == 0
    assert capsys.readouterr().out.startswith("model=hub sft=lora sft.max_length=2048 ")


def test_what_a_file_of_somebody_else_says_moves_no_cursor(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("f.yml").write_text('base_model: "org/\\e[2Jname"\nadapter: lora\n"zz\\e]0;title\\a\\ny\\u202Ey": 1\n')
    for more in ([], ["--overrides"], ["--json"]):
        assert main(["import", "axolotl", "f.yml", *more]) == 0
        said = capsys.readouterr()
        assert not [sign for sign in said.out + said.err if not (sign.isprintable() or sign == "\n")]
        assert more == ["--json"] or "    zz\ufffd]0;title\ufffd\ufffdy\ufffdy  tunectl does not know" in said.err


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "\udcff"])
def test_a_list_of_data_sets_that_is_no_json(project: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    Path("f.yml").write_text("model_name_or_path: a/b\ndataset: x\n")
    Path("data").mkdir(exist_ok=True)
    Path("data/dataset_info.json").write_bytes(text.encode(errors="surrogateescape"))
    assert main(["import", "llama-factory", "f.yml"]) == 2
    assert "data/dataset_info.json: is not JSON: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a: [1",
            "tunectl: f.yaml:1: not YAML: did not find expected ',' or ']'\n  correct that line of the file\n",
        ),
        (
            "- a",
            "tunectl: f.yaml: must be a mapping of settings, such as learning_rate: 1.0e-4\n  give the configuration file of a training, not a data file\n  more: tunectl docs must-be-a-mapping-of-settings-such\n",
        ),
        (
            None,
            "tunectl: f.yaml: cannot be read: No such file or directory\n  check the path and the file\n  more: tunectl docs cannot-be-read\n",
        ),
    ],
)
def test_files_that_cannot_be_read(
    project: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    if content is not None:
        Path("f.yaml").write_text(content)
    assert main(["import", "llama-factory", "f.yaml"]) == 2
    assert capsys.readouterr().err == message
