"""A program that looks again and again begins a sync whenever champion or challenger has moved, and only then."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.schema.track import Track
from tunectl.pipeline.build_tracking import LOG, ReleaseMirror
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry


def build_settings(model: str | None) -> Track:
    values = {"to": ["mlflow"], "experiment": "shop", "uri": None, "registry_uri": None, "timeout_seconds": 1}
    return Track.model_validate({**values, "registered_model": model})


@pytest.mark.parametrize("model", ["ads", None])
def test_a_moved_pointer_begins_one_sync(tmp_path: Path, model: str | None) -> None:
    layout = ProjectPaths(tmp_path)
    store = ReleaseRegistry(layout.releases)
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "contract.json").write_text(json.dumps({}))
    release = store.add(tmp_path / "release", BuildFacts("shop", "transformers", "adapter", metrics={}))
    mirror = ReleaseMirror(layout, build_settings(model), store)
    assert not mirror.sync_if_changed()
    store.promote(release.id, author="me", message="the first")
    assert mirror.sync_if_changed() is (model is not None)
    assert not mirror.sync_if_changed()
    log, end = layout.track / LOG, time.monotonic() + 60
    assert log.is_file() is (model is not None)
    while model is not None and not log.read_text():  # its words: here is no configuration
        assert time.monotonic() < end
        time.sleep(0.05)
