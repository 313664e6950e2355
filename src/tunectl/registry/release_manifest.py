"""The manifest of a release, and its name, which is computed from its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from tunectl.artifacts import atomic_io, names
from tunectl.artifacts.names import ContentId
from tunectl.artifacts.record_format import require_moment
from tunectl.core.errors import ArtifactError
from tunectl.registry import registry_formats

NAME = "manifest.json"
FACTS, RELEASE = "facts.json", "release"
"""Names in the artifact of the stage package: the facts, and the folder that is copied into the store."""
LENGTH = 16
"""Hexadecimal digits of a release's name."""
QUICK_BYTES = 64 << 20
"""Bytes that ``verify_quickly`` reads: under a second on a busy disk, and more than all files of a release except large weights."""


class Lineage(Struct, frozen=True):
    """What a release was made from: base model, artifacts, configurations, code and data sources; digests are SHA-256."""

    base: str
    revision: str
    stages: dict[str, str] = field(default_factory=dict)
    """Digest of each stage's manifest: data and weights."""
    configs: dict[str, str] = field(default_factory=dict)
    """Digest of each stage's resolved configuration."""
    code: dict[str, str] = field(default_factory=dict)
    """Digest of the code that each stage uses."""
    sources: dict[str, str | None] = field(default_factory=dict)
    """Digest of the content of each declared path."""


class RecordedVerdict(Struct, frozen=True):
    """Verdict of one gate of the pipeline, as a release stores it."""

    passed: bool
    verdict: str
    reason: str


class BuildFacts(Struct, frozen=True):
    """Facts about a release that the stage ``package`` passes to ``ReleaseRegistry.add``, before it has a name."""

    project: str
    engine: str
    layout: str
    metrics: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, RecordedVerdict] = field(default_factory=dict)
    """Verdicts by the stage of the gate."""
    lineage: Lineage | None = None


class ReleaseManifest(Struct, frozen=True):
    """Content of a stored release's ``manifest.json``: its name, files, metrics, verdicts and lineage."""

    id: ContentId
    created_at: str
    """When it was added to the store: UTC, ISO 8601."""
    project: str
    parent: ContentId | None
    """The champion at that time."""
    engine: str
    layout: str
    files: dict[str, str]
    """SHA-256 by relative path."""
    bytes: int
    metrics: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, RecordedVerdict] = field(default_factory=dict)
    lineage: Lineage | None = None
    git: str | None = None
    """Commit of the project from which it was made, with the suffix ``-dirty`` while some of that is not committed; None outside Git."""

    def __post_init__(self) -> None:
        require_moment("created_at", self.created_at)

    @property
    def refusals(self) -> list[str]:
        """Reasons of every failed gate; empty where all passed."""
        return [f"{stage}: {verdict.reason}" for stage, verdict in self.verdicts.items() if not verdict.passed]


def is_committed(git: str | None) -> bool:
    """Return whether ``git`` names a commit that contains everything from which a release was made (None or a dirty tree: no)."""
    return git is not None and not git.endswith("-dirty")


def content_id(files: Mapping[str, str]) -> str:
    """Return the name of a release with these files (SHA-256 by relative path): the same content gives the same name."""
    return content_digest(files)[:LENGTH]


