"""Write a backup: one folder, written atomically, that its owner alone can read. Server, monitor and controller keep running meanwhile.

The registry's history and pointers are read under its lock, and releases never change, so a promotion at the same time is included
completely or not at all. SQLite and PostgreSQL give the log as it is at one moment after the backup began.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from tunectl import __version__
from tunectl.access import api_keys
from tunectl.artifacts import atomic_io, lock
from tunectl.backends.storage import inference_log_backup
from tunectl.backup import host_state
from tunectl.backup.host_state import Backup, BackupFile, HostState
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.inference_log import erasure_ledger, project_folder, snapshot
from tunectl.registry import release_state, release_statement
from tunectl.registry.registry_formats import RELEASES
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.run_store import RunStore

SCRATCH: Final = ".tunectl-backup"
"""Folder for half-written backups, beside the backups; also what a killed one has left."""
BUSY: Final = "another backup is being written there"
LOCK_TIMEOUT_SECONDS: Final = 60.0
"""Seconds to wait for the lock of the registry."""


def create_backup(host: HostState, target: Path) -> Backup:
    """Write everything that this host stores into the new folder ``target``; return the content of its ``backup.json``.

    Raises:
        UsageError: ``target`` exists, or is in a folder that the backup saves.
        ArtifactError: the database or a record is damaged.
        InfrastructureError: disk, database or pg_dump fail. In each case nothing is left under ``target``.
    """
    _refuse_target(host, target)
    project_folder.require_new_folder(host.layout.root)
    created_at = datetime.now(UTC)
    with _hold_scratch(target) as scratch:
        erasure_ledger.add_backup_folder(host.hash_key.parent, target.parent)
        with atomic_io.atomic_directory(target, scratch) as fresh:
            fresh.chmod(0o700)
            writer = _Writer(fresh)
            kind = _copy_log(host, fresh, writer)
            runs = _copy_rest(host, writer)
            champion, releases = _copy_registry(host, writer)
            keys = len(api_keys.read(fresh / host_state.KEYS))
            backup = Backup(
                host.project,
                created_at,
                __version__,
                kind,
                champion,
                releases,
                keys,
                runs,
                dict(sorted(writer.files.items())),
                [*_describe_missing(host, writer), *host_state.NOT_HERE],
            )
            host_state.BACKUP.write(fresh / host_state.MANIFEST, backup)
            (fresh / host_state.MANIFEST).chmod(0o600)
            for folder in [fresh, *(path for path in fresh.rglob("*") if path.is_dir())]:
                folder.chmod(0o700)
                atomic_io.fsync_directory(folder)
    return backup


def _refuse_target(host: HostState, target: Path) -> None:
    if target.exists():
        raise UsageError(f"{target} already exists", hint="name a new folder, for example with the date")
    inside = target.absolute()
    for _, path in host.iter_paths():
        if path is not None and inside.is_relative_to(path.absolute()):
            raise UsageError(
                f"{target} lies in {path}, a folder that the backup saves", hint="name a folder on another disk"
            )


@contextmanager
def _hold_scratch(target: Path) -> Iterator[Path]:
    """Lock a folder against other backups; what a killed one left there is deleted, because it holds people's texts."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic_io.write_error(target.parent, error) from error
    scratch = target.parent / SCRATCH
    with lock.file_lock(scratch.with_suffix(".lock"), f"tunectl backup {target}", busy=BUSY):
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir(mode=0o700)
            yield scratch
        except OSError as error:
            if error.filename is not None and not Path(error.filename).is_relative_to(scratch):
                raise InfrastructureError(
                    f"cannot read {error.filename}: {error.strerror}",
                    hint="back up with the account that owns it, or as root; no backup was written",
                ) from error
            raise atomic_io.write_error(scratch, error) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


