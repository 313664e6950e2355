"""Stage compose: ``conf/`` and its overrides -> one resolved JSON per stage.

It is the first stage of dvc.yaml and always runs: each later stage lists its JSON as parameters, so DVC reruns exactly the
stages whose settings, sources or code changed. The result does not depend on the time, the host or the order of files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.config.schema.root import TunectlConfig
from tunectl.core import logging_setup
from tunectl.core.errors import DataError
from tunectl.data.readers.file_discovery import glob_files, is_dead_link
from tunectl.pipeline import code_digest, resolved_config
from tunectl.pipeline.stages import STAGES
from tunectl.preferences import annotation_store

_log = logging_setup.get_logger(__name__)
Known = dict[str, tuple[int, int, int, str]]
"""File to size in bytes, time of change in nanoseconds, inode, and SHA-256."""


def compose(layout: ProjectPaths) -> dict[str, list[str]]:
    """Write ``artifacts/config/<stage>.json`` for every stage, and remove those of stages that do not exist any more.

    Reads    conf/, conf/overrides.yaml, the declared sources, the installed sources of tunectl
    Writes   artifacts/config/*.json, each only where its content changed; and in .tunectl/ the section launch and the engine of curate,
             which are in no stage's JSON, so that changing them reruns nothing
    Returns  names of stages: written, unchanged, removed

    Raises   ConfigError with every mistake of the configuration
    """
    changes: dict[str, list[str]] = {"written": [], "unchanged": [], "removed": []}
    root = checks.load_project_config(layout).root
    for name, record in resolve_stages(layout, root).items():
        changes["written" if _write(layout.config(name), record) else "unchanged"].append(name)
    atomic_io.write_json(layout.launch, root.launch.model_dump(mode="json"))
    atomic_io.write_json(layout.curate_engine, {"engine": root.curate.engine})
    names = {stage.name for stage in STAGES}
    for stale in sorted(layout.config("any").parent.glob("*.json")):
        if stale.stem not in names:
            stale.unlink()
            changes["removed"].append(stale.stem)
    _log.debug("compose: %s", changes)
    return changes


def resolve_stages(
    layout: ProjectPaths, root: TunectlConfig | None = None
) -> dict[str, resolved_config.ResolvedStageConfig]:
    """Return the resolved configuration of every stage, in the order of the pipeline.

    ``root`` is the composed configuration, if the caller has it. Writes no tracked file; digests of sources and code are
    cached in ``.tunectl/cache``.
    Raises  ConfigError with every mistake of the configuration
    """
    root = root or checks.load_project_config(layout).root
    starts = {stage.name: [stage.module, stage.settings.partition(":")[0]] for stage in STAGES}
    codes = code_digest.stage_code_digests(starts, layout.cache / "code.json")
    digests = _Digests(layout.cache / "digests.json")
    records: dict[str, resolved_config.ResolvedStageConfig] = {}
    for stage in STAGES:
        settings = resolved_config.stage_view(stage.name, root)
        sources = {path: digests.digest_path(layout.root, path) for path in list_declared_paths(stage.name, settings)}
        records[stage.name] = resolved_config.ResolvedStageConfig(stage.name, settings, codes[stage.name], sources)
    digests.save()
    return records


def list_declared_paths(stage: str, settings: dict[str, Any]) -> Iterator[str]:
    """Yield the local paths outside the pipeline that a stage reads by its settings, sorted, each once."""
    if stage == "ingest":
        sources = settings["ingest"]["sources"].values()
        yield from sorted({source["path"] for source in sources if source.get("path")})
        if any(source.get("urls") for source in sources):
            yield ProjectPaths().web_page_digests.as_posix()  # pages cannot be digested from here: tunectl data refresh asks for them
    elif stage == "feedback":
        yield from [settings["feedback"]["window"]] if settings["feedback"]["method"] == "inference_log" else []
    elif stage == "sft":
        folders = {settings["sft"]["init_adapter"], settings["sft"]["adapter"]} - {None}
        yield from sorted(f"{folder}/adapter_model.safetensors" for folder in folders)
    elif stage == "preferences":
        section = settings["preferences"]
        paths = {source["path"] for source in section.get("sources", {}).values()}
        store = section.get("collected")
        yield from sorted(paths | set(_list_store(store)))
    elif stage == "evaluate":
        people = settings["evaluate"]["aligned"]["human_judgments_dir"]
        yield from _list_store(people)
    elif stage == "model":
        named = (settings["model"]["source"].get("path"), settings["model"]["chat_template"])
        yield from sorted({path for path in named if path})  # the name of a built-in template matches no file


def _list_store(folder: str | None) -> list[str]:
    return [path.as_posix() for path in annotation_store.list_files(Path(folder))] if folder else []


def match_files(root: Path, path: str) -> list[Path]:
    """Return the files below ``root`` that a declared path or pattern matches; empty where none exists yet."""
    try:
        return glob_files(path, root, "path")
    except DataError:
        return []


class _Digests:
    """SHA-256 of files, cached while size, time of change and inode are unchanged."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.previous: Known = {}
        self.used: Known = {}
        if cache.is_file():
            try:
                self.previous = msgspec.json.decode(cache.read_bytes(), type=Known)
            except atomic_io.NOT_JSON:
                self.previous = {}  # cut off or from another version: read the files again

    def digest_path(self, root: Path, path: str) -> str | None:
        """Return the digest of names and contents of all files that ``path`` means; None where it means none."""
        total, count = hashlib.sha256(), 0
        for file in match_files(root, path):
            name = file.relative_to(root) if file.is_relative_to(root) else file.name
            total.update(f"{name}\0{self._one(file)}\n".encode())
            count += 1
        return total.hexdigest() if count else None

    def _one(self, file: Path) -> str:
        if is_dead_link(file):
            return "a link to nothing"
        stat = file.stat()
        key = str(file.absolute())
        stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        old = self.previous.get(key)
        digest = old[3] if old is not None and old[:3] == stamp else atomic_io.sha256_path(file)
        self.used[key] = (*stamp, digest)
        return digest

    def save(self) -> None:
        """Store the digests that this run used."""
        if self.used != self.previous:
            atomic_io.write_bytes(self.cache, msgspec.json.encode(self.used))


def _write(path: Path, record: resolved_config.ResolvedStageConfig) -> bool:
    """Write a record where it differs from the file's content; returns whether it did."""
    plain = msgspec.to_builtins(record, order="sorted")
    content = msgspec.json.format(msgspec.json.encode(plain, order="sorted"), indent=2) + b"\n"
    if path.is_file() and path.read_bytes() == content:
        return False
    atomic_io.write_bytes(path, content)
    return True
