"""A build that is started in the console takes settings of the recipe, and none that reach further."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from console_projects import ROOT, Console, build

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks, override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.console.acts import build_settings
from tunectl.core.errors import UsageError

HOSTILE = [
    "console.servers=[http://127.0.0.1:9999]",
    "console.server_key_env=HOME",
    "serve.trusted_keys_file=null",
    "retrain.approval.promotion=none",
    "retrain.gate.margin=100",
    "ingest.sources.web.path=/etc",
    "evaluate.judge={base_url: http://127.0.0.1:9, api_key_env: HOME}",
    "evaluate.gate.min_effect=0",
    "curate.pii=null",
    "curate=none",
    "sft.privacy=null",
    "sft.privacy.max_epsilon=1000",
    "sft.init_adapter=/etc",
    "launch.address=10.0.0.1:6379",
    "++sft.epochs=2",
    "~serve",
    "+sft.epochs=2",
    "sft.epochs=${oc.env:HOME}",
    "sft=../serve/default",
    "hydra.run.dir=/tmp",
    "sft.lora_rank=8 serve.port=1",
]


def list_leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from list_leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def test_of_all_settings_only_numbers_and_switches_of_the_recipe_may_be_typed() -> None:
    root = checks.load_config(ProjectPaths(ROOT)).root.model_dump(mode="json")
    allowed = {key for key, _ in list_leaves(root) for value in ("1", "true") if build_settings.is_allowed(key, value)}
    assert {key.partition(".")[0] for key in allowed} == {"seed", "hardware", "cpt", "sft", "reward", "align"}
    assert not [key for key in allowed if "gate" in key or "privacy" in key]
    for key, _ in list_leaves(root):
        for value in ("/etc/passwd", "http://127.0.0.1:1", "[a]", "{a: b}", "null", "", "'1'", "${seed}"):
            assert not build_settings.is_allowed(key, value), (key, value)


@pytest.mark.parametrize(
    "settings", ["sft.epochs=2", "sft.learning_rate=1e-3 seed=3", "experiment=first align=none", ""]
)
def test_settings_of_the_recipe_are_taken(settings: str) -> None:
    assert build_settings.parse_settings(settings) == settings.split()


@pytest.mark.parametrize("settings", HOSTILE)
def test_other_settings_are_refused_with_what_may_be_typed(settings: str) -> None:
    with pytest.raises(UsageError) as error:
        build_settings.parse_settings(settings)
    assert error.value.message.startswith("settings: ")


def test_no_option_of_a_group_switches_differential_privacy_off(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    override_file.save_overrides(console.layout, [Override.from_cli("sft=private")])
    before = console.layout.overrides.read_bytes()
    for answer in ("start", "preview"):
        refused = console.post("/build/start", answer=answer, reason="x", pending="", settings="sft=lora")
        assert refused.status_code == 422
        assert "would change sft.privacy" in refused.text
    assert console.layout.overrides.read_bytes() == before
    build_settings.check_protected(console.layout, ["hardware=cpu", "reward=none", "align=none"])


def test_neither_page_nor_act_takes_them_and_nothing_is_recorded(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    overrides = console.layout.overrides.read_bytes() if console.layout.overrides.exists() else None
    for settings in HOSTILE:
        for answer in ("start", "preview"):
            refused = console.post("/build/start", answer=answer, reason="x", pending="", settings=settings)
            assert refused.status_code == 422, settings
    assert console.client.get("/build/start", params={"settings": HOSTILE[0]}).status_code == 422
    assert (console.layout.overrides.read_bytes() if console.layout.overrides.exists() else None) == overrides
