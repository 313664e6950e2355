"""Training of a retrain: ``tunectl repro`` in a separate worktree, with that worktree's code, on a separate branch."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from tunectl.artifacts import atomic_io, private_files
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.modeling import peft_adapter
from tunectl.backends.system import supervised_process
from tunectl.backends.vcs import build_worktree, git_worktree
from tunectl.config.schema.retrain import RetrainingConfig
from tunectl.core.errors import InfrastructureError, TunectlError
from tunectl.inference_log.training_window import WINDOW_FORMAT, FeedbackWindow
from tunectl.packaging import serving_contract
from tunectl.registry.release_manifest import FACTS, RELEASE, BuildFacts, ReleaseManifest
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.activities import StepResult
from tunectl.retraining.state_machine import RetrainRun
from tunectl.retraining.workspace import RetrainWorkspace

INIT_ADAPTERS = "init_adapters"
"""Folder of adapters from which trainings started, by release: a configuration names them, so they must be kept."""
COMMITTED = ("dvc.lock", "artifacts/config", "artifacts/metrics", "conf/overrides.yaml")
RUNNING = ".tunectl/retrain.json"
"""File in the worktree with its run, and the number of attempts."""


class TrainingFailedError(TunectlError):
    """The pipeline of a retrain failed; the message is that of the stage."""

    exit_code = 5


def build_release(
    run: RetrainRun,
    window: FeedbackWindow,
    settings: RetrainingConfig,
    workspace: RetrainWorkspace,
    store: ReleaseRegistry,
    stop: threading.Event,
) -> StepResult:
    """Train, commit, and add the package to the store; return the release. Resumes where an earlier call was killed.

    Raises  UsageError for a dirty tree; TrainingFailedError with the message of the stage that failed, or after too many attempts.
    """
    layout = workspace.layout
    project, attempt = _worktree(run, workspace)
    if attempt > settings.train.max_attempts:
        raise TrainingFailedError(
            f"the training of retrain {run.id} was started {attempt - 1} times and never finished (retrain.train.max_attempts)",
            hint=f"correct the error that its log shows, {workspace.log_path(run)}, then ask again: tunectl retrain request -m TEXT",
        )
    supervised_process.kill_marked(workspace.mark)
    WINDOW_FORMAT.write(project / _window(run), window)
    code = supervised_process.run(
        [
            sys.executable,
            "-m",
            "tunectl",
            "repro",
            "--unattended",
            *settings.train.overrides,
            *_start(settings, store, layout),
        ],
        cwd=project,
        environment=build_worktree.build_environment(project),
        mark=workspace.mark,
        log=workspace.log_path(run),
        stop=stop,
        limits=supervised_process.ProcessLimits(
            settings.train.max_hours * 3600,
            settings.resources.nice,
            settings.resources.threads,
            gpus=settings.resources.device == "any",
        ),
    )
    if stop.is_set():  # stopped from outside, so this was no attempt
        atomic_io.write_json(project / RUNNING, {"run": run.id, "attempt": attempt - 1})
        return StepResult(False, "stopped")
    if code not in {0, 3}:
        raise TrainingFailedError(
            _describe_failure(project, code, settings), hint=f"its log is {workspace.log_path(run)}"
        )
    commit = git_worktree.commit(project, [*COMMITTED, _window(run)], f"Retrain {run.id}: {run.trigger.message[:200]}")
    return _register_release(run, project, store, commit, workspace, layout)


def use_existing_release(
    run: RetrainRun, release: str, workspace: RetrainWorkspace, store: ReleaseRegistry
) -> StepResult:
    """Return an existing release as the result of a run that trains nothing, and check out the project's commit, from which the gate reads its prompts.

    Raises  UsageError for a dirty tree; ArtifactError where the release is not in the store.
    """
    _worktree(run, workspace)
    manifest = store.manifest(release)
    facts = {"release": manifest.id, "commit": run.facts("proposed")["commit"], "branch": workspace.branch(run)}
    return _build_step_result({**facts, "metrics": manifest.metrics}, manifest, store)


def check_gate_data(run: RetrainRun, workspace: RetrainWorkspace) -> None:
    """Check that the worktree of ``run`` exists: without its training data the gate could not leave out leaked golden items.

    Raises  InfrastructureError where the worktree does not exist any more, or belongs to another run.
    """
    note = git_worktree.project_path(workspace.layout.root, workspace.worktree) / RUNNING
    if not note.is_file() or atomic_io.read_json(note)["run"] != run.id:
        raise InfrastructureError(
            f"{workspace.worktree} is missing, so the training data of retrain {run.id} cannot be verified",
            hint="only the retrain controller may change that folder; ask again: tunectl retrain request -m TEXT",
        )


def _start(settings: RetrainingConfig, store: ReleaseRegistry, layout: ProjectPaths) -> list[str]:
    """Return the override that starts fine-tuning from the champion's adapter, after copying that to where its configuration can name it."""
    champion = store.champion()
    if settings.train.start == "base" or champion is None:
        return []
    target = layout.state_dir / INIT_ADAPTERS / champion.release
    if not (target / peft_adapter.NAME).is_file():
        with atomic_io.atomic_directory(target, layout.scratch) as folder:
            shutil.copytree(store.folder(champion.release) / serving_contract.ADAPTER, folder, dirs_exist_ok=True)
    return [f"sft.init_adapter={target.relative_to(layout.root).as_posix()}"]


