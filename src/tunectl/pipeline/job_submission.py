"""Submit jobs from ``conf/submit`` to a cluster, and get their state, output and results."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from tunectl.artifacts import atomic_io, lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.schedulers import kubernetes_scheduler, ray_scheduler, slurm_scheduler
from tunectl.backends.schedulers.scheduler_command import UnconfirmedError
from tunectl.backends.vcs import dvc_remote, dvc_repo, git_worktree, pushed_commit
from tunectl.backends.wiring import launch
from tunectl.config.loading import checks, override_file
from tunectl.config.loading.checks import ResolvedConfig
from tunectl.core.errors import InfrastructureError, TunectlError, UsageError
from tunectl.jobs import job_records, job_script
from tunectl.jobs.job_records import JobProgress, JobRecord
from tunectl.jobs.job_spec import JobSpec
from tunectl.pipeline import run_ledger
from tunectl.pipeline.required_extras import list_upstream_stages
from tunectl.pipeline.stages import find

SCHEDULERS: Final[dict[str, Any]] = {
    "slurm": slurm_scheduler,
    "kubernetes": kubernetes_scheduler,
    "ray": ray_scheduler,
}


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A validated job that was not sent yet, and the text of the file that its scheduler reads."""

    spec: JobSpec
    text: str


def plan_job(layout: ProjectPaths, stages: Sequence[str], overrides: Sequence[str]) -> PlannedJob:
    """Return a job with its scheduler's file, after checking settings, commit and DVC remote; nothing is sent.

    Args:
        layout: the project.
        stages: stages to build.
        overrides: ``submit.KEY=VALUE`` and ``launch...`` of this job.

    Raises:
        ConfigError: for mistakes in settings.
        UsageError: for a stage that is not there, overrides that would change results, and a commit or remote that a job cannot find.
    """
    for stage in stages:
        find(stage)
    launch_overrides = _select_launch_overrides(overrides)
    resolved = checks.load_config(
        layout, override_file.merge_overrides(override_file.load_overrides(layout), overrides)
    )
    section = resolved.root.submit
    upstream = list_upstream_stages(stages)
    _check_nodes(resolved)
    source = pushed_commit.find_pushed_commit(layout.root, section.repository)
    spec = JobSpec(
        id=f"{stages[-1]}-{secrets.token_hex(4)}",
        stages=tuple(stages),
        inputs=(*stages, *source.data_files),
        fits=tuple(stage for stage in upstream if stage in launch.TRAINED),
        commit=source.commit,
        repository=source.repository,
        folder=source.folder,
        remote=dvc_remote.read_remote(layout.root, section.remote),
        overrides=tuple(launch_overrides),
        section=section,
    )
    scheduler = SCHEDULERS[section.to]
    scheduler.check(spec)
    return PlannedJob(spec, _write_file(layout, spec, scheduler))


