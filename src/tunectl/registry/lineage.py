"""Lineage of a release: the manifests of the stages before it and the resolved configurations that made them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.registry.release_manifest import Lineage


def collect_lineage(
    base: str, revision: str, stages: Mapping[str, Path], layout: ProjectPaths | None = None
) -> Lineage:
    """Return digests of the artifacts in ``stages`` (folder by stage name), and of configuration, code and sources of every stage.

    ``base`` and ``revision`` are those of the base model; ``layout`` None: the project in the current folder.
    """
    result = {
        name: atomic_io.sha256_json(manifest.read(folder))
        for name, folder in stages.items()
        if (folder / manifest.NAME).is_file()
    }
    configs: dict[str, str] = {}
    code: dict[str, str] = {}
    sources: dict[str, str | None] = {}
    for path in sorted((layout or ProjectPaths()).config("any").parent.glob("*.json")):
        record: dict[str, Any] = atomic_io.read_json(path)
        configs[path.stem] = atomic_io.sha256_json(record["settings"])
        code[path.stem] = record["code"]
        sources.update(record.get("sources", {}))
    return Lineage(base, revision, result, configs, code, sources)
