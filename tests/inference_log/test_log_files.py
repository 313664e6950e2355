"""Who on this machine may read the inference log, and what its address must not hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.config.schema.inference_log import InferenceLogConfig

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


def test_a_password_in_the_address_is_refused() -> None:
    for url in ("postgresql://me:secret@host/log", "postgresql+psycopg://:s@host/log"):
        with pytest.raises(ValidationError, match="set the variable that url_env names"):
            InferenceLogConfig.model_validate(DEFAULTS | {"url": url})
    assert InferenceLogConfig.model_validate(DEFAULTS | {"url": "postgresql://me@host/log"}).url
