"""Status of stages: what is stale and why, what DVC's cache has, the last verdicts.

Everything is read from ``conf/``, ``dvc.lock``, ``dvc.yaml`` and the manifests. DVC is not started, no lock is taken, and no
tracked file is written, so it works at any time, also while ``dvc repro`` runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import ArtifactError
from tunectl.core.url_credentials import hide_credentials
from tunectl.pipeline.stages import STAGES

if TYPE_CHECKING:
    from tunectl.backends.vcs.dvc_lock import LockedStage
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.pipeline.resolved_config import ResolvedStageConfig

NOT_BUILT: Final = "not built"
STALE: Final = "stale"
KEPT: Final = "in the cache"
"""A stage that was built, here or by the retrain controller, whose artifact is not in the working tree."""
StageState = Literal["not built", "stale", "in the cache", "up to date", "switched off"]
ABSENT: Final = "(none)"
"""Shown for a setting that one side does not have."""
MAX_SHOWN_CHANGES: Final = 3
"""Changes of a stage that a line tells; pages of a stage and ``--json`` have all."""


class StageChange(msgspec.Struct, frozen=True):
    """One input that differs from the stage's last run: a setting, source, upstream artifact or its code."""

    what: str
    """A setting as ``sft.lora_rank``, ``code``, ``source PATH``, ``input PATH`` or ``output PATH``."""
    old: Any = None
    """The value when the stage last ran; null for a reason without values."""
    new: Any = None

    def __str__(self) -> str:
        if self.old is None and self.new is None:
            return f"{self.what} changed"
        return f"{self.what} {format_value(self.old)} -> {format_value(self.new)}"


class StageStatus(msgspec.Struct, frozen=True):
    """Whether a stage is up to date, why not, and the duration and verdict of its last run."""

    stage: str
    state: StageState
    changes: list[StageChange]
    """Why it would run again; empty where it would not, or was never built."""
    seconds: float | None
    """Duration of its last run."""
    verdict: str | None

    @property
    def why(self) -> str:
        """The first changes as one text, and how many more there are; empty without any."""
        more = len(self.changes) - MAX_SHOWN_CHANGES
        return "; ".join([*map(str, self.changes[:MAX_SHOWN_CHANGES]), *([f"and {more} more"] if more > 0 else [])])


def list_stage_status(layout: ProjectPaths, root: TunectlConfig | None = None) -> list[StageStatus]:
    """Return one entry per stage, in the order of the pipeline.

    ``root`` is the composed configuration, if the caller has it.
    Raises  ConfigError with every mistake of the configuration; ArtifactError where dvc.lock is damaged
    """
    from tunectl.backends.vcs import dvc_lock
    from tunectl.pipeline.stages.compose import resolve_stages

    records, lock = resolve_stages(layout, root), dvc_lock.read_lock_file(layout.root)
    commands = dvc_lock.read_commands(layout.root)
    return [_stage_status(layout, records[stage.name], lock, commands) for stage in STAGES]


def list_recorded_status(layout: ProjectPaths) -> list[StageStatus]:
    """Return one entry per stage of a project that was copied without weights: as recorded, without comparison.

    Raises  ArtifactError where dvc.lock is damaged, or a manifest is of another version
    """
    from tunectl.backends.vcs import dvc_lock

    lock = dvc_lock.read_lock_file(layout.root)
    return [_read_recorded_status(layout, stage.name, built=stage.name in lock) for stage in STAGES]


def _read_recorded_status(layout: ProjectPaths, name: str, *, built: bool) -> StageStatus:
    verdict = stage_verdict(layout, name)
    state: StageState = NOT_BUILT
    if built:
        state = "switched off" if manifest.read(layout.artifact(name)).passed_through else "up to date"
    return StageStatus(name, state, [], _seconds(layout, name), verdict["reason"] if verdict else None)


def stage_verdict(layout: ProjectPaths, stage: str) -> dict[str, Any] | None:
    """Return the content of the stage's verdict.json; None where it wrote none."""
    path = layout.artifact(stage) / "verdict.json"
    return atomic_io.read_json(path) if path.is_file() else None


