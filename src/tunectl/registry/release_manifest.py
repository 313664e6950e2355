"""What a release is made of, and how its name follows from its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from tunectl.artifacts import atomic_io
from tunectl.artifacts.names import ContentId
from tunectl.core.errors import ArtifactError
from tunectl.registry import registry_formats

NAME = "manifest.json"
FACTS, RELEASE = "facts.json", "release"
"""Beside each other in the artifact of the stage package: what it says, and what goes into the store."""
LENGTH = 16
"""Hexadecimal digits of a release's name."""


class Lineage(Struct, frozen=True):
    """Where a release comes from; digests are SHA-256."""

    base: str
    revision: str
    stages: dict[str, str] = field(default_factory=dict)
    """Stage to the digest of its manifest: data and weights."""
    configs: dict[str, str] = field(default_factory=dict)
    """Stage to the digest of its resolved configuration."""
    code: dict[str, str] = field(default_factory=dict)
    """Stage to the digest of the code that it reaches."""
    sources: dict[str, str | None] = field(default_factory=dict)
    """Declared path to the digest of its content."""


class RecordedVerdict(Struct, frozen=True):
    """What a gate said."""

    passed: bool
    verdict: str
    reason: str


class BuildFacts(Struct, frozen=True):
    """What the stage that made a release says about it."""

    project: str
    engine: str
    layout: str
    metrics: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, RecordedVerdict] = field(default_factory=dict)
    """By the stage whose gate it is."""
    lineage: Lineage | None = None


class ReleaseManifest(Struct, frozen=True):
    """What lies in ``manifest.json`` of a stored release."""

    id: ContentId
    created_at: str
    """When it came into the store: UTC, ISO 8601."""
    project: str
    parent: ContentId | None
    """The champion of that moment."""
    engine: str
    layout: str
    files: dict[str, str]
    """Relative path to SHA-256."""
    bytes: int
    metrics: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, RecordedVerdict] = field(default_factory=dict)
    lineage: Lineage | None = None
    git: str | None = None
    """Commit of the project that holds what it was made of, with ``-dirty`` behind it while some of that is not committed; None outside Git."""

    @property
    def refusals(self) -> list[str]:
        """The reasons of every gate that said no."""
        return [f"{stage}: {found.reason}" for stage, found in self.verdicts.items() if not found.passed]


def is_committed(git: str | None) -> bool:
    """Return whether a commit is known that holds all that a release was made of."""
    return git is not None and not git.endswith("-dirty")


def content_id(files: Mapping[str, str]) -> str:
    """Return the name of a release with these files (relative path to SHA-256): the same content, the same name."""
    lines = "".join(f"{path} {sha256}\n" for path, sha256 in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:LENGTH]


def digests(folder: Path) -> dict[str, str]:
    """Return relative path to SHA-256 of every file of a release but its manifest.

    Raises  ArtifactError for anything that is neither file nor folder: what a link names is not part of a release.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ArtifactError(f"{path} is not a plain file", hint="releases hold files only; copy what it points at")
        if path.is_file() and name != NAME:
            found[name] = atomic_io.sha256_path(path)
    return found


def load(folder: Path) -> ReleaseManifest:
    """Return the manifest of a stored release.

    Raises  ArtifactError when it is absent or cut off.
    """
    if not (folder / NAME).is_file():
        raise ArtifactError(
            f"{folder / NAME} does not exist, so this is no stored release", hint="tunectl release list"
        )
    found: ReleaseManifest = registry_formats.MANIFEST.read(folder / NAME, ReleaseManifest)
    return found


def save(manifest: ReleaseManifest, folder: Path) -> None:
    """Write the manifest of a release into its folder."""
    registry_formats.MANIFEST.write(folder / NAME, manifest)


def verify(folder: Path, called: str = "") -> list[str]:
    """Return everything that is wrong with a stored release, a sentence each; empty where it is whole.

    ``called``: what its folder will be called; empty: as it is.
    """
    called = called or folder.name
    try:
        told, there = load(folder), digests(folder)
    except ArtifactError as error:
        return [error.message]
    wrong = [f"{name} is missing" for name in sorted(told.files.keys() - there.keys())]
    wrong += [f"{name} is not of this release" for name in sorted(there.keys() - told.files.keys())]
    for name in sorted(told.files.keys() & there.keys()):
        if told.files[name] != there[name]:
            wrong.append(
                f"{name} was changed: its SHA-256 is {there[name][:12]}…, recorded is {told.files[name][:12]}…"
            )
    if content_id(told.files) != told.id or told.id != called:
        wrong.append(f"its name should be {content_id(told.files)}, the manifest says {told.id}, the folder {called}")
    return wrong


def diff(one: ReleaseManifest, other: ReleaseManifest) -> dict[str, Any]:
    """Return the changes from one release to another, by subject; a subject without a change is left out.

    Files are told as added, removed or changed, everything else as [before, after].
    """
    files = {
        **dict.fromkeys(one.files.keys() - other.files.keys(), "removed"),
        **dict.fromkeys(other.files.keys() - one.files.keys(), "added"),
        **{name: "changed" for name in one.files.keys() & other.files.keys() if one.files[name] != other.files[name]},
    }
    plain = {
        name: [getattr(one, name), getattr(other, name)] for name in ("project", "engine", "layout", "git", "bytes")
    }
    parts = {
        "files": dict(sorted(files.items())),
        "manifest": {name: pair for name, pair in plain.items() if pair[0] != pair[1]},
        "metrics": _pairs(one.metrics, other.metrics),
        "verdicts": _pairs(
            {stage: found.verdict for stage, found in one.verdicts.items()},
            {stage: found.verdict for stage, found in other.verdicts.items()},
        ),
        "lineage": _pairs(_flat(one.lineage), _flat(other.lineage)),
    }
    return {name: part for name, part in parts.items() if part}


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = [*one, *(name for name in other if name not in one)]
    return {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}


def _flat(lineage: Lineage | None) -> dict[str, Any]:
    if lineage is None:
        return {}
    found: dict[str, Any] = {"base": lineage.base, "revision": lineage.revision}
    for part in ("stages", "configs", "code", "sources"):
        found.update({f"{part}.{name}": value for name, value in getattr(lineage, part).items()})
    return found
