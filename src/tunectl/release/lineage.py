"""Where a release comes from: the manifests of the stages before it and the resolved configurations that made them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunectl.artifacts import io, manifest
from tunectl.artifacts.layout import Layout
from tunectl.release.manifest import Lineage


def traced(base: str, revision: str, stages: Mapping[str, Path], layout: Layout | None = None) -> Lineage:
    """Digests of the artifacts in ``stages``, and of configuration, code and sources of every stage of the project."""
    found = {
        name: io.digest_value(manifest.read(folder))
        for name, folder in stages.items()
        if (folder / manifest.NAME).is_file()
    }
    configs: dict[str, str] = {}
    code: dict[str, str] = {}
    sources: dict[str, str | None] = {}
    for path in sorted((layout or Layout()).config("any").parent.glob("*.json")):
        record: dict[str, Any] = io.read_json(path)
        configs[path.stem] = io.digest_value(record["settings"])
        code[path.stem] = record["code"]
        sources.update(record.get("sources", {}))
    return Lineage(base, revision, found, configs, code, sources)
