"""The release store: content-addressed folders, one pointer, one log. No confirmed change is lost by a kill.

    <store>/releases/<id>/     complete or absent: filled under tmp/, flushed to the disk, then renamed
    <store>/champion.json      replaced by a rename, so a reader sees the old pointer or the new one
    <store>/canary.json        the challenger; absent where there is none
    <store>/events.jsonl       one line per change; a line that was cut off by a kill is dropped, and a missing one is
                               written again, before the next change

Readers take no lock. Writers take ``<store>/.lock``. A store of tunectl 0.1 has ``challenger.json`` and ``log.jsonl``: they are
read unchanged, and written under their new names before the first change.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from tunectl.access import signatures
from tunectl.access.signatures import TrustStore
from tunectl.artifacts import atomic_io, lock, names
from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.record_format import find_existing
from tunectl.core.errors import ArtifactError, GateError, UsageError
from tunectl.registry import (
    event_log,
    history_adoption,
    registry_formats,
    release_manifest,
    release_state,
    release_statement,
    signature_policy,
)
from tunectl.registry.registry_formats import CANARY, CHAMPION, EVENTS, OLD_CANARY, OLD_EVENTS, RELEASES
from tunectl.registry.release_copy import copy_release
from tunectl.registry.release_manifest import BuildFacts, ReleaseManifest
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent

SCRATCH, LOCK, HISTORY = "tmp", ".lock", "tunectl release log shows the changes"


class ChampionMovedError(GateError):
    """Another process changed the champion or the canary first, so the change must be decided again."""


class ReleaseRegistry:
    """The release registry in one folder: adds, promotes and rolls back releases, and starts canaries."""

    def __init__(self, root: Path, timeout_seconds: float = 0.0, trust: TrustStore | None = None) -> None:
        """``timeout_seconds``: seconds that a change waits for another one; for a person at a terminal 0, with an error.

        ``trust``: keys one of which must have signed a release before it is promoted or restored; None: signatures are not checked.
        """
        self.root, self.timeout_seconds, self.trust = root, timeout_seconds, trust

    @property
    def location(self) -> str:
        """Folder of the registry, for people."""
        return str(self.root)

    @property
    def warning(self) -> str:
        """Empty: ``champion`` always returns the stored pointer of a folder."""
        return ""

    def ids(self) -> list[str]:
        """Return the names of all releases, damaged ones too, the oldest first; other folders are ignored."""
        folder = self.root / RELEASES
        result = [path for path in folder.iterdir() if names.is_content_id(path.name)] if folder.is_dir() else []
        releases = [path for path in result if (path / release_manifest.NAME).is_file()]
        return [
            path.name for path in sorted(releases, key=lambda path: (release_manifest.read_created_at(path), path.name))
        ]

    def find(self, start: str) -> str:
        """Return the name of the one release that begins with ``start``; ``champion``, ``previous`` and ``challenger`` are resolved, too.

        Raises  UsageError where there is none, or several.
        """
        if start in {"champion", "previous", "challenger"}:
            pointer = self.canary() if start == "challenger" else self.champion()
            named = getattr(pointer, "previous" if start == "previous" else "release", None)
            if named is None:
                raise UsageError(f"{self.root} has no {start} release", hint="give an id: tunectl release list")
            return str(named)
        ids = self.ids()
        result = [name for name in ids if start and name.startswith(start)]
        if len(result) != 1:
            what = "several release ids begin with this" if result else "there is no such release"
            raise UsageError(f"{start}: {what} in {self.root}", hint=f"there are: {', '.join(result or ids) or 'none'}")
        return result[0]

    def folder(self, release: str) -> Path:
        """Return the folder of a release.

        Raises  ArtifactError for an invalid name.
        """
        return names.join_content_id(self.root / RELEASES, release)

    def fetch(self, release: str) -> Path:
        """Return the folder of a release; nothing is downloaded."""
        return self.folder(release)

    def manifest(self, release: str) -> ReleaseManifest:
        """Return the manifest of a release; its ``git`` comes from the history where the project was committed after the release was added.

        Raises  ArtifactError where it is not in the store.
        """
        stored = release_manifest.load(self.folder(release))
        if release_manifest.is_committed(stored.git):
            return stored
        commits = [entry.git for entry in self.log() if entry.action == "commit" and entry.release == release]
        return replace(stored, git=commits[-1]) if commits else stored

    def champion(self) -> ChampionPointer | None:
        """Return the champion pointer; None before the first promotion."""
        path = self.root / CHAMPION
        return registry_formats.POINTER.read(path, ChampionPointer) if path.is_file() else None

    def canary(self) -> CanaryState | None:
        """Return the canary with its challenger; None where there is none."""
        path = find_existing(self.root / CANARY, OLD_CANARY)
        return registry_formats.CANARY_STATE.read(path, CanaryState) if path.is_file() else None

    def log(self) -> list[ReleaseEvent]:
        """Return all events in order, including one that a kill kept from being written."""
        entries = event_log.read_lines(find_existing(self.root / EVENTS, OLD_EVENTS))
        return [*entries, *self._list_unrecorded(entries)]

    def verify(self, release: str) -> list[str]:
        """Return all problems of a release, one sentence each; empty where it is intact."""
        return release_manifest.verify(self.folder(release))

    def verify_quickly(self, release: str) -> list[str]:
        """Return the problems of a release, one sentence each, without hashing its large files, so in bounded time."""
        return release_manifest.verify_quickly(self.folder(release))

    def add(
        self, source: Path, facts: BuildFacts, *, author: str = "", message: str = "", git: str | None = None
    ) -> ReleaseManifest:
        """Copy the release folder ``source`` into the store and return its manifest; an existing release is left unchanged.

        It is signed where the environment variable TUNECTL_RELEASE_KEY names a key. A manifest never changes: where the same release was
        added from a dirty tree and is added again after the commit, the history gets an event with that commit.
        Raises  ArtifactError for a folder with links, or a stored release of that name which was changed;
                InfrastructureError where the disk refuses, and then nothing was added.
        """
        with self.hold_lock("adding a release"):
            scratch = self.root / SCRATCH
            scratch.mkdir(exist_ok=True)
            fresh = Path(tempfile.mkdtemp(dir=scratch))
            try:
                copy_release(source, fresh)
                result = self._build_manifest(fresh, facts, git)
                target = self.folder(result.id)
                if target.exists():
                    return self._add_again(result, author, message)
                release_manifest.save(result, fresh)
                fresh.chmod(0o755)
                fresh.replace(target)
                atomic_io.fsync_directory(target.parent)
            except OSError as error:
                raise atomic_io.write_error(scratch, error) from error
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
            self._append(ReleaseEvent("add", result.id, result.created_at, author, message))
        release_statement.sign_by_environment(target)
        return result

    def promote(
        self, release: str, *, author: str, message: str, after: int | None = None, force: bool = False
    ) -> ChampionPointer:
        """Make a release the champion and return the new pointer; for the current champion nothing changes, and no event is written.

        ``after``: sequence of the champion pointer on which the caller decided; another one by now raises ChampionMovedError (None:
        not checked). ``force`` promotes a release that a gate refused.
        Raises  ArtifactError for a damaged release; GateError for one that a gate refused or no trusted key signed; ChampionMovedError.
        """
        self.may_serve(release, force=force)
        with self.hold_lock("promoting a release"):
            self._refuse_moved(after)
            entries, now = self.log(), self.champion()
            if now is not None and now.release == release:
                return now
            moment = event_log.current_moment()
            promotion = release_state.apply_promotion(release, entries, at=moment, author=author, message=message)
            return self._swap(promotion, entries)

    def start_canary(
        self,
        release: str,
        *,
        share: float,
        author: str,
        message: str,
        salt: str | None = None,
        expected: tuple[int, str] | None = None,
        force: bool = False,
    ) -> CanaryState:
        """Set a release as challenger, in place of any other; return the canary.

        ``share`` of the identities get it, 0 to 1; with 0 only requests that name it. ``salt`` of the assignment; None: a random one.
        ``expected``: (champion sequence, start time of the canary or ``""``) on which the caller decided; None: not checked.
        Raises  ArtifactError for a damaged release; GateError for one that a gate refused; UsageError for the champion itself, a registry
                without a champion, or another share; ChampionMovedError where the registry differs from ``expected``.
        """
        if not 0 <= share <= 1:
            raise UsageError(f"share = {share:g}: must be from 0 to 1", hint="0.1 is a tenth of the users")
        self.may_serve(release, force=force)
        with self.hold_lock("putting up a challenger"):
            self._refuse_moved(*expected or (None, None))
            pointer = self.champion()
            if pointer is None or pointer.release == release:
                what = "is the champion itself" if pointer else "has no champion to be tested against"
                hint = "choose another release: tunectl release list" if pointer else "promote a release first"
                raise UsageError(f"release {release} {what} ({self.root})", hint=hint)
            moment, salt, number = event_log.current_moment(), salt or secrets.token_hex(8), len(self.log()) + 1
            unsigned = CanaryState(release, share, salt, moment, author, message, self.digest(release), number=number)
            canary = release_statement.sign_canary(unsigned, signatures.load_named_key(signatures.POINTER_KEY_ENV))
            registry_formats.CANARY_STATE.write(self.root / CANARY, canary)
            self._append(release_state.canary_entry_of(canary))
        return canary

    def stop_canary(self, *, author: str, message: str, expected: tuple[int, str] | None = None) -> CanaryState:
        """Remove the challenger; return the canary that was stopped.

        ``expected``: (champion sequence, start time of the canary) on which the caller decided; None: not checked.
        Raises  UsageError where there is no challenger; ChampionMovedError where the registry differs from ``expected``.
        """
        with self.hold_lock("withdrawing the challenger"):
            self._refuse_moved(*expected or (None, None))
            canary = self.canary()
            if canary is None:
                raise UsageError(
                    f"{self.root}: there is no challenger to stop",
                    hint="start one: tunectl release canary start ID --no-test --share 0.1",
                )
            self._withdraw(canary, author, message)
        return canary

    def _refuse_moved(self, after: int | None, canary: str | None = None) -> None:
        """Raise ``ChampionMovedError`` where champion or canary is not what the caller has seen. For the lock's holder."""
        count, running = release_state.count_swaps(self.log()), self.canary()
        if after not in (None, count):
            raise ChampionMovedError(f"somebody else changed the champion: sequence {count}, not {after}", hint=HISTORY)
        if canary not in (None, running.started_at if running else ""):
            raise ChampionMovedError("somebody else started or stopped the canary", hint=HISTORY)

    def _withdraw(self, canary: CanaryState, author: str, message: str) -> None:
        try:
            (self.root / CANARY).unlink()
            atomic_io.fsync_directory(self.root)
        except OSError as error:
            raise atomic_io.write_error(self.root / CANARY, error) from error
        self._append(ReleaseEvent("canary_stop", canary.release, event_log.current_moment(), author, message))

    def _withdraw_champion(self) -> None:
        """Withdraw the challenger where it is the champion by now: promoted, or rolled back to; also after a kill between the two writes."""
        pointer, running = self.champion(), self.canary()
        if pointer is not None and running is not None and running.release == pointer.release:
            self._withdraw(running, pointer.author, "it is the champion now")

    def may_serve(self, release: str, *, force: bool = False, hint: str = "go on all the same: --force") -> None:
        """Raise where a release is damaged (ArtifactError), or no trusted key signed it, or a gate refused it without ``force`` (GateError, ``hint``)."""
        wrong = self.verify(release)
        if wrong:
            raise ArtifactError(
                f"release {release} is damaged: {'; '.join(wrong)}", hint="package again: tunectl repro"
            )
        signature_policy.refuse_untrusted(self, release)
        refusals = self.manifest(release).refusals
        if refusals and not force:
            raise GateError(f"release {release} was refused: {'; '.join(refusals)}", hint=hint)

    def digest(self, release: str) -> str:
        """Return the full SHA-256 over the files of a release."""
        return release_manifest.content_digest(release_manifest.load(self.folder(release)).files)

    def rollback(self, *, author: str, message: str, after: int | None = None) -> ChampionPointer:
        """Make the previous champion the champion again, skipping releases that are damaged or untrusted; return the new pointer.

        ``after``: sequence of the champion pointer on which the caller decided; None: not checked.
        Raises  UsageError where no earlier release may serve, with the reason for each; ChampionMovedError where the sequence differs.
        """
        signature_policy.refuse_pointer_key(self)
        with self.hold_lock("rolling back"):
            self._refuse_moved(after)
            entries = self.log()
            obstacles = signature_policy.find_obstacles(self, entries)
            full_message = "; ".join([message, *(f"past {release}: {reason}" for release, reason in obstacles.items())])
            pointer = release_state.apply_rollback(
                entries,
                at=event_log.current_moment(),
                author=author,
                message=full_message.removeprefix("; ")[:1000],
                skip=obstacles.keys(),
            )
            if pointer is None:
                reasons = "".join(f"; {release}: {reason}" for release, reason in obstacles.items())
                raise UsageError(f"{self.root}: there is no earlier release to roll back to{reasons}", hint=HISTORY)
            return self._swap(pointer, entries)

    def read_statement(self, release: str) -> bytes | None:
        """Return the signed statement about a release (JSON of a DSSE envelope); None where there is none."""
        path = release_statement.statement_path(self.folder(release))
        return path.read_bytes() if path.is_file() else None

    def _swap(self, pointer: ChampionPointer, entries: Sequence[ReleaseEvent]) -> ChampionPointer:
        pointer = release_statement.sign_swap(
            replace(pointer, digest=self.digest(pointer.release)),
            entries,
            signatures.load_named_key(signatures.POINTER_KEY_ENV),
        )
        registry_formats.POINTER.write(self.root / CHAMPION, pointer)
        self._append(release_state.entry_of(pointer, entries))
        self._withdraw_champion()
        return pointer

    def _build_manifest(self, folder: Path, facts: BuildFacts, git: str | None) -> ReleaseManifest:
        files, now = release_manifest.digests(folder), self.champion()
        size = sum((folder / name).stat().st_size for name in files)
        return ReleaseManifest(
            release_manifest.content_id(files),
            event_log.current_moment(),
            facts.project,
            now.release if now else None,
            facts.engine,
            facts.layout,
            files,
            size,
            facts.metrics,
            facts.verdicts,
            facts.lineage,
            git,
        )

    def _add_again(self, result: ReleaseManifest, author: str, message: str) -> ReleaseManifest:
        folder = self.folder(result.id)
        if wrong := release_manifest.verify(folder):
            raise ArtifactError(
                f"{folder} is damaged: {'; '.join(wrong)}", hint="delete that folder, then add it again"
            )
        stored, written = self.manifest(result.id), release_manifest.load(folder)
        if release_manifest.is_committed(result.git) and not release_manifest.is_committed(stored.git):
            moment = event_log.current_moment()
            self._append(ReleaseEvent("commit", result.id, moment, author, message, git=result.git))
            stored = replace(stored, git=result.git)
        if release_statement.is_same_build(result, written):
            release_statement.sign_by_environment(folder)
        return stored

    def _list_unrecorded(self, entries: Sequence[ReleaseEvent]) -> Iterator[ReleaseEvent]:
        """Yield events of changes that were made before a kill, but not recorded."""
        added = {entry.release for entry in entries if entry.action == "add"}
        absent = [name for name in self.ids() if name not in added]
        yield from (
            ReleaseEvent("add", name, at)
            for name in absent
            if (at := release_manifest.read_created_at(self.folder(name)))
        )
        pointer = self.champion()
        if pointer is not None and pointer.sequence > release_state.count_swaps(entries):
            yield release_state.entry_of(pointer, entries)
        canary, latest = self.canary(), release_state.canary_started_at(entries)
        if canary is not None and canary.started_at and canary.started_at != latest:
            yield release_state.canary_entry_of(canary)
        elif canary is None and latest is not None:
            yield ReleaseEvent(
                "canary_stop",
                next(entry.release for entry in reversed(entries) if entry.action == "canary_start"),
                latest,
            )

    @contextmanager
    def hold_lock(self, description: str) -> Iterator[None]:
        """Hold the lock of the store, after completing a change that a kill interrupted; ``description`` of the change is shown to those who wait."""
        (self.root / RELEASES).mkdir(parents=True, exist_ok=True)
        busy = f"{self.root}: another process changes this store"
        with lock.file_lock(self.root / LOCK, description, busy=busy, timeout_seconds=self.timeout_seconds):
            shutil.rmtree(self.root / SCRATCH, ignore_errors=True)
            history_adoption.finish(self.root)
            history_adoption.adopt_old_names(self.root)
            for entry in list(self._list_unrecorded(event_log.read_lines(self.root / EVENTS, mend=True))):
                self._append(entry)
            self._withdraw_champion()
            yield

    def _append(self, entry: ReleaseEvent) -> None:
        event_log.append(self.root / EVENTS, entry)