class _Writer:
    """Copies files into a backup and records their digests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, BackupFile] = {}

    def note(self, name: str) -> None:
        """Record a file that was written already."""
        path = self.folder / name
        self.files[name] = BackupFile(atomic_io.sha256_path(path), path.stat().st_size)

    def write(self, name: str, content: bytes) -> None:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        self.files[name] = BackupFile(hashlib.sha256(content).hexdigest(), len(content))

    def copy(self, source: Path, name: str) -> None:
        """Copy a file or a folder; hidden (half-written) files are left out, and absent ones are skipped."""
        if source.is_dir():
            for path in sorted(source.iterdir()):
                if not path.name.startswith("."):
                    self.copy(path, f"{name}/{path.name}")
            return
        with suppress(FileNotFoundError):  # a trigger leaves the inbox when it is dealt with
            self._copy_file(source, name)

    def _copy_file(self, source: Path, name: str) -> None:
        with source.open("rb") as origin:
            path, digest, size = self.folder / name, hashlib.sha256(), 0
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                while block := origin.read(1 << 20):
                    digest.update(block)
                    size += stream.write(block)
                stream.flush()
                os.fsync(stream.fileno())
        self.files[name] = BackupFile(digest.hexdigest(), size)


def _copy_log(host: HostState, fresh: Path, writer: _Writer) -> Literal["sqlite", "postgresql"] | None:
    if host.database is None:
        inference_log_backup.dump_postgres(host.url, fresh / host_state.DUMP)
        writer.note(host_state.DUMP)
        return "postgresql"
    if not host.database.is_file():
        return None
    inference_log_backup.copy_sqlite(host.database, fresh / host_state.SQLITE)
    writer.note(host_state.SQLITE)
    return "sqlite"


def _copy_rest(host: HostState, writer: _Writer) -> int:
    """Copy everything but log and registry; returns the number of retrains."""
    if host.hash_key_env is None:
        writer.copy(host.hash_key, host_state.HASH_KEY)
    writer.copy(host.keys, host_state.KEYS)
    if host.trusted_keys is not None:
        writer.copy(host.trusted_keys, host_state.TRUSTED_KEYS)
    writer.copy(host.newest_champion, host_state.NEWEST_CHAMPION)  # before the registry, so never newer than that
    writer.copy(host.newest_canary, host_state.NEWEST_CANARY)
    writer.copy(host.layout.monitor_newest_champion, host_state.MONITOR_CHAMPION)
    if host.snapshots is not None and host.snapshots.is_dir():
        with snapshot.lock_folder(host.snapshots, "tunectl backup"):
            writer.copy(host.snapshots, host_state.SNAPSHOTS)
    for name in host_state.RETRAIN_FILES:
        writer.copy(host.layout.retrain / name, f"{host_state.RETRAIN}/{name}")
    writer.copy(host.init_adapters, host_state.INIT_ADAPTERS)
    return len(RunStore(writer.folder / host_state.RETRAIN).runs())


def _copy_registry(host: HostState, writer: _Writer) -> tuple[str | None, int]:
    """Copy history and pointers of one moment, then the releases that the history names; returns champion and their number.

    Golden sets and canary records are copied with them; of a registry behind an address, these alone.
    """
    folder = host.records_folder
    if folder is None or not folder.is_dir():
        return None, 0
    is_local = host.registry_folder is not None
    store = ReleaseRegistry(folder, LOCK_TIMEOUT_SECONDS)
    with store.hold_lock("tunectl backup"):
        for name in host_state.REGISTRY_FILES if is_local else host_state.REGISTRY_RECORDS:
            writer.copy(folder / name, f"{host_state.REGISTRY}/{name}")
        if not is_local:
            return None, 0
        pointer, entries, names = store.champion(), store.log(), store.ids()
    for release in names:
        statement = release_statement.statement_path(store.folder(release))
        writer.copy(statement, f"{host_state.REGISTRY}/{RELEASES}/{statement.name}")
        writer.copy(store.folder(release), f"{host_state.REGISTRY}/{RELEASES}/{release}")
    champion = pointer or release_state.champion_of(entries)
    return (champion.release if champion else None), len(names)


def _describe_missing(host: HostState, writer: _Writer) -> Iterator[str]:
    if host.hash_key_env is not None:
        yield f"the hash key, which is in {host.hash_key_env}: without it nobody in the log can be found"
    elif host_state.HASH_KEY not in writer.files:
        yield f"a hash key: {host.hash_key} does not exist"
    if host.database is not None and host_state.SQLITE not in writer.files:
        yield f"an inference log: {host.database} does not exist"
    if host_state.KEYS not in writer.files:
        yield f"keys: {host.keys} does not exist"
    if host.trusted_keys is not None and host_state.TRUSTED_KEYS not in writer.files:
        yield f"trusted keys: {host.trusted_keys} does not exist"
    if host.registry_folder is None:
        yield f"the registry, which lies at {host.registry}"
