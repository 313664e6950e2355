"""The recorded project behind ``tunectl demo``: the files of one build of the example and of one run of its retrain loop, without weights.

``make demo`` records it (``examples/local_lens/record_demo.py``). Data and people are those of the
example, synthetic and simulated; the programs were real. Keys and people's judgments are added when it is unpacked, and their names say that they
are synthetic. Times are those of the recording: the console's clock continues from its end, and every page says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from tunectl.artifacts import atomic_io, private_files
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.distribution import format_reinstall_command
from tunectl.core.errors import InfrastructureError
from tunectl.registry.release_store import ReleaseRegistry

if TYPE_CHECKING:
    import tarfile

ARCHIVE: Final = Path(__file__).parent / "recorded_project.tar.xz"
NAME: Final = "recording.json"
"""File name below the project's ``.tunectl``."""


class Recording(Struct, frozen=True):
    """Facts about a recorded project: when, from which version and commit, and which files were left out."""

    project: str
    ended_at: datetime
    """When the recording ended, UTC."""
    version: str
    """Version of tunectl that built it."""
    commit: str
    left_out: list[str]
    """Files of releases that the record does not hold, relative to the release."""


def unpack(folder: Path, conf: Path) -> tuple[ProjectPaths, Recording]:
    """Copy the recorded project into the empty ``folder``, with the settings of ``conf`` and the recorded overrides; return its paths and facts.

    Synthetic keys and judgments are added to the copy (``synthetic_records``).
    The settings are those of this installation: recorded ones would be refused as soon as a setting is added or renamed.
    Raises  InfrastructureError where this installation has no recorded project, or a file cannot be written.
    """
    import tarfile  # 1 MB, which a console at work does without

    from tunectl.console import synthetic_records  # loads the settings, which a console at work does later

    try:
        shutil.copytree(conf, folder / "conf")
        private_files.make_folder(ProjectPaths(folder).state_dir / "inference_log")
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter=_make_private)  # noqa: S202  it filters as "data" does
    except FileNotFoundError as error:
        raise InfrastructureError(
            f"{ARCHIVE} is missing, so there is nothing to show", hint=format_reinstall_command()
        ) from error
    except (OSError, shutil.Error, tarfile.TarError) as error:
        raise InfrastructureError(
            f"the recorded project cannot be unpacked into {folder}: {error}",
            hint="check that the disk has 20 MB free and the folder may be written",
        ) from error
    layout = ProjectPaths(folder)
    recording = read_recording(layout)
    synthetic_records.add_records(layout, recording.ended_at)
    return layout, recording


def _make_private(entry: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Return an entry of the archive as one that its owner alone may read: what is opened later reports others."""
    import tarfile

    return tarfile.data_filter(entry, folder).replace(
        mode=private_files.FOLDER if entry.isdir() else private_files.FILE, deep=False
    )


def read_recording(layout: ProjectPaths) -> Recording:
    """Return the facts about a recorded project, from ``.tunectl/``.

    Raises  ArtifactError where it is not a recorded project.
    """
    recording: Recording = atomic_io.read_json(layout.state_dir / NAME, Recording)
    return recording


def choose_clock(recording: Recording | None) -> Callable[[], datetime]:
    """Return a function that returns the current time; for a recorded project it continues from the end of the recording."""
    if recording is None:
        return lambda: datetime.now(UTC)
    behind = datetime.now(UTC) - recording.ended_at
    return lambda: datetime.now(UTC) - behind


class RecordedRegistry(ReleaseRegistry):
    """Release registry of a recorded project: files that the recording left out do not count as problems."""

    def verify(self, release: str) -> list[str]:
        """Return the problems of a release, one sentence each, without those of files that the recording left out."""
        absent = read_recording(ProjectPaths(self.root.parents[1])).left_out
        expected = {f"{name} is missing" for name in absent}
        return [problem for problem in super().verify(release) if problem not in expected]

    def verify_quickly(self, release: str) -> list[str]:
        """Return the problems of a release as ``verify`` does; without weights that takes milliseconds."""
        return self.verify(release)
