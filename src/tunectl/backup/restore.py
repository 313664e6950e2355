"""Restore a backup on this host. Data of people who were erased after the backup is erased again before anything is put in place.

A killed restore resumes when it is called again: until it has ended, a file in ``.tunectl/`` names its backup.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

from tunectl.access import api_keys
from tunectl.artifacts import atomic_io, lock, private_files
from tunectl.artifacts.record_format import RecordFormat
from tunectl.backends.storage import inference_log_backup, inference_log_migration, inference_log_sql
from tunectl.backup import host_state
from tunectl.backup.host_state import BACKUP, Backup, HostState
from tunectl.core.errors import ArtifactError, InfrastructureError, UsageError
from tunectl.inference_log import erasure, erasure_ledger, project_folder, pseudonyms, snapshot
from tunectl.inference_log.erasure_ledger import Erasure
from tunectl.inference_log.log_store import InferenceLog, LogEvent
from tunectl.retraining import golden_set, run_store

SCRATCH: Final = "restore"
"""Folder of the state folder in which a backup is prepared."""
JOURNALS: Final = ("-wal", "-shm", "-journal")
"""Endings of files beside an SQLite file whose content SQLite puts into it when it is opened."""
PUBLIC: Final = f"{host_state.REGISTRY}/"
"""Releases hold no texts of people, and a server may run as another user. Golden sets beside them hold such texts."""


class RestoreMark(Struct, frozen=True):
    """Content of the file that marks a host while a restore has begun and not ended."""

    backup: str
    """SHA-256 of the ``backup.json`` of that backup."""
    begun: list[str] = []
    """What it has put in place, or was about to: names in the backup, of files and of what is in its folders."""


class RestoreResult(Struct, frozen=True):
    """Result of ``restore``: the backup, and what was erased again."""

    backup: Backup
    erasures: int
    """People and keys that were erased since this host began to record erasures, and are erased again."""
    erased: int
    """Inferences and feedback records that were deleted by that: the backup had them."""
    snapshots: int
    """Frozen windows that contained some of them."""


_MARK: Final = RecordFormat("restore that goes on", ())


def read_backup(source: Path) -> Backup:
    """Return the content of ``backup.json`` in folder ``source``, after a check of the digest of every file.

    Raises  ArtifactError where it is not a backup, or a file is missing or was changed.
    """
    if not (source / host_state.MANIFEST).is_file():
        raise ArtifactError(
            f"{source} is not a backup: it has no {host_state.MANIFEST}",
            hint="name the folder that tunectl backup wrote",
        )
    backup = BACKUP.read(source / host_state.MANIFEST, Backup)
    for name, entry in backup.files.items():
        path = source / name
        if ".." in Path(name).parts or Path(name).is_absolute() or name != Path(name).as_posix():
            raise ArtifactError(
                f"{source / host_state.MANIFEST} names {name}, a path outside the backup",
                hint="that file was changed by hand; take another copy of this backup, or an earlier one",
            )
        if not path.is_file() or path.is_symlink():
            raise ArtifactError(f"{path} is missing", hint="take another copy of this backup, or an earlier one")
        if path.stat().st_size != entry.size or atomic_io.sha256_path(path) != entry.sha256:
            raise ArtifactError(
                f"{path} was changed or cut off", hint="take another copy of this backup, or an earlier one"
            )
    return backup


def restore(host: HostState, source: Path, ledgers: Sequence[Path] = ()) -> RestoreResult:
    """Restore the backup in folder ``source`` on a host that has no state yet, and return what was erased again.

    Erasures are read from beside the backup, from beside the hash key of this host, and from the files ``ledgers``.

    Raises:
        ArtifactError: the backup is damaged.
        UsageError: some state exists already, or the settings name another project or kind of database.
        InfrastructureError: a server or controller runs, or disk or database fail. Calling it again resumes.
    """
    private_files.restrict(
        source, private_files.FOLDER
    )  # a copy on another disk may be open, and with it all that people wrote
    backup = read_backup(source)
    state, digest = host.layout.state_dir, atomic_io.sha256_path(source / host_state.MANIFEST)
    mark, scratch = host.layout.root / project_folder.RESTORE_MARK, state / SCRATCH
    with ExitStack() as locks:
        locks.enter_context(
            lock.file_lock(state / "restore.lock", "tunectl restore", busy="another restore is running")
        )
        earlier = _MARK.read(mark, RestoreMark) if mark.is_file() else None
        resumed = earlier if earlier is not None and earlier.backup == digest else None
        _require_fit(host, backup)
        _refuse_existing(host, backup, resumed)
        locks.enter_context(_hold_services(host))
        erasures = erasure_ledger.merge(
            erasure_ledger.read(path)
            for path in (
                source.absolute().parent / erasure_ledger.LEDGER,
                host.hash_key.parent / erasure_ledger.LEDGER,
                *ledgers,
            )
        )
        begun = resumed.begun if resumed else []
        _MARK.write(mark, RestoreMark(digest, begun))
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir(mode=0o700)
            _copy_tree(source, backup, scratch)
            erased, snapshots = _restore_log(host, backup, source, scratch, erasures)
            _note_erasures(host, source, erasures)
            for part, fresh, destination in _iter_moves(host, scratch):
                if part not in begun:
                    begun.append(part)
                    _MARK.write(mark, RestoreMark(digest, begun))
                elif destination.exists() and not part.startswith(f"{host_state.SNAPSHOTS}/"):
                    continue  # since the kill a release may have been promoted, or a key added; of snapshots more may be erased
                _move(fresh, destination)
            mark.unlink()
        except OSError as error:
            raise atomic_io.write_error(state, error) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return RestoreResult(backup, len(erasures), erased, snapshots)


def _require_fit(host: HostState, backup: Backup) -> None:
    if backup.project != host.project:
        raise UsageError(
            f"the backup is of the project {backup.project}, and this one is {host.project}",
            hint=f"restore it where project is {backup.project}; for a project that was renamed, set that name for the restore",
        )
    kind = "postgresql" if host.database is None else "sqlite"
    if backup.inference_log not in (None, kind):
        raise UsageError(
            f"inference_log.url is for {kind}, and the backup is of a log in {backup.inference_log}",
            hint="set inference_log.url to a database of that kind for the restore",
        )
    if backup.releases and host.registry_folder is None:
        raise UsageError(
            f"serve.registry = {host.registry}, and the backup has a registry in a folder",
            hint="set serve.registry to a folder for the restore, then: tunectl release sync ADDRESS",
        )


@contextmanager
def _hold_services(host: HostState) -> Iterator[None]:
    """Hold the locks of server and retrain controller while the block runs: one that started meanwhile would write into what is replaced.

    Raises  InfrastructureError where one of them runs.
    """
    paths = {"tunectl retrain controller": host.layout.retrain / run_store.LOCK}
    if host.database is not None:
        paths["tunectl serve"] = inference_log_migration.lock_path(host.database)
    with ExitStack() as locks:
        for what, path in paths.items():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            busy, hint = f"{what} runs here and holds {path}", "stop it, restore, then start it again"
            locks.enter_context(lock.file_lock(path, "tunectl restore", busy=busy, hint=hint))
        yield


def _refuse_existing(host: HostState, backup: Backup, resumed: RestoreMark | None) -> None:
    """Raise UsageError where the host has some of what is restored; what a killed restore has put in place does not count."""
    begun = resumed.begun if resumed else []
    existing = [str(path) for name, path in host.iter_paths() if path is not None and _holds(path, name, backup, begun)]
    if resumed is None:  # since a killed restore began, nobody could open the log
        existing += _list_logs(host, backup)
    if existing:
        raise UsageError(
            f"restore replaces nothing, and these exist already: {', '.join(existing)}",
            hint="move that away (or name an empty database), then restore again",
        )


def _list_logs(host: HostState, backup: Backup) -> list[str]:
    """Return what exists of an inference log on this host: files of SQLite, or tables of PostgreSQL."""
    if backup.inference_log == "sqlite" and host.database is not None:
        # a journal of another database would end up in this one
        return [str(path) for path in (host.database, *_list_journals(host.database)) if path.exists()]
    if backup.inference_log == "postgresql" and inference_log_backup.has_tables(host.url, host.layout.root):
        return ["tables of an inference log in the database of inference_log.url"]
    return []


def _list_journals(database: Path) -> list[Path]:
    return [database.with_name(f"{database.name}{end}") for end in JOURNALS]


def _holds(folder: Path, name: str, backup: Backup, begun: Sequence[str]) -> bool:
    """Return whether something exists at ``folder`` that the backup has, too, and is not in ``begun``; an empty folder counts as nothing."""
    if name in host_state.KEPT_HERE:
        return False
    if name in backup.files:
        return name not in begun and folder.exists()
    inside = {Path(file).parts[1] for file in backup.files if file.startswith(f"{name}/")}
    paths = [folder / child for child in inside if f"{name}/{child}" not in begun]
    return any(path.is_file() or (path.is_dir() and any(path.iterdir())) for path in paths)


def _copy_tree(source: Path, backup: Backup, scratch: Path) -> None:
    """Copy everything but a database dump, so that the backup stays unchanged."""
    for name in backup.files:
        if name == host_state.DUMP:
            continue
        path = scratch / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(source / name, path)
        path.chmod(0o644 if _is_public(name) else api_keys.MODE if name == host_state.KEYS else 0o600)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    for folder in (path for path in (scratch / host_state.REGISTRY).rglob("*") if path.is_dir()):
        folder.chmod(0o755 if _is_public(folder.relative_to(scratch).as_posix()) else 0o700)


def _is_public(name: str) -> bool:
    """Return whether other users of this machine may read the file or folder ``name`` of a backup."""
    if not name.startswith(PUBLIC):
        return name == host_state.TRUSTED_KEYS
    return Path(name).parts[1] != golden_set.FOLDER


def _restore_log(
    host: HostState, backup: Backup, source: Path, scratch: Path, erasures: Sequence[Erasure]
) -> tuple[int, int]:
    """Restore the database, erase again, and move an SQLite file to its place; returns rows erased and snapshots changed."""
    if backup.inference_log is None:
        return 0, _purge_without_log(scratch, erasures)
    url = host.url
    if backup.inference_log == "sqlite":
        url = f"sqlite:///{(scratch / host_state.SQLITE).absolute()}"
    elif not inference_log_backup.has_tables(url, host.layout.root):
        inference_log_backup.restore_postgres(url, source / host_state.DUMP)
    with inference_log_sql.open_log(url, scratch) as store:
        _check_hash_key(host, scratch, store)
        counts = [store.erase(one.hash, by_key=one.by_key, until=one.erased_at) for one in erasures]
        snapshots = erasure.purge(scratch / host_state.SNAPSHOTS, store)
        body = {"backup": backup.created_at.isoformat(), "erasures": len(erasures)}
        store.add_event(LogEvent(f"restore-{backup.created_at:%Y%m%dT%H%M%S%f}", datetime.now(UTC), "restored", body))
        store.purge()
    if backup.inference_log == "sqlite" and host.database is not None:
        fresh = scratch / host_state.SQLITE
        for path in (*_list_journals(fresh), inference_log_migration.lock_path(fresh), *_list_journals(host.database)):
            path.unlink(missing_ok=True)
        _move(fresh, host.database)
    return sum(one.inferences + one.feedback for one in counts), snapshots


def _purge_without_log(scratch: Path, erasures: Sequence[Erasure]) -> int:
    """Erase people again from the snapshots of a backup that has no log; returns how many were changed.

    Which rows are theirs is found as in a log: in one that has the rows of the snapshots, for that moment.
    """
    file = scratch / "snapshots.sqlite"
    with inference_log_sql.open_log(f"sqlite:///{file.absolute()}", scratch) as store:
        for path in sorted((scratch / host_state.SNAPSHOTS).glob(f"*/{snapshot.MANIFEST}")):
            store.write(list(snapshot.read_inferences(path.parent)))
            store.write(list(snapshot.read_feedback(path.parent)))
        for one in erasures:
            store.erase(one.hash, by_key=one.by_key, until=one.erased_at)
        return erasure.purge(scratch / host_state.SNAPSHOTS, store)


def _check_hash_key(host: HostState, scratch: Path, store: InferenceLog) -> None:
    """Raise InfrastructureError where the hash key that this host will have is not that of the log."""
    from_env = os.environ.get(host.hash_key_env or "")
    saved = scratch / host_state.HASH_KEY
    if from_env is not None or saved.is_file():
        key = from_env.encode() if from_env is not None else saved.read_bytes()
        pseudonyms.check_hash_key(store, host.log_config, key.strip())


def _note_erasures(host: HostState, source: Path, erasures: Sequence[Erasure]) -> None:
    """Record all erasures beside the hash key of this host, and the backup's folder as one that has to be erased from, too."""
    folder = host.hash_key.parent
    recorded = set(erasure_ledger.read(folder / erasure_ledger.LEDGER))
    erasure_ledger.append(folder / erasure_ledger.LEDGER, [one for one in erasures if one not in recorded], create=True)
    with suppress(InfrastructureError):  # a backup on a disk that cannot be written
        erasure_ledger.add_backup_folder(folder, source.absolute().parent)


def _iter_moves(host: HostState, scratch: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield (name in the backup, path now, destination) of each file, and each child of a folder; the pointer of a registry last."""
    order = {name: number for number, name in enumerate(host_state.REGISTRY_FILES)}
    for name, path in host.iter_paths():
        fresh = scratch / name
        if path is None or not fresh.exists() or (name in host_state.KEPT_HERE and path.exists()):
            continue
        if not fresh.is_dir():
            yield name, fresh, path
            continue
        path.mkdir(mode=0o755 if name == host_state.REGISTRY else 0o700, parents=True, exist_ok=True)
        for child in sorted(fresh.iterdir(), key=lambda child: (order.get(child.name, -1), child.name)):
            yield f"{name}/{child.name}", child, path / child.name


def _move(fresh: Path, destination: Path) -> None:
    """Move a file or folder, also to another disk; only what an earlier call has left may exist there."""
    destination.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if destination.is_dir():
        shutil.rmtree(destination)
    scratch = destination.with_name(f".{destination.name}.restoring")
    if scratch.is_dir():
        shutil.rmtree(scratch)
    shutil.move(fresh, scratch)
    scratch.replace(destination)
    atomic_io.fsync_directory(destination.parent)
