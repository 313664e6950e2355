"""Read a registry behind an address (object store), for servers without a shared disk.

    <address>/releases/<id>/      as in a folder
    <address>/events/<n>.jsonl    part of the release history; ``n`` is the number of its first event, from 1
    <address>/champion/<n>.json   the champion pointer with sequence ``n``; the highest is in force
    <address>/canary/<n>.json     the canary after the event with number ``n``, or that there is none; the highest is in force

Numbered objects are made once and never changed: of two machines that write at the same time one is refused, and nothing that
was written is lost. An address of tunectl 0.1 has ``log.jsonl``, ``champion.json`` and ``challenger.json``, which are read until
``remote_sync.push`` has written numbered objects beside them.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from tunectl.access.signatures import TrustStore
from tunectl.artifacts import atomic_io, disk_list, names
from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.record_format import RecordFormat
from tunectl.core.errors import ArtifactError, InfrastructureError
from tunectl.registry import event_log, registry_formats, release_manifest, release_statement
from tunectl.registry.protocols import MAX_HISTORY_BYTES, MAX_MANIFEST_BYTES, ObjectStore
from tunectl.registry.registry_formats import OLD_CANARY, OLD_EVENTS, RELEASES, RemoteCanary
from tunectl.registry.release_manifest import ReleaseManifest
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent
from tunectl.registry.sequence_guard import SequenceGuard

T = TypeVar("T")
EVENTS, CHAMPIONS, CANARIES = "events", "champion", "canary"
OLD_CHAMPION: Final = "champion.json"
DIGITS: Final = 6
"""Fewest digits of a numbered object: names sort as their numbers do up to a million."""
RESTORE: Final = "restore that address from a backup, or copy a registry to a new one: tunectl release sync ADDRESS"
HALF_DONE = 86_400.0
"""Seconds after which an unfinished folder is taken for one that a killed process left."""
MAX_STEP: Final = 100_000
"""Most that a sequence may exceed the ones before: a history of ``MAX_HISTORY_BYTES`` then leaves numbers that have a place at an address."""


class RemoteRegistry:
    """Read access to the releases behind an address, with a cache on this machine (``registry.protocols.RegistryReader``)."""

    def __init__(
        self, files: ObjectStore, cache: Path, trust: TrustStore | None = None, *, keep_recent: bool = False
    ) -> None:
        """``cache`` is a folder of this machine; downloaded releases stay there while they may be needed again.

        ``trust``: the trusted keys; a champion pointer without a trusted signature is returned, but not stored as the newest one seen.
        ``keep_recent``: whether releases that no pointer at the address names stay in ``cache`` for a day.
        """
        self._trust, self._keep_recent = trust, keep_recent
        self._files, self._cache, self._guard = files, cache, SequenceGuard()
        self._events: dict[str, Any] = {}
        """Cache of numbered objects by name: they never change."""
        self._history_bytes = 0
        """Size of the parts of the history in it."""

    @property
    def warning(self) -> str:
        """Reason why ``champion`` did not return the stored pointer; empty where it did."""
        return self._guard.warning

    @property
    def location(self) -> str:
        """URL of the registry, for people."""
        return self._files.address

    def ids(self) -> list[str]:
        """Return the names of all releases."""
        return sorted(filter(names.is_content_id, self._files.names(RELEASES)))

    def champion(self) -> ChampionPointer | None:
        """Return the champion pointer; None before the first promotion."""
        newest = self._newest(CHAMPIONS, registry_formats.POINTER, ChampionPointer)
        if newest is None:
            result = self._record(registry_formats.POINTER, ChampionPointer, OLD_CHAMPION)
        else:
            number, result = newest
            if result.sequence != number:
                raise ArtifactError(
                    f"{self.location}/{build_object_name(CHAMPIONS, number)} holds sequence number {result.sequence}, expected {number}",
                    hint="it was changed by hand; restore the address from a backup",
                )
        trust = self._trust
        if (
            result is not None
            and trust is not None
            and release_statement.check_pointer(result, trust).status != "trusted"
        ):
            return result  # whoever has a revoked key could name a sequence that nothing follows
        return self._guard.latest(result, self.location, trust)

    def canary(self) -> CanaryState | None:
        """Return the canary with its challenger; None where there is none."""
        newest = self._newest(CANARIES, registry_formats.REMOTE_CANARY, RemoteCanary)
        if newest is not None:
            return newest[1].state
        if self._files.names(CHAMPIONS):  # numbered objects are in force: what 0.1 left beside them is not
            return None
        return self._record(registry_formats.CANARY_STATE, CanaryState, OLD_CANARY)

    def log(self) -> list[ReleaseEvent]:
        """Return all events of the registry in order, as of its last copy to the address.

        Raises  ArtifactError where an object of the history is missing or cannot be read, or a sequence is far above the ones before.
        """
        result = list[ReleaseEvent]()
        for number, name in self._list_numbered(EVENTS, ".jsonl"):
            if number != len(result) + 1:
                raise ArtifactError(
                    f"{self.location}/{EVENTS}: the file that begins with event {len(result) + 1} is missing; the next one is {name}",
                    hint=RESTORE,
                )
            result += self._parse_part(f"{EVENTS}/{name}")
        if not result:
            result = event_log.parse_lines(
                self._files.read(OLD_EVENTS, MAX_HISTORY_BYTES) or b"", f"{self.location}/{OLD_EVENTS}"
            )
        _refuse_steps(result, self.location)
        return result

    def _parse_part(self, name: str) -> list[ReleaseEvent]:
        if name not in self._events:
            content = self._files.read(name, MAX_HISTORY_BYTES - self._history_bytes) or b""
            self._events[name] = event_log.parse_lines(content, f"{self.location}/{name}")
            self._history_bytes += len(content)
        events: list[ReleaseEvent] = self._events[name]
        return events

    def _list_numbered(self, folder: str, ending: str) -> list[tuple[int, str]]:
        """Return the numbered objects of a folder, in order."""
        stems = [name.removesuffix(ending) for name in self._files.names(folder) if name.endswith(ending)]
        return sorted((int(stem), f"{stem}{ending}") for stem in stems if _is_number(stem))

    def _newest(self, folder: str, form: RecordFormat, shape: type[T]) -> tuple[int, T] | None:
        """Return the record with the highest number, and the number; it never changes, so it is read once."""
        numbered = self._list_numbered(folder, ".json")
        if not numbered:
            return None
        number, name = numbered[-1][0], f"{folder}/{numbered[-1][1]}"
        if name not in self._events:
            record = self._record(form, shape, name)
            for old in [
                item for item in self._events if item.startswith(f"{folder}/")
            ]:  # whoever writes there can add any number
                del self._events[old]
            self._events[name] = record
        result: T | None = self._events[name]
        return (number, result) if result is not None else None

    def folder(self, release: str) -> Path:
        """Return the folder on this machine to which the files of a release are downloaded.

        Raises  ArtifactError for an invalid name.
        """
        return names.join_content_id(self._cache, release)

    def read_statement(self, release: str) -> bytes | None:
        """Return the signed statement about a release (JSON of a DSSE envelope); None where there is none.

        Raises  ArtifactError for an invalid name.
        """
        name = release_statement.statement_path(self.folder(release)).name
        return self._files.read(f"{RELEASES}/{name}", MAX_MANIFEST_BYTES)

    def fetch(self, release: str) -> Path:
        """Download the files of ``release`` to this machine, also where those that are here are damaged, and return their folder.

        No more is downloaded than the manifest declares, and nothing where a trusted key signed another manifest.

        Raises  ArtifactError for an invalid name, and for a release that differs from its manifest; GateError for a manifest
                that is not the signed one; InfrastructureError for one that is absent (yet), where the store fails, and where
                the disk has too little space.
        """
        target = self.folder(release)
        if target.is_dir() and not release_manifest.verify(target):
            return target
        content, manifest = self._read_manifest(release)
        self._cache.mkdir(parents=True, exist_ok=True)
        disk_list.require_free_bytes(self._cache, manifest.bytes, f"release {release}")
        result = Path(tempfile.mkdtemp(dir=self._cache, prefix="."))
        scratch = result / "release"
        try:
            bytes_left = manifest.bytes
            for name in manifest.files:
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                bytes_left -= self._files.fetch(f"{RELEASES}/{release}/{name}", scratch / name, bytes_left)
            atomic_io.write_bytes(scratch / release_manifest.NAME, content)
            wrong = release_manifest.verify(scratch, release)
            if wrong:
                raise ArtifactError(
                    f"release {release} of {self.location} is damaged: {'; '.join(wrong)}", hint=RESTORE
                )
            self._remove(target)  # it was damaged here
            scratch.replace(target)
        except FileNotFoundError as error:
            raise ArtifactError(f"release {release} of {self.location} lacks a file: {error}", hint=RESTORE) from error
        except OSError as error:
            raise atomic_io.write_error(target, error) from error
        finally:
            shutil.rmtree(result, ignore_errors=True)
        with suppress(InfrastructureError, OSError):  # the next release that is fetched sees to it
            self._delete_unused(release)
        return target

    def _read_manifest(self, release: str) -> tuple[bytes, ReleaseManifest]:
        """Return the manifest at the address, as it is there and decoded, once it is known to be that of ``release``."""
        key = f"{RELEASES}/{release}/{release_manifest.NAME}"
        content = self._files.read(key, MAX_MANIFEST_BYTES)
        manifest = (
            self._decode(registry_formats.MANIFEST, ReleaseManifest, key, content) if content is not None else None
        )
        if content is None or manifest is None or manifest.id != release:
            raise InfrastructureError(
                f"{self.location} has no release {release}", hint=f"copy it: tunectl release sync {self.location}"
            )
        for name in manifest.files:
            names.refuse_outside(name, self.location)
        if self._trust is not None:
            checked = release_statement.check_statement(self.read_statement(release), release, self._trust)
            release_statement.check_manifest(manifest, None, checked.statement)
        return content, manifest

    def _delete_unused(self, release: str) -> None:
        """Delete releases that no pointer names any more, so that a server does not fill its disk over the years.

        A release that is still in memory keeps working: its files are kept by the system until its engine closes them.
        """
        pointer, canary = self.champion(), self.canary()
        needed = {
            release,
            *((pointer.release, pointer.previous) if pointer else ()),
            *([canary.release] if canary else ()),
        }
        for folder in self._cache.iterdir():
            is_recent = time.time() - folder.stat().st_mtime < HALF_DONE
            in_progress = is_recent and (self._keep_recent or folder.name.startswith("."))
            if folder.name not in needed and not in_progress:
                self._remove(folder)

    def _remove(self, folder: Path) -> None:
        """Rename a folder at once, then delete it: what a kill leaves of it must not look like a release."""
        if not folder.is_dir():
            return
        trash = Path(tempfile.mkdtemp(dir=self._cache, prefix="."))
        folder.rename(trash / folder.name)
        shutil.rmtree(trash, ignore_errors=True)

    def _record(self, form: RecordFormat, shape: type[T], name: str) -> T | None:
        content = self._files.read(name)
        return self._decode(form, shape, name, content) if content is not None else None

    def _decode(self, form: RecordFormat, shape: type[T], name: str, content: bytes) -> T:
        try:
            return form.decode(content, shape, f"{self.location}/{name}")
        except atomic_io.NOT_JSON as error:
            raise ArtifactError(f"{self.location}/{name} is not the expected JSON: {error}", hint=RESTORE) from error


def build_object_name(folder: str, number: int, ending: str = ".json") -> str:
    """Return ``FOLDER/NUMBER.json``, padded with zeros so that names sort as numbers do."""
    return f"{folder}/{number:0{DIGITS}d}{ending}"


def _refuse_steps(entries: Iterable[ReleaseEvent], location: str) -> None:
    """Refuse a history in which a sequence cannot come from promotions: whoever adopts it, or resolves a fork with it, goes on from there.

    Raises  ArtifactError.
    """
    highest = 0
    for number, entry in enumerate(entries, 1):
        if entry.sequence is None:
            continue
        if not 1 <= entry.sequence <= highest + MAX_STEP:
            raise ArtifactError(
                f"{location}: event {number} of the history has the sequence {entry.sequence}; 1 to {highest + MAX_STEP} are possible there",
                hint=f"it was not written by tunectl: check who may write there; {RESTORE}",
            )
        highest = max(highest, entry.sequence)


def _is_number(stem: str) -> bool:
    return stem.isascii() and stem.isdigit() and DIGITS <= len(stem) <= 2 * DIGITS
