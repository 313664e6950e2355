"""Record the project that ``tunectl demo`` shows: ``make demo``, after ``make run`` and ``make loop``. About ten minutes.

It packs the artifacts of the build, and the inference log, drift windows, retrains and releases of the loop, without weights, tokenizers,
Bento, caches, keys and tokens. First it requests one more retrain whose promotion needs an approval, so that the console shows a pending
approval with the gate's evidence. No record is edited. Left out are:

- of the build: weights and files that only an engine reads;
- of the run ledger: runs without a release;
- of the settings: all but the overrides, because the next version would refuse a complete set; of the loop's overrides those of stages,
  because the artifacts are those of the build.
"""

from __future__ import annotations

import argparse
import io
import lzma
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "monitoring")]

from loop_demo.processes import Program  # noqa: E402

from tunectl import __version__  # noqa: E402
from tunectl.artifacts import atomic_io  # noqa: E402
from tunectl.artifacts.paths import ProjectPaths  # noqa: E402
from tunectl.backends.storage import inference_log_schema  # noqa: E402
from tunectl.backends.vcs import git_worktree  # noqa: E402
from tunectl.config.loading import checks, override_file  # noqa: E402
from tunectl.console import recorded_project  # noqa: E402
from tunectl.console.recorded_project import Recording  # noqa: E402
from tunectl.core.errors import DataError, UsageError  # noqa: E402
from tunectl.inference_log import pseudonyms  # noqa: E402
from tunectl.registry import release_manifest  # noqa: E402
from tunectl.registry.release_store import ReleaseRegistry  # noqa: E402
from tunectl.retraining.run_store import RunStore  # noqa: E402

BUILD_FILES = ("dvc.yaml", "dvc.lock", "artifacts", "examples/local_lens/data", ".tunectl/progress", ".tunectl/runs")
LOOP_FILES = (
    "inference_log", ".tunectl/inference_log", ".tunectl/monitor", ".tunectl/releases", ".tunectl/retrain/approvals",
    ".tunectl/retrain/inbox", ".tunectl/retrain/outcomes", ".tunectl/retrain/runs", ".tunectl/retrain/schedule_marks.json", ".tunectl/retrain/.lock",
)  # fmt: skip
EXCLUDED = (
    "artifacts/package/bento/*", "*/model/*.bin", "*/model/*.xml", "*/openvino_config.json", "*.safetensors", "*tokenizer.json",
    "*.previous", "*/tmp/*", "*/tmp-golden/*", "*.sqlite", "*.sqlite-*",
)  # fmt: skip
RUNTIME_SECTIONS = ("monitor.", "retrain.", "serve.")
"""Prefixes of settings of the running programs; no stage reads them."""
MAX_BYTES = 4_000_000
RETRAIN_MESSAGE = "Spring campaigns begin next week; learn what people wrote since the last retrain"


