"""Who on this machine may read the inference log, and what its address must not hold."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.config.schema.inference_log import InferenceLogConfig
from tunectl.inference_log import pseudonyms
from tunectl.serving import inference_logger

DEFAULTS = yaml.safe_load((Path(__file__).parents[2] / "conf/inference_log/default.yaml").read_text())


def test_a_new_log_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with open_log("sqlite:///state/inference_log/log.sqlite", tmp_path):
            folder = tmp_path / "state" / "inference_log"
            modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir() if "log.sqlite" in path.name}
            assert folder.stat().st_mode & 0o777 == 0o700
            assert modes["log.sqlite"] == 0o600
            assert set(modes.values()) == {0o600}, modes
    finally:
        os.umask(before)


def test_a_log_of_an_earlier_version_is_closed_when_it_is_opened(tmp_path: Path) -> None:
    """A server loads the hash key first, and that had made the folder as open as the account makes folders."""
    config, before = InferenceLogConfig.model_validate(DEFAULTS), os.umask(0o022)
    folder = tmp_path / ".tunectl" / "inference_log"
    try:
        folder.mkdir(parents=True)
        with open_log(config.url, tmp_path):
            pass
        pseudonyms.load_hash_key(config, tmp_path, {})
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        with closing(inference_logger.open_logger(config, tmp_path, lambda count: None)):
            found = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {found[name] for name in ("hash_key", "inference_log.sqlite")} == {0o600}, found
        shared = tmp_path / "shared"
        shared.mkdir()
        with open_log("sqlite:///shared/log.sqlite", tmp_path):
            assert shared.stat().st_mode & 0o777 == 0o755  # a folder that the project names itself
    finally:
        os.umask(before)


def test_a_server_makes_a_folder_that_nobody_else_looks_into(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        config = InferenceLogConfig.model_validate(DEFAULTS)
        with closing(inference_logger.open_logger(config, tmp_path, lambda count: None)):
            assert (tmp_path / ".tunectl" / "inference_log").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_a_password_in_the_address_is_refused() -> None:
    for url in ("postgresql://me:secret@host/log", "postgresql+psycopg://:s@host/log"):
        with pytest.raises(ValidationError, match="set the variable that url_env names"):
            InferenceLogConfig.model_validate(DEFAULTS | {"url": url})
    assert InferenceLogConfig.model_validate(DEFAULTS | {"url": "postgresql://me@host/log"}).url
