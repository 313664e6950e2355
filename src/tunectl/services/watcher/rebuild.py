"""Training of a retrain: ``tunectl repro`` in a worktree of its own, with that worktree's code, on a branch of its own."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from tunectl.artifacts import io
from tunectl.artifacts.layout import Layout
from tunectl.backends import adapter_file, dvc_repo, git_worktree, process_group
from tunectl.config.watch import Watch
from tunectl.core.errors import EnvironmentFailure, TunectlError
from tunectl.live.gathering import Named
from tunectl.release import contract
from tunectl.release.machine import Run
from tunectl.release.manifest import FACTS, RELEASE, Facts, ReleaseManifest
from tunectl.release.store import Store
from tunectl.services.watcher.hands import Found
from tunectl.services.watcher.place import Place

START = "start"
"""Adapters that a training went on from, by release: what its configuration names must stay."""
SHARED = ("cache", "exporters", "live", START)
"""Folders of the project's hidden folder that the worktree uses as well."""
COMMITTED = ("dvc.lock", "artifacts/config", "artifacts/metrics", "conf/overrides.yaml")
RUNNING = ".tunectl/retrain.json"
"""In the worktree: whose it is, and how often it was begun."""


class TrainingFailed(TunectlError):
    """The pipeline of a retrain ended with an error; the message has its own words."""

    exit_code = 5


def rebuilt(run: Run, named: Named, watch: Watch, place: Place, store: Store, stop: threading.Event) -> Found:
    """Train, commit, and put the package into the store; goes on where an earlier call was killed.

    Raises  UsageError for a dirty tree; TrainingFailed with the words of the stage that failed, or after too many attempts.
    """
    layout = place.layout
    project, attempt = _worktree(run, place)
    if attempt > watch.train.attempts:
        raise TrainingFailed(
            f"retrain {run.id} was begun {attempt - 1} times and never ended",
            hint=f"its words are in {place.log(run)}",
        )
    process_group.sweep(place.mark)
    io.write_json(project / _window(run), named)
    code = process_group.run(
        [
            sys.executable,
            "-m",
            "tunectl",
            "repro",
            "--unattended",
            *watch.train.overrides,
            *_start(watch, store, layout),
        ],
        cwd=project,
        environment=_environment(project),
        mark=place.mark,
        log=place.log(run),
        stop=stop,
        limits=process_group.Limits(
            watch.train.hours * 3600,
            watch.resources.nice,
            watch.resources.threads,
            gpus=watch.resources.device == "any",
        ),
    )
    if stop.is_set():  # told to stop, so this was no attempt
        io.write_json(project / RUNNING, {"run": run.id, "attempt": attempt - 1})
        return Found(False, "stopped")
    if code not in {0, 3}:
        raise TrainingFailed(_words(project, code, watch), hint=f"its words are in {place.log(run)}")
    commit = git_worktree.commit(project, [*COMMITTED, _window(run)], f"Retrain {run.id}: {run.trigger.why[:200]}")
    return _packaged(run, project, store, commit, place, layout)


def proposed(run: Run, release: str, place: Place, store: Store) -> Found:
    """A release that is there already, with the project beside it as it is committed: the gate finds its questions there.

    Raises  UsageError for a dirty tree; ArtifactError where the release is not in the store.
    """
    _worktree(run, place)
    made = store.manifest(release)
    told = {"release": made.id, "commit": run.facts("proposed")["commit"], "branch": place.branch(run)}
    return _ended({**told, "metrics": made.metrics}, made, store)


def refuse_lost(run: Run, place: Place) -> None:
    """The gate reads the drifted slice, and what was learned, in the worktree; without it it would ask less, and nobody would know.

    Raises  EnvironmentFailure where the worktree is not there any more, or another run's.
    """
    note = git_worktree.inside(place.layout.root, place.worktree) / RUNNING
    if not note.is_file() or io.read_json(note)["run"] != run.id:
        raise EnvironmentFailure(
            f"{place.worktree} is gone, so it is not known what retrain {run.id} has learned",
            hint="nobody but tunectl watch may touch that folder; ask again: tunectl repro --reason TEXT",
        )


