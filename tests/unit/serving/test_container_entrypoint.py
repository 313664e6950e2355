"""The program of the container: which words it becomes, and what it says about settings that are broken."""

import json

import pytest
from serving_process import settings

from tunectl.core.errors import ConfigError
from tunectl.services.container_entrypoint import bentoml_command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNECTL_SERVE", raising=False)
    return tmp_path


def test_it_stops_as_its_settings_say(folder) -> None:
    (folder / "serve.json").write_text(json.dumps(settings(shutdown__grace_period_seconds=7)))
    assert bentoml_command({"BENTO_PATH": "/bento"}) == [
        *("bentoml", "serve", "/bento", "--host", "0.0.0.0", "--timeout-graceful-shutdown", "7"),
    ]
    assert "127.0.0.1" in bentoml_command({"BENTOML_HOST": "127.0.0.1"})


def test_settings_that_are_absent_or_broken_are_named(folder) -> None:
    with pytest.raises(
        ConfigError, match=r"settings file .*/serve.json does not exist \(the variable TUNECTL_SERVE names it"
    ):
        bentoml_command({})
    (folder / "serve.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"serve.json: \('project',\): Field required"):
        bentoml_command({})