def _window(run: RetrainRun) -> str:
    """Return the project's file that names the snapshots for training."""
    return str(run.facts("proposed")["window_file"])


def _worktree(run: RetrainRun, workspace: RetrainWorkspace) -> tuple[Path, int]:
    """Return the project in the worktree of ``run``, created where it is absent, and the number of its uses."""
    root = workspace.layout.root
    note = git_worktree.project_path(root, workspace.worktree) / RUNNING
    if note.is_file():
        note_data: dict[str, Any] = atomic_io.read_json(note)
        if note_data["run"] == run.id:
            git_worktree.remove_stale_locks(note.parents[1])
            atomic_io.write_json(note, {"run": run.id, "attempt": note_data["attempt"] + 1})
            return note.parents[1], int(note_data["attempt"]) + 1
    git_worktree.require_clean(root)
    marks = {supervised_process.MARK: workspace.mark}
    project = build_worktree.add(
        root, workspace.worktree, workspace.branch(run), run.facts("proposed")["commit"], marks
    )
    private_files.restrict(workspace.worktree, private_files.FOLDER)
    atomic_io.write_json(note, {"run": run.id, "attempt": 1})
    return project, 1


def _describe_failure(project: Path, code: int, settings: RetrainingConfig) -> str:
    if code == supervised_process.LATE:
        return f"training took longer than retrain.train.max_hours = {settings.train.max_hours:g} and was ended"
    return build_worktree.describe_failure(project, code)


def _register_release(
    run: RetrainRun,
    project: Path,
    store: ReleaseRegistry,
    commit: str,
    workspace: RetrainWorkspace,
    layout: ProjectPaths,
) -> StepResult:
    folder = ProjectPaths(project).artifact("package")
    if not (folder / FACTS).is_file():
        raise InfrastructureError(
            "the pipeline packaged no release, so there is nothing to compare",
            hint="retraining needs package=openvino or another engine",
        )
    facts: BuildFacts = atomic_io.read_json(folder / FACTS, BuildFacts)
    result = store.add(
        folder / RELEASE, facts, author="tunectl retrain controller", message=f"retrain {run.id}", git=commit
    )
    before = run.facts("proposed")["commit"]
    release_facts = {
        "release": result.id,
        "commit": commit,
        "branch": workspace.branch(run),
        "changed": git_worktree.list_changed_files(layout.root, before, commit)[:50],
        "metrics": result.metrics,
        "feedback": _metrics(project, "feedback"),
        "curate": _metrics(project, "curate"),
    }
    return _build_step_result(release_facts, result, store)


def _build_step_result(facts: dict[str, Any], manifest: ReleaseManifest, store: ReleaseRegistry) -> StepResult:
    champion = store.champion()
    if champion is not None and champion.release == manifest.id:
        return StepResult(False, "this release is the champion itself: nothing was learned", facts)
    if manifest.refusals:
        return StepResult(False, f"the pipeline's own gate said no: {'; '.join(manifest.refusals)}", facts)
    return StepResult(True, f"release {manifest.id}", facts)


def _metrics(project: Path, stage: str) -> dict[str, Any]:
    path = ProjectPaths(project).metrics(stage)
    return atomic_io.read_json(path) if path.is_file() else {}
