"""`bentoml serve` on a built Bento, typed in a project: the project's keys open it, and nothing is kept inside the Bento."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from serving_process import Server, settings

from tunectl.backends.export import bento_build
from tunectl.config.schema.serve import ServeSettings
from tunectl.registry.release_manifest import BuildFacts


class Built(Server):
    """The server of a Bento, started the way a person does it."""

    def __init__(self, project: Path, bento: Path) -> None:
        project.mkdir()
        self.bento = bento
        super().__init__(project)

    def start(self) -> None:
        words = ["serve", str(self.bento), "--host", "127.0.0.1", "--port", str(self.port)]
        kept = {name: value for name, value in self._env.items() if name != "PYTHONPATH"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bentoml", *words],
                cwd=self.folder, env={**kept, "PWD": str(self.folder)}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.timeout(300)
def test_a_bento_serves_its_seed_and_keeps_nothing_inside(
    releases: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first, _ = releases
    monkeypatch.chdir(tmp_path)
    given = ServeSettings.model_validate(settings())
    bento, release = tmp_path / "artifacts" / "bento", store.parent / "r1"
    bento.parent.mkdir()
    facts = BuildFacts("shop", "transformers", "adapter")
    bento_build.build(release, facts, "shop", bento, settings=given, at="2026-01-01T00:00:00+00:00")
    before = files(bento)
    server = Built(tmp_path / "project", bento)
    try:
        said = server.until_ready(200)
        assert said["variants"]["champion"]["release"] == first
        body = {"model": "shop", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        assert server.call("/v1/chat/completions", body)[0] == 200
    finally:
        server.stop(signal.SIGTERM)
    assert files(bento) == before
    assert (server.folder / ".tunectl" / "inference_log" / "inference_log.sqlite").is_file()
