"""The run ledger: what each ``tunectl repro`` did, and each ``tunectl submit fetch`` brought, one file per run, so that runs stay comparable after their artifacts are gone.

``.tunectl/runs/UTC-DIGEST.json`` is written atomically when the run ends, also when it fails. No stage reads it, so it may be deleted.
A run's record leaves out the results of earlier runs that it did not rebuild.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import override_file
from tunectl.core import logging_setup, user
from tunectl.core.errors import ArtifactError, GateError, TunectlError
from tunectl.core.url_credentials import hide_credentials
from tunectl.evaluation import results
from tunectl.evaluation.results import MetricDifference, Score
from tunectl.pipeline import background_build
from tunectl.pipeline.stage_status import stage_verdict
from tunectl.pipeline.stages import STAGES
from tunectl.tracking.build_record import read_curves

_log = logging_setup.get_logger(__name__)
VERSION: Final = 1
MAX_POINTS: Final = 200
"""Most points of a curve; a longer one is thinned."""


class RunVerdict(msgspec.Struct, frozen=True):
    """Verdict of one stage's gate (reward, evaluate, package), with its reason and evidence, as kept in a run's record."""

    passed: bool
    verdict: str = ""
    reason: str = ""
    evidence: list[str] = []
    helps: list[str] = []


class RunFailure(msgspec.Struct, frozen=True):
    """Error that ended a run: message, hint, and the stage that raised it."""

    message: str
    stage: str | None = None
    """None where no stage ran, for example after an error of DVC."""
    hint: str = ""


class StageLaunch(msgspec.Struct, frozen=True):
    """Processes and machines on which a stage was trained."""

    method: str
    """``local``, ``torchrun`` or ``ray``."""
    ranks: int = 1
    """Number of processes that trained together."""
    nodes: int = 1
    device: str = ""
    restarts: int = 0


class RunStage(msgspec.Struct, frozen=True):
    """A stage in a run's record whose artifact is up to date at its end: manifest digest, seconds, and whether it was executed."""

    name: str
    manifest: str
    """Digest of the artifact's manifest: equal in two runs with the same artifact."""
    executed: bool
    """Whether this run built it, in contrast to finding it or taking it from DVC's cache."""
    seconds: float | None
    """Duration of building it, in this run or in an earlier one."""
    passed_through: bool = False
    """Whether it was switched off."""
    launch: StageLaunch | None = None
    """How it was trained; None for stages without training."""
    output: str | None = None
    """DVC's digest of the artifact, under which it is in ``dvc.lock`` and DVC's cache."""


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a run's record that lists of runs show; read without the settings and curves."""

    id: str
    """Name of the file without its ending: start of the run (UTC), and a digest of what it built."""
    version: int = VERSION
    project: str
    author: str
    reason: str = ""
    """Reason that was given where it was started from the console; the job where its results were fetched."""
    unattended: bool = False
    """Started by the retrain controller or a sweep."""
    started_at: float
    """Seconds since 1970."""
    seconds: float
    exit_code: int
    commit: str | None
    """Commit, with the suffix ``-dirty`` where tracked files differed; None outside Git."""
    overrides: list[str]
    targets: list[str]
    """Stages given with ``--to``; empty for all."""
    stages: list[RunStage]
    verdicts: dict[str, RunVerdict]
    """Verdicts by stage."""
    failure: RunFailure | None = None
    release: str | None = None
    """Release that was added to the registry."""
    build: str = ""
    """Id of the build at the trackers of ``track.to``; empty where it is not tracked."""
    primary: str | None = None
    """The primary metric; None where the run did not evaluate."""
    inputs: int = 0
    """Number of test inputs."""
    test_set: str | None = None
    """Digest of the test split: differences of two runs can be paired where it is equal."""
    primary_scores: dict[str, Score] = {}
    """Primary metric with its interval, by system."""
    note: str = ""
    """What somebody wrote about the run afterwards; empty: nothing."""
    note_author: str = ""