def _select_launch_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of the build; those of the section ``submit`` are for the submission.

    Raises  UsageError for an override that would change what is built: the results would not fit the project.
    """
    result = []
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key == "submit" or key.startswith("submit."):
            continue
        if key != "launch" and not key.startswith("launch."):
            raise UsageError(
                f"{override}: a job builds the settings of its commit; only submit and launch may differ",
                hint=f"tunectl check {override}, then record it (tunectl repro {override} writes conf/overrides.yaml), commit and push",
            )
        result.append(override)
    return result


def _check_nodes(resolved: ResolvedConfig) -> None:
    root = resolved.root
    if root.submit.nodes > 1 and root.launch.root.method != "torchrun":
        raise UsageError(
            f"submit.nodes is {root.submit.nodes}, and launch is {root.launch.root.method}; a job on several machines trains with torchrun",
            hint="tunectl submit run STAGE launch=torchrun launch.nproc_per_node=CARDS",
        )


def _write_file(layout: ProjectPaths, spec: JobSpec, scheduler: Any) -> str:
    if spec.section.template is None:
        text: str = scheduler.render_job_file(spec)
        return text
    path = layout.root / spec.section.template
    try:
        content = path.read_text(encoding="utf-8")
        log = slurm_scheduler.log_path(spec) if spec.storage else ""
        return job_script.fill_template(content, spec, log)
    except OSError as error:
        raise UsageError(
            f"submit.template is {path}, which cannot be read: {error.strerror}",
            hint="name a file of this project, or null",
        ) from error
    except ValueError as error:
        raise UsageError(
            f"submit.template = {path}: {error}", hint="correct that file; docs/guides/submit.md has an example"
        ) from error


def send_job(layout: ProjectPaths, job: PlannedJob) -> JobRecord:
    """Push the job's inputs to the DVC remote, write the job's record, send it to its scheduler, and return the record.

    The record is written first, so that ``submit status`` can ask for a job whose submission was interrupted.

    Raises:
        InfrastructureError: the remote or the scheduler refuses; there is no job, and no record.
        UnconfirmedError: the scheduler may have the job; its record stays.
    """
    spec = job.spec
    scheduler = SCHEDULERS[spec.section.to]
    dvc_remote.push(layout.root, spec.remote, spec.inputs)
    folder = layout.jobs / spec.id
    atomic_io.write_text(folder / scheduler.FILE, job.text)
    record = _build_record(spec, scheduler.build_id(spec))
    job_records.save(layout.jobs, record)
    try:
        scheduler_id = scheduler.submit(spec, folder)
    except UnconfirmedError:
        raise
    except TunectlError:
        job_records.remove(layout.jobs, spec.id)
        raise
    record = replace(record, scheduler_id=scheduler_id)
    job_records.save(layout.jobs, record)
    return record


def _build_record(spec: JobSpec, scheduler_id: str) -> JobRecord:
    locations = {"kubernetes": spec.section.kubernetes.namespace, "ray": spec.section.ray.address}
    return JobRecord(
        id=spec.id,
        to=spec.section.to,
        stages=list(spec.stages),
        commit=spec.commit,
        submitted_at=datetime.now(UTC).isoformat(timespec="seconds"),
        scheduler_id=scheduler_id,
        remote=spec.remote,
        storage=spec.storage,
        location=locations.get(spec.section.to, ""),
    )


def read_state(record: JobRecord) -> str:
    """Ask the scheduler for the job's state: pending, running, finished, failed, canceled or lost; return it.

    Raises  InfrastructureError where the scheduler cannot be asked.
    """
    state: str = SCHEDULERS[record.to].read_state(record)
    return state


def read_reason(record: JobRecord, state: str) -> str:
    """Return why the scheduler keeps a pending job waiting; empty where it gives no reason."""
    return slurm_scheduler.read_reason(record) if record.to == "slurm" and state == "pending" else ""


def observe_job(layout: ProjectPaths, record: JobRecord, now: datetime) -> JobProgress:
    """Ask the scheduler for the job's state, record it with the time ``now``, and return the progress of the job.

    Raises  InfrastructureError where the scheduler cannot be asked.
    """
    state = read_state(record)
    return job_records.record_state(layout.jobs, record.id, state, read_reason(record, state), now)


def build_log_command(record: JobRecord, *, follow: bool) -> list[str]:
    """Return the command line that prints the job's output; with ``follow`` until the job ends.

    Raises  InfrastructureError where its program is not installed, or nothing was printed yet.
    """
    command: list[str] = SCHEDULERS[record.to].build_log_command(record, follow=follow)
    return command


def cancel_job(layout: ProjectPaths, record: JobRecord) -> None:
    """Cancel the job at its scheduler, and record that; its checkpoints stay in its folder.

    Raises  InfrastructureError where the scheduler cannot be asked.
    """
    SCHEDULERS[record.to].cancel(record)
    job_records.record_cancel(layout.jobs, record.id, datetime.now(UTC))


def fetch_results(layout: ProjectPaths, record: JobRecord) -> None:
    """Fetch the job's results into DVC's cache and the project, and record them as a run; no stage runs here.

    Raises:
        UsageError: the project is not at the job's commit.
        InfrastructureError: the job has not ended, or failed; the remote does not answer; or it lacks a stage.
    """
    state = _find_state(layout, record)
    if state in {"pending", "running"}:
        raise InfrastructureError(
            f"job {record.id} is {state}, so there is nothing to fetch yet",
            hint=f"wait until it ends: tunectl submit status {record.id}",
        )
    dvc_remote.fetch_runs(layout.root, record.remote)
    if state in {"failed", "canceled"}:
        raise InfrastructureError(
            f"job {record.id} is {state}; the stages that it finished are in DVC's cache now",
            hint=f"tunectl submit logs {record.id} shows why; to run the other stages here: tunectl repro",
        )
    changed = _list_changes(layout.root, record.commit)
    if changed:
        raise UsageError(
            f"the project has changed since commit {record.commit[:12]}, which was built: {', '.join(changed[:3])}",
            hint=f"the results are in DVC's cache; git checkout {record.commit[:12]}, then fetch again",
        )
    run = _restore_results(layout, record)
    job_records.record_fetch(layout.jobs, record.id, run, datetime.now(UTC))


def _find_state(layout: ProjectPaths, record: JobRecord) -> str:
    """Return the state of the job; an end that was recorded counts where the scheduler cannot be asked any more.

    A job that failed or was canceled may have been started again since, but none that finished.
    """
    recorded = job_records.read_progress(layout.jobs, record.id).state
    if recorded == "finished":
        return recorded
    try:
        return observe_job(layout, record, datetime.now(UTC)).state
    except InfrastructureError:
        if recorded not in job_records.ENDED:
            raise
        return recorded


def _restore_results(layout: ProjectPaths, record: JobRecord) -> str:
    """Restore the stages of the job from DVC's cache and remote; return the id of the run that the ledger has of it."""
    project = checks.load_project_config(layout).root.project
    with (
        lock.file_lock(layout.repro_lock, "tunectl submit fetch"),
        run_ledger.record_run(layout, project, targets=record.stages) as end,
    ):
        end.reason = f"fetched from job {record.id} ({record.to})"
        layout.failure.unlink(missing_ok=True)
        layout.executed.unlink(missing_ok=True)
        code = dvc_repo.restore(layout.root, record.stages)
        if code:
            note: dict[str, Any] = atomic_io.read_json(layout.failure) if layout.failure.is_file() else {}
            raise InfrastructureError(
                note.get("message", "dvc repro --pull failed; its output is above"),
                hint=f"tunectl submit logs {record.id} shows what was built; to build the rest here: tunectl repro",
            )
    return end.id


def _list_changes(root: Path, commit: str) -> list[str]:
    """Return files that differ from the job's commit, except those that a build writes."""
    changed = git_worktree.list_differences(root, commit)
    return [name for name in changed if not name.startswith("artifacts/") and name not in {"dvc.lock", ".gitignore"}]
