"""The context that a screen's reader gets: paths, time, the composed settings and the state of the stages, each read once while no file changes.

Readers only read. A part that cannot be read becomes an entry in ``problems`` of its screen, and the other parts are still shown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import MsgspecError

from tunectl.access import api_keys
from tunectl.artifacts import atomic_io, names
from tunectl.artifacts.paths import ProjectPaths
from tunectl.console.links import link
from tunectl.core import logging_setup
from tunectl.core.errors import TunectlError
from tunectl.registry import registry_formats, release_manifest

if TYPE_CHECKING:
    from tunectl.config.loading.checks import ResolvedConfig
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.console.recorded_project import Recording
    from tunectl.pipeline.stage_status import StageStatus

T = TypeVar("T")
_log = logging_setup.get_logger(__name__)
Stamp = tuple[tuple[str, int, int], ...]
MAX_ENTRIES: Final = 200
MAX_AGE_SECONDS: Final = 60.0
"""Longest age of the state of the stages: raw files that no settings name yet are not part of the stamp."""


class NotFoundError(LookupError):
    """Raised where nothing exists at the requested address (HTTP 404); a separate class, since a KeyError from a bug must not give 404."""


class ReadCache:
    """Cache of read values by name, each valid while its stamp is unchanged; shared by all visitors, thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[Any, Any, float]] = {}
        self._building: dict[str, threading.Lock] = {}

    def get(self, name: str, stamp: Any, build: Callable[[], T], *, max_age: float = float("inf")) -> T:
        """Return the value of ``name``, built anew where ``stamp`` differs or it is older than ``max_age`` seconds; concurrent calls build once."""
        with self._lock:
            own = self._building.setdefault(name, threading.Lock())
        with own:
            entry = self._entries.get(name)
            if entry is None or entry[0] != stamp or monotonic() - entry[2] >= max_age:
                entry = (stamp, self._try(build), monotonic())
                self._keep(name, entry)
        if isinstance(entry[1], TunectlError):
            raise entry[1].with_traceback(None)  # each raise adds frames to it, and they keep what they hold
        value: T = entry[1]
        return value

    def _try(self, build: Callable[[], T]) -> T | TunectlError:
        """Keep an error until a file changes; nothing is read again before."""
        try:
            return build()
        except TunectlError as error:
            return error

    def _keep(self, name: str, entry: tuple[Any, Any, float]) -> None:
        with self._lock:
            self._entries.pop(name, None)
            self._entries[name] = entry
            while len(self._entries) > MAX_ENTRIES:
                oldest = next(iter(self._entries))
                del self._entries[oldest]
                self._building.pop(oldest, None)


@dataclass(frozen=True, slots=True)
class ReadContext:
    """Access to the project's files during one request, and the visitor who sent it."""

    layout: ProjectPaths
    now: datetime
    """Time of the request, UTC."""
    scopes: frozenset[str] = frozenset()
    """Scopes of the visitor."""
    visitor: str = ""
    """Name under which acts are recorded."""
    cache: ReadCache = field(default_factory=ReadCache)
    recording: Recording | None = None
    """Set for a project that ``tunectl demo`` shows; None for a real one."""

    def log_opened(self, inference: str) -> None:
        """Log that the visitor was shown the text of an inference."""
        _log.info("%s opened the inference %s", self.visitor or "somebody", inference)

    def find_release_link(self, release: str | None) -> str:
        """Return the address of a release's page; empty where the project's registry lacks it: its answers may be logged here, too."""
        folder = self.layout.releases / registry_formats.RELEASES
        is_here = release and names.is_content_id(release) and (folder / release / release_manifest.NAME).is_file()
        return link("/releases/{}", release) if release and is_here else ""

    def load_config(self) -> ResolvedConfig:
        """Return the composed configuration with the file and line of each value.

        Raises  ConfigError with every mistake.
        """
        from tunectl.config.loading import checks

        stamp = stamp_files(list_setting_files(self.layout))
        return self.cache.get("config", stamp, lambda: checks.load_project_config(self.layout))

    def load_settings(self) -> TunectlConfig:
        """Return the composed configuration as a validated object.

        Raises  ConfigError with every mistake.
        """
        return self.load_config().root

    def find_keys_file(self) -> Path:
        """Return the path of the server's keys file, as all services find it; a recorded project has its own.

        Raises  ConfigError with every mistake.
        """
        name = self.load_settings().serve.keys_file
        return (
            self.layout.root / name if self.recording is not None else api_keys.find_keys_file(self.layout.root, name)
        )

    def list_stages(self) -> list[StageStatus]:
        """Return whether each stage is up to date, in the order of the pipeline.

        Raises  ConfigError with every mistake; ArtifactError where dvc.lock is damaged.
        """
        from tunectl.pipeline.stage_status import list_recorded_status, list_stage_status

        def read() -> list[StageStatus]:
            if self.recording is not None:
                return list_recorded_status(self.layout)
            return list_stage_status(self.layout, self.load_settings())

        return self.cache.get("stages", stamp_files(list_build_files(self.layout)), read, max_age=MAX_AGE_SECONDS)

    def read_json(self, path: Path, shape: type[T] | Any = Any) -> Any:
        """Return the content of a JSON file, converted to ``shape`` and decoded once while it is unchanged; None where it is absent."""
        stamp = stamp_files([path])
        if not stamp:
            return None
        return self.cache.get(f"json {path}", stamp, lambda: atomic_io.read_json(path, shape))


def stamp_files(paths: Iterator[Path] | list[Path]) -> Stamp:
    """Return (name, size, time of change) of the existing files among ``paths``."""
    stamp = []
    for path in paths:
        try:
            facts = path.stat()
        except OSError:
            continue
        stamp.append((str(path), facts.st_size, facts.st_mtime_ns))
    return tuple(stamp)


def list_setting_files(layout: ProjectPaths) -> Iterator[Path]:
    """Yield the files that the configuration is composed of."""
    yield from sorted(layout.conf.rglob("*.yaml"))


def list_build_files(layout: ProjectPaths) -> Iterator[Path]:
    """Yield the files from which the state of the stages follows; of raw data those that the stages last read."""
    from tunectl.pipeline.stages import STAGES

    yield from list_setting_files(layout)
    yield from (layout.dvc_lock, layout.pipeline)
    for stage in STAGES:
        folder = layout.artifact(stage.name)
        yield from (folder, folder / "manifest.json", folder / "verdict.json", layout.metrics(stage.name))
        record = layout.config(stage.name)
        yield record
        try:
            sources: Mapping[str, Any] = atomic_io.read_json(record)["sources"] if record.is_file() else {}
        except (TunectlError, KeyError, TypeError):
            continue
        yield from (layout.root / name for name in sources)


class ProblemList:
    """Collects the errors of the sections of a screen that cannot be read, by section; the other sections are still shown."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}

    def attempt(self, part: str, read: Callable[[], T], otherwise: T) -> T:
        """Return the result of ``read``; if it fails, record the error under the section ``part`` and return ``otherwise``."""
        try:
            return read()
        except TunectlError as error:
            self.problems.setdefault(part, error.message + (f" ({error.hint})" if error.hint else ""))
        except (OSError, MsgspecError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.problems.setdefault(part, f"{type(error).__name__}: {error}")
        return otherwise