class RunRecord(RunSummary, frozen=True, kw_only=True):
    """Everything that is recorded about one run: its summary, the settings, all scores and the curves."""

    settings: dict[str, Any] = {}
    """Resolved settings of each stage."""
    scores: dict[str, dict[str, Score]] = {}
    """Value and interval of each metric, by system."""
    differences: list[MetricDifference] = []
    """Differences of the primary metric between systems of this run."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    """Points of step and value of each figure, by stage."""


@dataclass
class RunEnd:
    """Outcome of the current run; the caller of ``record_run`` fills it before the record is written."""

    exit_code: int = 0
    error: str = ""
    release: str | None = None
    build: str = ""
    reason: str = ""
    """Why the run took place, where it was not started from the console."""
    id: str = ""
    """Set when the record is written: its id."""


@contextmanager
def record_run(
    layout: ProjectPaths, project: str, *, targets: Sequence[str] = (), unattended: bool = False
) -> Iterator[RunEnd]:
    """Write the record of the run in the ``with`` block when it ends, also after an error; yields the outcome, to be filled. Write errors are only logged."""
    end, started_at = RunEnd(), time.time()
    try:
        yield end
    except BaseException as error:
        end.exit_code = find_exit_code(error)
        # A gate that says no is no failure: the verdicts have it.
        end.error = "" if isinstance(error, GateError) else (str(error).splitlines() or [type(error).__name__])[0]
        raise
    finally:
        try:
            record = _describe_run(layout, project, started_at, end, targets=list(targets), unattended=unattended)
            atomic_io.write_bytes(find_ledger(layout) / f"{record.id}.json", msgspec.json.encode(record) + b"\n")
            end.id = record.id
        except (TunectlError, OSError, ValueError, KeyError) as problem:
            _log.warning("this run is not in the ledger: %s", problem)


def find_exit_code(error: BaseException) -> int:
    """Return the exit code of a run that ``error`` ended: that of a TunectlError, 130 for Ctrl-C, else 1."""
    return int(getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1))


def find_ledger(layout: ProjectPaths) -> Path:
    """Return the folder of the run records; a retrain in a worktree uses the project's own, since the worktree is removed."""
    root = layout.root.absolute()
    for folder in root.parents:
        project = ProjectPaths(folder)
        if root.is_relative_to(project.retrain):
            return project.runs
    return layout.runs


def list_runs(layout: ProjectPaths) -> list[str]:
    """Return the ids of all runs of the ledger, the newest first."""
    folder = layout.runs
    names = [path.stem for path in folder.glob("*.json") if not path.name.startswith(".")] if folder.is_dir() else []
    return sorted(names, reverse=True)


def read_summaries(layout: ProjectPaths, names: list[str]) -> tuple[list[RunSummary], list[str]]:
    """Return the summaries of the runs ``names``, and a sentence for each that cannot be read."""
    result, problems = list[RunSummary](), list[str]()
    for name in names:
        try:
            result.append(_read(layout, name, RunSummary))
        except ArtifactError as error:
            problems.append(str(error.message))
    return result, problems


def read_run(layout: ProjectPaths, name: str) -> RunRecord:
    """Return the whole record of the run ``name``.

    Raises  ArtifactError where there is none of that name, or it cannot be read.
    """
    if name not in list_runs(layout):
        raise ArtifactError(
            f"{layout.runs} has no run called {name[:80]!r}", hint="the console's page Runs lists the names"
        )
    run_record: RunRecord = _read(layout, name, RunRecord)
    return run_record


def write_note(layout: ProjectPaths, name: str, note: str, author: str) -> None:
    """Write the note of ``author`` into the record of the run ``name``; an empty one removes it.

    Raises  ArtifactError where there is none of that name, or it cannot be read.
    """
    record = msgspec.structs.replace(read_run(layout, name), note=note, note_author=author if note else "")
    atomic_io.write_bytes(layout.runs / f"{name}.json", msgspec.json.encode(record) + b"\n")


def _read(layout: ProjectPaths, name: str, shape: type[Any]) -> Any:
    result: Any = atomic_io.read_json(layout.runs / f"{name}.json", shape)
    if result.version > VERSION:
        raise ArtifactError(
            f"{layout.runs / name}.json is of version {result.version}; this tunectl reads version {VERSION}",
            hint="a newer tunectl wrote it: install that version here",
        )
    return result