def main() -> int:
    """Leave an approval pending, collect the files, pack them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="the checkout in which `make run` and `make loop` were run"
    )
    parser.add_argument(
        "--out", type=Path, default=recorded_project.ARCHIVE, help="the record (default: where the wheel takes it from)"
    )
    args = parser.parse_args()
    root = args.root.resolve()
    loop = root / ".tunectl" / "loop" / "project"
    if not (root / "dvc.lock").is_file() or not RunStore(ProjectPaths(loop).retrain).runs():
        raise UsageError(f"{root} has no build or no run of the loop", hint="make run && make loop")
    leave_pending_approval(loop)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording = collect(root, loop, folder)
        refuse_paths(folder, root)
        pack(folder, args.out)
    size = args.out.stat().st_size
    print(f"{args.out}: {size / 1e6:.1f} MB, recorded until {recording.ended_at:%Y-%m-%d %H:%M} UTC")
    if size > MAX_BYTES:
        raise DataError(f"{args.out} has {size:,} bytes; the wheel takes at most {MAX_BYTES:,}")
    return 0


def leave_pending_approval(loop: Path, seconds: float = 3600) -> None:
    """Run one more retrain until its promotion waits for an approval, unless one already waits.

    Raises  NotReadyError if no approval waits after ``seconds``.
    """
    store = RunStore(ProjectPaths(loop).retrain)

    def is_waiting() -> bool:
        return any(run.state == "awaiting_approval" for run in store.runs())

    if is_waiting():
        return
    words = ["retrain", "request", "--ignore-limits", "-m", RETRAIN_MESSAGE]
    subprocess.run([sys.executable, "-m", "tunectl", *words], cwd=loop, check=True, stdout=subprocess.DEVNULL)
    words = ["retrain.approval.promotion=required", "retrain.canary=null", "retrain.port=0"]
    controller = Program("approval", ["retrain", "controller", *words], loop, {})
    try:
        controller.until(is_waiting, seconds)
    finally:
        controller.stop()


def collect(root: Path, loop: Path, folder: Path) -> Recording:
    """Copy the recorded files into ``folder``, and write the metadata of the recording."""
    for origin, names in ((root, BUILD_FILES), (loop, LOOP_FILES)):
        for path in (path for name in names for path in list_files(origin, name)):
            target = folder / path.relative_to(origin)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    layout = ProjectPaths(folder)
    for path in layout.runs.glob("*.json"):
        if atomic_io.read_json(path)["release"] is None:
            path.unlink()
    settings = [
        one for one in override_file.load_overrides(ProjectPaths(loop)) if one.text.startswith(RUNTIME_SECTIONS)
    ]
    override_file.save_overrides(
        layout,
        override_file.merge_overrides(override_file.load_overrides(ProjectPaths(root)), [one.text for one in settings]),
    )
    copy_inference_log(loop, folder)
    store = ReleaseRegistry(layout.releases)
    left_out = {
        name for one in store.ids() for name in release_manifest.load(store.folder(one)).files if not (store.folder(one) / name).is_file()
    }  # fmt: skip
    recording = Recording(
        checks.load_project_config(ProjectPaths(root)).root.project,
        max(run.steps[-1].at for run in RunStore(ProjectPaths(loop).retrain).runs()),
        __version__,
        git_worktree.revision(root),
        sorted(left_out),
    )
    atomic_io.write_json(layout.state_dir / recorded_project.NAME, recording)
    return recording


def list_files(origin: Path, name: str) -> Iterator[Path]:
    """Yield the file, or the files of a folder, that are recorded."""
    place = origin / name
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        relative = path.relative_to(origin).as_posix()
        if path.is_file() and not any(fnmatch(relative, pattern) for pattern in EXCLUDED):
            yield path


def copy_inference_log(loop: Path, folder: Path) -> None:
    """Copy the whole database without its journal, in WAL mode."""
    settings: Any = checks.load_project_config(ProjectPaths(loop)).root.inference_log
    path = inference_log_schema.database_file(pseudonyms.address(settings), loop)
    if path is None:
        raise UsageError("inference_log.database of the loop is no file, so it cannot be copied", hint="make loop")
    with closing(sqlite3.connect(path)) as log:
        copy = folder / path.relative_to(loop)
        log.execute("VACUUM INTO ?", [str(copy)])
    with closing(sqlite3.connect(copy)) as log:
        log.execute("PRAGMA journal_mode = wal")


def refuse_paths(folder: Path, root: Path) -> None:
    """Raise ``DataError`` for a file that names a folder of this machine."""
    for path in sorted(folder.rglob("*")):
        for place in {str(root), str(Path.home()), tempfile.gettempdir()} - {"/"}:
            if path.is_file() and f"{place}/".encode() in path.read_bytes():
                raise DataError(
                    f"{path.relative_to(folder)} names {place}, a folder of this machine", hint="add it to EXCLUDED"
                )


def pack(folder: Path, archive: Path) -> None:
    """Write the files of ``folder`` sorted, without owner and time, so that the same files give the same bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
            if path.is_file():
                entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
                entry.size, entry.mode, entry.mtime = path.stat().st_size, 0o644, 0
                with path.open("rb") as content:
                    tar.addfile(entry, content)
    atomic_io.write_bytes(archive, lzma.compress(stream.getvalue(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    sys.exit(main())
