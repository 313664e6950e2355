"""An inference log on each database: SQLite in a file, and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tunectl.backends.storage import inference_log_sql


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/live/inference_log.sqlite"
    return request.getfixturevalue("postgres").database("tests")


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[inference_log_sql.SqlInferenceLog]:
    with inference_log_sql.open_log(url, tmp_path) as found:
        yield found