def _describe_run(
    layout: ProjectPaths, project: str, started_at: float, end: RunEnd, *, targets: list[str], unattended: bool
) -> RunRecord:
    from tunectl.backends.vcs import project_repo

    stages = list(_list_stages(layout))
    names = {stage.name for stage in stages}
    overrides = [hide_credentials(override.text) for override in override_file.load_overrides(layout)]
    settings = {name: config["settings"] for name in _names() if (config := _read_config(layout, name))}
    built = atomic_io.sha256_json({"settings": settings, "stages": {stage.name: stage.manifest for stage in stages}})
    verdicts = {
        name: msgspec.convert(result, RunVerdict)
        for name in _names()
        if name in names and (result := stage_verdict(layout, name))
    }
    request = background_build.read_request(layout, os.getpid())
    stop = background_build.read_stop(layout, os.getpid()) if end.exit_code else None
    record = RunRecord(
        id=f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(started_at))}-{built[:8]}",
        project=project,
        author=request.author if request else user.current_user(),
        reason=request.reason if request else end.reason,
        unattended=unattended,
        started_at=started_at,
        seconds=round(time.time() - started_at, 3),
        exit_code=end.exit_code,
        commit=project_repo.head_commit(layout.root),
        overrides=overrides,
        targets=targets,
        stages=stages,
        verdicts=verdicts,
        failure=RunFailure(f"{stop.author} stopped it: {stop.reason}") if stop else _read_failure(layout, end.error),
        release=end.release,
        build=end.build,
        settings=_hide_credentials(settings),
        curves={name: curves for name in names if (curves := _thin(read_curves(layout.plots(name) / "history.csv")))},
    )
    return _add_results(layout, record) if "evaluate" in names else record


def _hide_credentials(tree: Any) -> Any:
    """Return settings without the credentials of addresses in them: a record is kept, and shown to whoever may look."""
    if isinstance(tree, dict):
        return {name: _hide_credentials(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_hide_credentials(value) for value in tree]
    return hide_credentials(tree) if isinstance(tree, str) else tree


def _names() -> list[str]:
    return [stage.name for stage in STAGES]


def _read_config(layout: ProjectPaths, name: str) -> dict[str, Any] | None:
    path = layout.config(name)
    return atomic_io.read_json(path, dict[str, Any]) if path.is_file() else None


def _list_stages(layout: ProjectPaths) -> Iterator[RunStage]:
    """Yield the stages whose artifact was made from the current configuration and inputs."""
    from tunectl.backends.vcs import dvc_lock

    executed = set(layout.executed.read_text(encoding="utf-8").split()) if layout.executed.is_file() else set()
    locked = dvc_lock.read_lock_file(layout.root)
    digests: dict[str, str] = {}
    for name in _names():
        config = _read_config(layout, name)
        try:
            result = manifest.read(layout.artifact(name))
        except ArtifactError:
            continue
        same_inputs = all(digests.get(upstream) == digest for upstream, digest in result.inputs.items())
        if config is None or result.config != atomic_io.sha256_json(config) or not same_inputs:
            continue
        digests[name] = atomic_io.sha256_json(result)
        output = locked[name].outputs.get(f"artifacts/{name}") if name in locked else None
        yield RunStage(
            name=name,
            manifest=digests[name],
            executed=name in executed,
            seconds=_read_metrics(layout.metrics(name)).get("seconds"),
            launch=_read_launch(layout.metrics(name)),
            passed_through=result.passed_through,
            output=output.md5 if output else None,
        )


def _read_metrics(path: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = atomic_io.read_json(path, dict[str, Any]) if path.is_file() else {}
    return metrics


def _read_launch(path: Path) -> StageLaunch | None:
    launch = _read_metrics(path).get("launch")
    return None if launch is None else msgspec.convert(launch, StageLaunch)


def _read_failure(layout: ProjectPaths, error: str) -> RunFailure | None:
    if layout.failure.is_file():
        with suppress(ArtifactError):
            run_failure: RunFailure = atomic_io.read_json(layout.failure, RunFailure)
            return run_failure
    return RunFailure(error) if error else None


def _add_results(layout: ProjectPaths, record: RunRecord) -> RunRecord:
    """Return the record with the results of evaluate."""
    path = layout.artifact("evaluate") / results.NAME
    if not path.is_file():
        return record
    result = results.load(path)
    with suppress(ArtifactError):
        record = msgspec.structs.replace(
            record, test_set=manifest.read(layout.artifact("split")).outputs.get(f"{result.split}.jsonl")
        )
    scores = {system.name: system.scores for system in result.systems}
    return msgspec.structs.replace(
        record,
        primary=result.primary,
        inputs=result.inputs,
        scores=scores,
        primary_scores={name: score[result.primary] for name, score in scores.items() if result.primary in score},
        differences=[difference for difference in result.differences if difference.measure == result.primary],
    )


def _thin(curves: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """Return each curve with at most ``MAX_POINTS`` points, including the last one."""
    thinned = {}
    for name, points in curves.items():
        step = -(-len(points) // MAX_POINTS)
        thinned[name] = points[::-step][::-1] if step > 1 else points
    return thinned
