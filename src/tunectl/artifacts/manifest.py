"""The manifest: written last, so a folder without one is not an artifact.

It contains no times and no host name, so that the same inputs, configuration and code give the same bytes, and DVC reruns nothing
that did not change. Seconds and revision are in the stage's metrics file, which no stage depends on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.artifacts import atomic_io
from tunectl.artifacts.record_format import NewerRecordError
from tunectl.core.errors import ArtifactError

NAME = "manifest.json"
PASSED_THROUGH = "passed_through.json"
"""Written by a stage that is switched off: the next stage reads the input that it names."""


VERSION: Final = 2


class _Version(Struct, frozen=True):
    version: int = 1
    """Version of the format; 0.1 wrote none."""


class Manifest(Struct, frozen=True):
    """Digests of a stage's configuration, inputs and output files, as ``manifest.json`` of its artifact."""

    stage: str
    config: str
    """Digest of the stage's resolved configuration, code digest included."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Name of each input artifact to the digest of its manifest."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Relative name of each file to its SHA-256."""
    passed_through: bool = False
    """True where the stage is switched off and passes its input on."""
    version: int = VERSION
    """Format version of the artifact's files. An artifact of another version is built again, not upgraded."""


def write(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into ``folder``, with the digest of every file in it."""
    files = {
        item.relative_to(folder).as_posix(): atomic_io.sha256_path(item)
        for item in sorted(folder.rglob("*"))
        if item.is_file() and item.name != NAME
    }
    atomic_io.write_json(folder / NAME, replace(manifest, outputs=files))


def read(folder: Path) -> Manifest:
    """Return the manifest of an artifact folder.

    Raises  ArtifactError when the folder or its manifest is absent (the stage has not finished), or of another version.
    """
    if not (folder / NAME).is_file():
        what = "has no manifest, so it is not a finished artifact" if folder.is_dir() else "does not exist"
        raise ArtifactError(f"{folder} {what}", hint=f"run: tunectl repro --to {folder.name}")
    path = folder / NAME
    stamp: _Version = atomic_io.read_json(path, _Version)
    if stamp.version < VERSION:
        raise ArtifactError(
            f"{path} was written by a tunectl older than 0.2, which this version cannot read",
            hint=f"run again: tunectl repro --to {folder.name}",
        )
    if stamp.version > VERSION:
        raise NewerRecordError(
            f"{path} is a manifest of version {stamp.version}; this tunectl reads version {VERSION}",
            hint="a newer tunectl wrote it: install that version here",
        )
    manifest: Manifest = atomic_io.read_json(path, Manifest)
    return manifest


def verify(folder: Path) -> Manifest:
    """Return the manifest of an artifact folder, after comparing every file with its recorded digest.

    Raises  ArtifactError naming the first file that is absent or was changed.
    """
    result = read(folder)
    hint = f"restore it with: dvc checkout, or rebuild it with: tunectl repro --force --to {result.stage}"
    for name, recorded in result.outputs.items():
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder / name} is missing, though the manifest lists it", hint=hint)
        if atomic_io.sha256_path(folder / name) != recorded:
            raise ArtifactError(
                f"{folder / name} is corrupted: its SHA-256 is not the recorded {recorded[:12]}…", hint=hint
            )
    return result
