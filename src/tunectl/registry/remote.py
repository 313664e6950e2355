"""A release store behind an address, for servers that share no disk with whoever builds: the same names, as objects.

sync     a store is copied there: files first, the pointers last, so that a pointer never names what is not whole
Mirror   a server reads the pointers there and brings a release here once, held against its digests
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from tunectl.artifacts import atomic_io, names
from tunectl.artifacts.record_format import RecordFormat, existing
from tunectl.artifacts.records import CanaryState
from tunectl.core.errors import ArtifactError, InfrastructureError
from tunectl.registry import event_log, registry_formats, release_manifest
from tunectl.registry.release_manifest import ReleaseManifest
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent
from tunectl.registry.release_store import CANARY, CHAMPION, EVENTS, OLD_CANARY, OLD_EVENTS, RELEASES, ReleaseRegistry

HALF_DONE = 86_400.0
"""Seconds after which a folder that is still being filled is what a kill left."""


class ObjectStore(Protocol):
    """Objects below an address; each is replaced whole. All methods raise  InfrastructureError where the place says no."""

    @property
    def address(self) -> str:
        """As it was given, without user and password."""
        ...

    def read(self, name: str) -> bytes | None:
        """An object's content; None where there is none."""
        ...

    def names(self, folder: str) -> list[str]:
        """What lies directly below a folder."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Make or replace an object."""
        ...

    def send(self, path: Path, name: str) -> None:
        """Copy a file there."""
        ...

    def fetch(self, name: str, path: Path) -> None:
        """Copy an object here."""
        ...

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""
        ...


class RemoteRegistry:
    """The releases behind an address, as a server needs them (``registry.protocols.RegistryReader``)."""

    def __init__(self, files: ObjectStore, cache: Path) -> None:
        """``cache`` is a folder of this machine; what was brought stays there while somebody may want it again."""
        self._files, self._cache = files, cache

    @property
    def location(self) -> str:
        """Where it is, for people."""
        return self._files.address

    def ids(self) -> list[str]:
        """Names of all releases."""
        return sorted(filter(names.is_content_id, self._files.names(RELEASES)))

    def champion(self) -> ChampionPointer | None:
        """The pointer; None before the first promotion."""
        found: ChampionPointer | None = self._record(registry_formats.POINTER, ChampionPointer, CHAMPION)
        return found

    def trial(self) -> CanaryState | None:
        """The challenger; None where there is none."""
        found: CanaryState | None = self._record(registry_formats.CANARY, CanaryState, CANARY, OLD_CANARY)
        return found

    def log(self) -> list[ReleaseEvent]:
        """What happened, in order, as of the last time that the store was copied there."""
        for name in (EVENTS, OLD_EVENTS):
            content = self._files.read(name)
            if content is not None:
                return event_log.parse_lines(content, f"{self.location}/{name}")
        return []

    def folder(self, release: str) -> Path:
        """Where its files are once they have been brought.

        Raises  ArtifactError for what is no name of a release.
        """
        return names.below(self._cache, release)

    def fetch(self, release: str) -> Path:
        """Its files on this machine, brought anew where they are damaged here.

        Raises  ArtifactError for what is no name of a release, and for one that is not what its manifest says; InfrastructureError for
                one that is not there (yet), and from the place itself.
        """
        target = self.folder(release)
        if target.is_dir() and not release_manifest.verify(target):
            return target
        place = f"{RELEASES}/{release}/{release_manifest.NAME}"
        told: ReleaseManifest | None = self._record(registry_formats.MANIFEST, ReleaseManifest, place)
        if told is None or told.id != release:
            raise InfrastructureError(
                f"{self.location} has no release {release}", hint=f"put it there: tunectl release sync {self.location}"
            )
        self._cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=self._cache, prefix="."))
        fresh = made / "release"
        try:
            for name in told.files:
                names.refuse_outside(name, self.location)
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                self._files.fetch(f"{RELEASES}/{release}/{name}", fresh / name)
            release_manifest.save(told, fresh)
            wrong = release_manifest.verify(fresh, release)
            if wrong:
                raise ArtifactError(f"release {release} of {self.location} is damaged: {'; '.join(wrong)}")
            self._remove(target)  # it was damaged here
            fresh.replace(target)
        except FileNotFoundError as error:
            raise ArtifactError(f"release {release} of {self.location} is not whole: {error}") from error
        except OSError as error:
            raise atomic_io.write_error(target, error) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)
        with suppress(InfrastructureError, OSError):  # the next one that is brought sees to it
            self._tidy(release)
        return target

    def _tidy(self, brought: str) -> None:
        """Delete what no pointer names any more, so that a server that follows for years does not fill its disk.

        A release that is still in memory goes on: its files stay until its engine closes them.
        """
        pointer, trial = self.champion(), self.trial()
        wanted = {
            brought,
            *((pointer.release, pointer.previous) if pointer else ()),
            *([trial.release] if trial else ()),
        }
        for folder in self._cache.iterdir():
            fresh = folder.name.startswith(".") and time.time() - folder.stat().st_mtime < HALF_DONE
            if folder.name not in wanted and not fresh:
                self._remove(folder)

    def _remove(self, folder: Path) -> None:
        """Take a folder out of the way at once, then delete it: what a kill leaves of it must not look like a release."""
        if not folder.is_dir():
            return
        away = Path(tempfile.mkdtemp(dir=self._cache, prefix="."))
        folder.rename(away / folder.name)
        shutil.rmtree(away, ignore_errors=True)

    def _record(self, form: RecordFormat, shape: Any, *names: str) -> Any:
        """The record under the first of ``names`` that is there; None where none is."""
        for name in names:
            content = self._files.read(name)
            if content is None:
                continue
            try:
                return form.decode(content, shape, f"{self.location}/{name}")
            except atomic_io.NOT_JSON as error:
                raise ArtifactError(f"{self.location}/{name} cannot be read: {error}") from error
        return None


def push(store: ReleaseRegistry, files: ObjectStore) -> list[str]:
    """Copy what ``files`` does not have, then the log and the pointers; returns the releases that were copied.

    Raises  ArtifactError for a damaged release, which stays here.
    """
    there, sent = set(files.names(RELEASES)), list[str]()
    for release in store.ids():
        folder, place = store.folder(release), f"{RELEASES}/{release}"
        whole = release in there and files.read(f"{place}/{release_manifest.NAME}")
        if whole == (folder / release_manifest.NAME).read_bytes():
            continue
        wrong = store.verify(release)
        if wrong:
            raise ArtifactError(f"release {release} is damaged: {'; '.join(wrong)}", hint="tunectl release verify")
        for name in store.manifest(release).files if not whole else ():
            files.send(folder / name, f"{place}/{name}")
        files.send(folder / release_manifest.NAME, f"{place}/{release_manifest.NAME}")
        sent.append(release)
    for name, older in ((EVENTS, OLD_EVENTS), (CANARY, OLD_CANARY), (CHAMPION, CHAMPION)):
        path = existing(store.root / name, older)
        if path.is_file():
            files.write(name, path.read_bytes())
        else:
            files.remove(name)
        if older != name:
            files.remove(older)
    return sent
