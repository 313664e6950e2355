"""A inference log on each database: SQLite in a file, and PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import Postgres, postgres_programs

from tunectl.backends.storage import inference_log_sql


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    server = Postgres(programs)
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


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