def _start(watch: Watch, store: Store, layout: Layout) -> list[str]:
    """The override that lets fine-tuning go on from the champion's adapter, once that is where its configuration can name it."""
    champion = store.champion()
    if watch.train.start == "base" or champion is None:
        return []
    place = layout.hidden / START / champion.release
    if not (place / adapter_file.NAME).is_file():
        with io.replacing_folder(place, layout.scratch) as fresh:
            shutil.copytree(store.folder(champion.release) / contract.ADAPTER, fresh, dirs_exist_ok=True)
    return [f"sft.start={place.relative_to(layout.root).as_posix()}"]


def _window(run: Run) -> str:
    """The file that names what is learned from, in the project."""
    return str(run.facts("proposed")["window_file"])


def _worktree(run: Run, place: Place) -> tuple[Path, int]:
    """The project in the worktree of ``run``, made where it is not there, and how often it was used."""
    root = place.layout.root
    note = git_worktree.inside(root, place.worktree) / RUNNING
    if note.is_file():
        told: dict[str, Any] = io.read_json(note)
        if told["run"] == run.id:
            git_worktree.mend(note.parents[1])
            io.write_json(note, {"run": run.id, "attempt": told["attempt"] + 1})
            return note.parents[1], int(told["attempt"]) + 1
    git_worktree.refuse_dirty(root)
    project = git_worktree.make(root, place.worktree, place.branch(run), run.facts("proposed")["commit"])
    (project / ".tunectl").mkdir(exist_ok=True)
    for name in SHARED:
        (root / ".tunectl" / name).mkdir(parents=True, exist_ok=True)
        (project / ".tunectl" / name).symlink_to((root / ".tunectl" / name).absolute(), target_is_directory=True)
    dvc_repo.share_cache(root, project, {process_group.MARK: place.mark})
    io.write_json(note, {"run": run.id, "attempt": 1})
    return project, 1


def _environment(project: Path) -> dict[str, str]:
    """That worktree's code comes first where the project brings its own."""
    found = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    if (project / "src" / "tunectl").is_dir():
        found["PYTHONPATH"] = f"{(project / 'src').absolute()}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(
            os.pathsep
        )
    return found


def _words(project: Path, code: int, watch: Watch) -> str:
    failure = Layout(project).failure
    if code == process_group.LATE:
        return f"training took longer than watch.train.hours = {watch.train.hours:g} and was ended"
    if failure.is_file():
        told: dict[str, Any] = io.read_json(failure)
        return f"stage {told['stage']} failed: {told['message']}"
    signal = f" (signal {code - 128}: out of memory, or ended by hand)" if code > 128 else ""
    return f"tunectl repro ended with exit code {code}{signal}"


def _packaged(run: Run, project: Path, store: Store, commit: str, place: Place, layout: Layout) -> Found:
    folder = Layout(project).artifact("package")
    if not (folder / FACTS).is_file():
        raise EnvironmentFailure(
            "the pipeline packaged no release, so there is nothing to compare",
            hint="retraining needs package=openvino or another engine",
        )
    facts: Facts = io.read_json(folder / FACTS, Facts)
    made = store.add(folder / RELEASE, facts, by="tunectl watch", why=f"retrain {run.id}", git=commit)
    before = run.facts("proposed")["commit"]
    told = {
        "release": made.id,
        "commit": commit,
        "branch": place.branch(run),
        "changed": git_worktree.changed(layout.root, before, commit)[:50],
        "metrics": made.metrics,
        "harvest": _metrics(project, "harvest"),
        "curate": _metrics(project, "curate"),
    }
    return _ended(told, made, store)


def _ended(told: dict[str, Any], made: ReleaseManifest, store: Store) -> Found:
    champion = store.champion()
    if champion is not None and champion.release == made.id:
        return Found(False, "this release is the champion itself: nothing was learned", told)
    if made.refusals:
        return Found(False, f"the pipeline's own gate said no: {'; '.join(made.refusals)}", told)
    return Found(True, f"release {made.id}", told)


def _metrics(project: Path, stage: str) -> dict[str, Any]:
    path = Layout(project).metrics(stage)
    return io.read_json(path) if path.is_file() else {}
