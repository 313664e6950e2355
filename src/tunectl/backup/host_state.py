"""Paths of everything on one host of a project that cannot be built again, and the record of a backup of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from tunectl.access import api_keys
from tunectl.access.signatures import TRUSTED_KEYS_ENV
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.record_format import RecordFormat
from tunectl.backends.storage import inference_log_schema
from tunectl.canary import canary_store
from tunectl.config.schema.feedback import FeedbackFromLog
from tunectl.config.schema.inference_log import InferenceLogConfig
from tunectl.config.schema.root import TunectlConfig
from tunectl.config.schema.serve import ServeSettings
from tunectl.inference_log import pseudonyms
from tunectl.registry import registry_formats, sequence_guard
from tunectl.retraining import golden_set, run_store

MANIFEST: Final = "backup.json"
SQLITE, DUMP, HASH_KEY, KEYS = "inference_log.sqlite", "inference_log.dump", "hash_key", "keys.json"
TRUSTED_KEYS = "trusted_keys.json"
NEWEST_CHAMPION, NEWEST_CANARY = sequence_guard.FILE, sequence_guard.CANARY_FILE
MONITOR_CHAMPION = f"monitor_{NEWEST_CHAMPION}"
KEPT_HERE: Final = (TRUSTED_KEYS, NEWEST_CHAMPION, NEWEST_CANARY, MONITOR_CHAMPION)
"""Files that a restore never overwrites: since the backup, keys may have been revoked and newer champions seen."""
SNAPSHOTS, REGISTRY, RETRAIN, INIT_ADAPTERS = "snapshots", "registry", "retrain", "init_adapters"
REGISTRY_RECORDS: Final = (golden_set.FOLDER, canary_store.RECORDS)
"""Folders of golden sets and canary records; they are in a folder also where servers read an address."""
REGISTRY_FILES: Final = (
    *REGISTRY_RECORDS,
    registry_formats.EVENTS,
    registry_formats.OLD_EVENTS,
    "forks",
    registry_formats.CANARY,
    registry_formats.OLD_CANARY,
    registry_formats.CHAMPION,
)
"""Files beside the releases; the pointer comes last, so that a killed restore serves nothing."""
RETRAIN_FILES: Final = (
    run_store.INBOX,  # a trigger leaves it after its outcome was written, so the other order could lose one
    *run_store.OLD_FOLDERS.values(),
    run_store.OUTCOMES,
    run_store.APPROVALS,
    run_store.RUNS,
    "windows",
    run_store.OLD_MARKS,
    run_store.MARKS,
    "secret",
    "token",
)
"""Files of retrains; without worktree, logs, locks and questions of gates, which are temporary."""
NOT_HERE: Final = (
    "what Git has (conf/, dvc.lock, inference_log/window.json, judgments): push it",
    "DVC's cache (data, models of each stage): dvc push, or tunectl repro builds it again",
    "secrets in environment variables",
    "private keys that sign releases and pointers: make new ones, and revoke those that are lost",
)


class BackupFile(Struct, frozen=True):
    """Digest and size of one file in a backup."""

    sha256: str
    size: int
    """Bytes."""


class Backup(Struct, frozen=True):
    """Content of ``backup.json``: when and of what the backup was made, and the digest of each file in it."""

    project: str
    created_at: datetime
    """When the backup began: it has every inference that was confirmed before."""
    tunectl: str
    """Version of tunectl that wrote it."""
    inference_log: Literal["sqlite", "postgresql"] | None
    champion: str | None
    releases: int
    keys: int
    runs: int
    """Number of retrains."""
    files: dict[str, BackupFile]
    missing: list[str]
    """What the backup does not have, and why."""


BACKUP: Final = RecordFormat("backup", ())


@dataclass(frozen=True, slots=True)
class HostState:
    """Paths and addresses of the state of one host: inference log, keys, registry and records."""

    project: str
    layout: ProjectPaths
    url: str
    """Address of the inference log."""
    log_config: InferenceLogConfig
    hash_key: Path
    hash_key_env: str | None
    """The environment variable that holds the hash key; None where its file does."""
    keys: Path
    trusted_keys: Path | None
    """None where signatures are not checked."""
    registry: str
    retrain_registry: str | None
    """``retrain.registry``; None in a container."""
    snapshots: Path | None
    """None in a container, which retrains nothing."""

    @property
    def database(self) -> Path | None:
        """File of the inference log; None where it is on a database server."""
        return inference_log_schema.database_file(self.url, self.layout.root)

    @property
    def registry_folder(self) -> Path | None:
        """Folder of the registry; None where it is behind an address."""
        return None if "://" in self.registry else self.layout.root / self.registry

    @property
    def records_folder(self) -> Path | None:
        """Folder of golden sets and canary records: the registry's, or ``retrain.registry`` where that has an address."""
        if self.registry_folder is not None:
            return self.registry_folder
        if self.retrain_registry is None or "://" in self.retrain_registry:
            return None
        return self.layout.root / self.retrain_registry

    @property
    def newest_champion(self) -> Path:
        """File with the newest champion pointer that the server of this host has seen."""
        return self.layout.state_dir / sequence_guard.FILE

    @property
    def newest_canary(self) -> Path:
        """File with the newest canary that the server of this host has seen."""
        return self.layout.state_dir / sequence_guard.CANARY_FILE

    @property
    def init_adapters(self) -> Path:
        """Folder of the adapters that a configuration names as the start of a training."""
        return self.layout.state_dir / INIT_ADAPTERS

    def iter_paths(self) -> Iterator[tuple[str, Path | None]]:
        """Yield (name in the backup, path on this host, or None where this host has none) of everything but the database."""
        yield HASH_KEY, None if self.hash_key_env else self.hash_key
        yield KEYS, self.keys
        yield TRUSTED_KEYS, self.trusted_keys
        yield NEWEST_CHAMPION, self.newest_champion
        yield NEWEST_CANARY, self.newest_canary
        yield MONITOR_CHAMPION, self.layout.monitor_newest_champion
        yield SNAPSHOTS, self.snapshots
        yield RETRAIN, self.layout.retrain
        yield INIT_ADAPTERS, self.init_adapters
        yield REGISTRY, self.records_folder


def describe_host(
    layout: ProjectPaths, settings: TunectlConfig | ServeSettings, environment: Mapping[str, str] = os.environ
) -> HostState:
    """Return the paths and addresses of this host's state, from settings and environment variables."""
    section = settings.feedback.root if isinstance(settings, TunectlConfig) else None
    retrain = settings.retrain if isinstance(settings, TunectlConfig) else None
    log = settings.inference_log
    trusted = environment.get(TRUSTED_KEYS_ENV) or settings.serve.trusted_keys_file
    return HostState(
        settings.project,
        layout,
        pseudonyms.address(log, environment),
        log,
        layout.root / log.hash_key_file,
        log.hash_key_env if environment.get(log.hash_key_env) is not None else None,
        layout.root / (environment.get(api_keys.KEYS_ENV) or settings.serve.keys_file),
        layout.root / trusted if trusted else None,
        environment.get("TUNECTL_REGISTRY") or settings.serve.registry,
        retrain.registry if retrain is not None else None,
        layout.root / section.snapshots if isinstance(section, FeedbackFromLog) else None,
    )
