"""`tunectl serve` says what stands in its way before it becomes the server."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from serving_process import settings

from tunectl.backends import sqlalchemy_store
from tunectl.cli import serve
from tunectl.config.live import Live
from tunectl.core.errors import EnvironmentFailure


def root(url: str) -> SimpleNamespace:
    return SimpleNamespace(live=Live.model_validate(settings(live__url=url)["live"], strict=True))


def test_a_live_store_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailure, match="file") as caught:
        serve._refuse_unkept(root("sqlite:///file/live.sqlite"))
    assert caught.value.exit_code == 5
    serve._refuse_unkept(root("sqlite:///live.sqlite"))
    with (
        sqlalchemy_store.opened("sqlite:///live.sqlite", Path(), serving=True),
        pytest.raises(EnvironmentFailure, match=r"live\.sqlite: another server writes to this live store"),
    ):
        serve._refuse_unkept(root("sqlite:///live.sqlite"))
