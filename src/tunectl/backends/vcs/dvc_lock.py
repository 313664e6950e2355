"""Read ``dvc.lock``, DVC's record of what each stage last read and wrote, and check DVC's cache.

Reading takes milliseconds and no lock, so it works while ``dvc repro`` runs; DVC itself refuses then.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunectl.core.errors import ArtifactError

_EXPONENT = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, in C where PyYAML was built with it: a lock file has thousands of lines.

    DVC writes YAML 1.2, where ``5e-05`` is a number; PyYAML reads 1.1, where it is text.
    """


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


@dataclass(frozen=True, slots=True)
class LockedOutput:
    """Entry of dvc.lock for one file or folder that a stage reads or writes. A folder's ``md5`` ends in ``.dir``."""

    md5: str
    size: int = 0
    """Bytes; for a folder those of all its files."""
    files: int = 1


@dataclass(frozen=True, slots=True)
class LockedStage:
    """Entry of dvc.lock for one stage: what it read and wrote when it last succeeded. Paths are relative to the project."""

    command: str
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Content of each file of settings, by its name."""
    inputs: Mapping[str, LockedOutput] = field(default_factory=dict)
    outputs: Mapping[str, LockedOutput] = field(default_factory=dict)


def read_lock_file(root: Path) -> dict[str, LockedStage]:
    """Return the stages in dvc.lock by name; empty if nothing was built yet.

    Raises  ArtifactError where the file is not what DVC writes.
    """
    path = root / "dvc.lock"
    if not path.is_file():
        return {}
    data = path.read_bytes()
    try:
        content = _Loader(data).get_single_data()
        return {name: _read_stage(stage) for name, stage in (content.get("stages") or {}).items()}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if data.strip() else "it is empty"
        raise ArtifactError(
            f"{path} is not a lock file of DVC: {reason}",
            hint="take the committed one back: git checkout dvc.lock; or delete it: tunectl repro then builds everything",
        ) from error


def read_commands(root: Path) -> dict[str, str]:
    """Return the command of each stage in dvc.yaml, by name.

    Raises  ArtifactError where the file is no description of stages.
    """
    return {name: stage.get("cmd", "") for name, stage in _read_pipeline(root).items()}


def read_dependencies(root: Path) -> dict[str, list[str]]:
    """Return for each stage of dvc.yaml the stages that it reads directly; ``compose`` is left out.

    A stage that is reached through another one as well is left out, too (transitive reduction).
    Raises  ArtifactError where dvc.yaml is no description of stages.
    """
    stages = {name: stage for name, stage in _read_pipeline(root).items() if name != "compose"}
    writers = {
        output if isinstance(output, str) else next(iter(output)): name
        for name, stage in stages.items()
        for output in stage.get("outs", ())
    }
    direct = {
        name: sorted({writers[path] for path in stage.get("deps", ()) if writers.get(path, name) != name})
        for name, stage in stages.items()
    }

    def list_upstream(name: str) -> set[str]:
        return {above for item in direct[name] for above in (item, *list_upstream(item))}

    return {
        name: [item for item in above if not any(item in list_upstream(other) for other in above)]
        for name, above in direct.items()
    }


def _read_pipeline(root: Path) -> dict[str, dict[str, Any]]:
    path = root / "dvc.yaml"
    if not path.is_file():
        return {}
    try:
        content = _Loader(path.read_bytes()).get_single_data() or {}
        return {name: dict(stage) for name, stage in (content.get("stages") or {}).items()}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} is not a pipeline of DVC: {str(error).splitlines()[0]}",
            hint="take the committed one back: git checkout dvc.yaml",
        ) from error


def _read_stage(stage: Mapping[str, Any]) -> LockedStage:
    def read_paths(key: str) -> dict[str, LockedOutput]:
        return {
            item["path"]: LockedOutput(item["md5"], item.get("size", 0), item.get("nfiles", 1))
            for item in stage.get(key) or ()
        }

    return LockedStage(stage["cmd"], stage.get("params") or {}, read_paths("deps"), read_paths("outs"))


def is_output_unchanged(path: Path, recorded: LockedOutput) -> bool:
    """Return whether a file has its recorded digest, or a folder its recorded number of files and bytes."""
    if not recorded.md5.endswith(".dir"):
        return path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == recorded.md5
    sizes = [item.stat().st_size for item in path.rglob("*") if item.is_file()]
    return len(sizes) == recorded.files and sum(sizes) == recorded.size


def is_in_cache(root: Path, recorded: LockedOutput) -> bool:
    """Return whether DVC's cache has all files of an output, so that ``dvc checkout`` can restore it."""
    cache = find_cache_dir(root)
    return all((cache / "files" / "md5" / md5[:2] / md5[2:]).is_file() for md5 in _list_objects(cache, recorded.md5))


def _list_objects(cache: Path, md5: str) -> Iterator[str]:
    yield md5
    listing = cache / "files" / "md5" / md5[:2] / md5[2:]
    if md5.endswith(".dir") and listing.is_file():
        yield from (item["md5"] for item in json.loads(listing.read_bytes()))


def find_cache_dir(root: Path) -> Path:
    """Return the folder of DVC's cache: ``cache.dir`` of the project's configuration, or ``.dvc/cache``."""
    settings = configparser.ConfigParser(interpolation=None)
    # a later file overrides an earlier one
    settings.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    return root / ".dvc" / settings.get("cache", "dir", fallback="cache")  # an absolute path replaces the root