def content_digest(files: Mapping[str, str]) -> str:
    """Return the SHA-256 (64 hex digits) over ``files``; ``content_id`` is its beginning."""
    lines = "".join(f"{path} {sha256}\n" for path, sha256 in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a release except its manifest, by relative path.

    Raises  ArtifactError for anything that is neither file nor folder: the target of a link is not part of a release.
    """
    return {path.relative_to(folder).as_posix(): atomic_io.sha256_path(path) for path in _list_files(folder)}


def _list_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ArtifactError(
                f"{path} is a link or a special file",
                hint="a release holds plain files only; replace it by a copy of its target",
            )
        names.refuse_line_end(path.name, str(folder))
        if path.is_file() and path != folder / NAME:
            yield path


def load(folder: Path) -> ReleaseManifest:
    """Return the manifest of a stored release.

    Raises  ArtifactError when it is absent or incomplete.
    """
    if not (folder / NAME).is_file():
        raise ArtifactError(
            f"{folder / NAME} does not exist, so this is not a stored release",
            hint="list those that are: tunectl release list",
        )
    manifest: ReleaseManifest = registry_formats.MANIFEST.read(folder / NAME, ReleaseManifest)
    return manifest


def save(manifest: ReleaseManifest, folder: Path) -> None:
    """Write the manifest of a release into its folder."""
    registry_formats.MANIFEST.write(folder / NAME, manifest)


def verify(folder: Path, called: str = "") -> list[str]:
    """Return all problems of the release in ``folder``, one sentence each; empty where it is intact.

    ``called``: the future name of its folder; empty: the present one.
    """
    called = called or folder.name
    try:
        recorded, actual = load(folder), digests(folder)
    except ArtifactError as error:
        return [error.message]
    wrong = [f"{name} is missing" for name in sorted(recorded.files.keys() - actual.keys())]
    wrong += [f"{name} does not belong to this release" for name in sorted(actual.keys() - recorded.files.keys())]
    for name in sorted(recorded.files.keys() & actual.keys()):
        if recorded.files[name] != actual[name]:
            wrong.append(
                f"{name} was changed: its SHA-256 is {actual[name][:12]}…, recorded is {recorded.files[name][:12]}…"
            )
    if content_id(recorded.files) != recorded.id or recorded.id != called:
        wrong.append(
            f"its name should be {content_id(recorded.files)}, the manifest says {recorded.id}, the folder {called}"
        )
    return wrong


def verify_quickly(folder: Path, limit: int = QUICK_BYTES) -> list[str]:
    """Verify a stored release in bounded time: names and total size of its files, and the digests of the smallest ones.

    A rollback must not wait until many gigabytes of weights are read; a server verifies all of them before it loads them.

    Args:
        folder: the release.
        limit: bytes that are read; files beyond it are not.

    Returns:
        What is wrong, a sentence each; empty where nothing was noticed.
    """
    try:
        recorded = load(folder)
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _list_files(folder)}
    except ArtifactError as error:
        return [error.message]
    wrong = [f"{name} is missing" for name in sorted(recorded.files.keys() - sizes.keys())]
    wrong += [f"{name} does not belong to this release" for name in sorted(sizes.keys() - recorded.files.keys())]
    if not wrong and sum(sizes.values()) != recorded.bytes:
        wrong.append(f"its files have {sum(sizes.values())} bytes, recorded are {recorded.bytes}")
    total = 0
    for name in sorted(recorded.files.keys() & sizes.keys(), key=lambda name: (sizes[name], name)):
        total += sizes[name]
        if total > limit:
            break
        if atomic_io.sha256_path(folder / name) != recorded.files[name]:
            wrong.append(f"{name} was changed: its SHA-256 is not the recorded one")
    if not content_id(recorded.files) == recorded.id == folder.name:
        wrong.append(f"its name should be {content_id(recorded.files)}, and the manifest says {recorded.id}")
    return wrong


def diff(manifest: ReleaseManifest, other: ReleaseManifest) -> dict[str, Any]:
    """Return the changes from one release to another: subject -> changes; a subject without a change is left out.

    Files are listed as added, removed or changed, everything else as [before, after].
    """
    files = {
        **dict.fromkeys(manifest.files.keys() - other.files.keys(), "removed"),
        **dict.fromkeys(other.files.keys() - manifest.files.keys(), "added"),
        **{
            name: "changed"
            for name in manifest.files.keys() & other.files.keys()
            if manifest.files[name] != other.files[name]
        },
    }
    plain = {
        name: [getattr(manifest, name), getattr(other, name)]
        for name in ("project", "engine", "layout", "git", "bytes")
    }
    parts = {
        "files": dict(sorted(files.items())),
        "manifest": {name: pair for name, pair in plain.items() if pair[0] != pair[1]},
        "metrics": _pairs(manifest.metrics, other.metrics),
        "verdicts": _pairs(
            {stage: verdict.verdict for stage, verdict in manifest.verdicts.items()},
            {stage: verdict.verdict for stage, verdict in other.verdicts.items()},
        ),
        "lineage": _pairs(_flat(manifest.lineage), _flat(other.lineage)),
    }
    return {name: part for name, part in parts.items() if part}


def _pairs(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = [*first, *(name for name in other if name not in first)]
    return {name: [first.get(name), other.get(name)] for name in names if first.get(name) != other.get(name)}


def _flat(lineage: Lineage | None) -> dict[str, Any]:
    if lineage is None:
        return {}
    result: dict[str, Any] = {"base": lineage.base, "revision": lineage.revision}
    for part in ("stages", "configs", "code", "sources"):
        result.update({f"{part}.{name}": value for name, value in getattr(lineage, part).items()})
    return result


def read_created_at(folder: Path) -> str:
    """Return when a release was stored (UTC, ISO 8601); empty where its manifest is damaged, which must not prevent a rollback to others."""
    try:
        return load(folder).created_at
    except ArtifactError:
        return ""