def format_value(value: Any) -> str:
    """Return a setting's value as text in YAML, without credentials of addresses; a long one is cut."""
    text = hide_credentials(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    return text if len(text) <= 40 else f"{text[:39]}…"


def _stage_status(
    layout: ProjectPaths, record: ResolvedStageConfig, lock: Mapping[str, LockedStage], commands: Mapping[str, str]
) -> StageStatus:
    from tunectl.backends.vcs import dvc_lock

    name, recorded = record.stage, lock.get(record.stage)
    seconds, verdict = _seconds(layout, name), stage_verdict(layout, name)
    reason = verdict["reason"] if verdict else None
    if recorded is None:
        return StageStatus(name, NOT_BUILT, [], seconds, reason)
    changes = [*_list_changes(layout, record, recorded, lock, commands.get(name))]
    try:
        result = manifest.read(layout.artifact(name))
    except ArtifactError:
        cached = all(
            dvc_lock.is_in_cache(layout.root, output)
            for path, output in recorded.outputs.items()
            if not (layout.root / path).exists()
        )
        return StageStatus(name, KEPT if cached and not changes else NOT_BUILT, changes, seconds, reason)
    changes += _list_output_changes(layout, name, recorded, result)
    state: StageState = STALE if changes else "switched off" if result.passed_through else "up to date"
    return StageStatus(name, state, changes, seconds, reason)


def _list_changes(
    layout: ProjectPaths,
    record: ResolvedStageConfig,
    recorded: LockedStage,
    lock: Mapping[str, LockedStage],
    command: str | None,
) -> Iterator[StageChange]:
    """Yield the inputs of the stage that differ from its last run."""
    path = layout.config(record.stage).relative_to(layout.root).as_posix()
    old = recorded.params.get(path, {})
    if command is not None and command != recorded.command:
        yield StageChange("command in dvc.yaml", recorded.command, command)
    yield from _compare(old.get("settings"), record.settings, "")
    if old.get("code") != record.code:
        yield StageChange("code")
    before: Mapping[str, Any] = old.get("sources") or {}
    for source in sorted(before.keys() | record.sources.keys()):
        if before.get(source) != record.sources.get(source):
            yield StageChange(f"source {source}")
    outputs = {path: output.md5 for stage in lock.values() for path, output in stage.outputs.items()}
    for name, digest in recorded.inputs.items():
        if outputs.get(name, digest.md5) != digest.md5:
            yield StageChange(f"input {name}")


def _compare(old: Any, new: Any, path: str) -> Iterator[StageChange]:
    """Yield the differing settings, each by its dotted path."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys(), key=str):
            yield from _compare(old.get(key, ABSENT), new.get(key, ABSENT), f"{path}.{key}" if path else str(key))
    elif old != new:
        yield StageChange(path or "settings", old, new)


def _list_output_changes(
    layout: ProjectPaths, stage: str, recorded: LockedStage, result: manifest.Manifest
) -> Iterator[StageChange]:
    """List outputs that are absent or differ from what the stage wrote.

    A file that is older than the manifest was not written since, so only newer ones are read. The model has hundreds of
    megabytes; reading all would take seconds.
    """
    from tunectl.backends.vcs import dvc_lock

    for path, output in recorded.outputs.items():
        if not dvc_lock.is_output_unchanged(layout.root / path, output):
            yield StageChange(f"output {path}")
            return
    folder = layout.artifact(stage)
    manifest_time = (folder / manifest.NAME).stat().st_mtime_ns
    for name, digest in result.outputs.items():
        file = folder / name
        if file.stat().st_mtime_ns > manifest_time and atomic_io.sha256_path(file) != digest:
            yield StageChange(f"output {file.relative_to(layout.root).as_posix()}")


def _seconds(layout: ProjectPaths, stage: str) -> float | None:
    path = layout.metrics(stage)
    return atomic_io.read_json(path).get("seconds") if path.is_file() else None
