"""The screen of jobs on clusters: what was last recorded, with its age; no cluster is asked, and nothing is written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from console_projects import Console, PageFacts, digest_project, initialize
from console_records import NOW, add_jobs, add_runs

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.schedulers import scheduler_command
from tunectl.backends.system import terminal
from tunectl.cli.main import main
from tunectl.core.errors import InfrastructureError
from tunectl.jobs import job_records
from tunectl.pipeline import job_submission, run_ledger


@pytest.fixture
def layout(tmp_path: Path) -> ProjectPaths:
    layout = initialize(tmp_path / "shop")
    add_jobs(layout.root, add_runs(layout.root)[0])
    return layout


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object, **more: object) -> None:
        raise AssertionError(f"a cluster was asked: {words}")

    monkeypatch.setattr(scheduler_command, "call", refuse)
    monkeypatch.setattr(scheduler_command, "require_program", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


def test_each_job_has_its_last_state_with_its_age_and_what_to_type(layout: ProjectPaths, no_cluster: None) -> None:
    console, before = Console(layout), digest_project(layout.root)
    page = console.client.get("/jobs").text
    found = console.client.get("/jobs.json").json()
    assert [job["state"] for job in found["jobs"]] == ["unknown", "pending", "finished"]
    assert "seen 2 h ago (27 Nov 2026, 20:00 UTC)" in page
    assert "its cluster was not asked since it was sent" in page
    assert {job["id"]: job["commands"][0] for job in found["jobs"]} == {
        "sft-0000000c": "tunectl submit status sft-0000000c",
        "align-0000000b": "tunectl submit status align-0000000b",
        "sft-0000000a": "tunectl submit logs sft-0000000a",
    }
    assert "tunectl submit cancel align-0000000b</code>" in page
    assert "secret" not in page + str(found)
    assert digest_project(layout.root) == before


def test_a_fetched_job_leads_to_its_run_while_the_ledger_has_it(layout: ProjectPaths) -> None:
    run = run_ledger.list_runs(layout)[0]
    console, address = Console(layout), f"/runs/compare?new={run}"
    assert address in PageFacts(console.client.get("/jobs").text).links
    assert console.client.get(address).status_code == 200
    (layout.runs / f"{run}.json").unlink()
    page = console.client.get("/jobs").text
    assert address not in PageFacts(page).links
    assert "its run is not in the ledger any more" in page


def test_build_and_runs_lead_to_the_jobs_where_there_are_some(layout: ProjectPaths, tmp_path: Path) -> None:
    console = Console(layout)
    for path in ("/build", "/runs"):
        assert "/jobs" in PageFacts(console.client.get(path).text).links
        assert console.client.get(f"{path}.json").json()["jobs"] == {"finished": 1, "pending": 1, "unknown": 1}
    bare = Console(initialize(tmp_path / "bare"))
    for path in ("/build", "/runs", "/"):
        text = bare.client.get(path).text
        assert "/jobs" not in PageFacts(text).links
        assert "cluster" not in text
    assert "No job was sent to a cluster yet" in bare.client.get("/jobs").text


def test_a_damaged_record_hides_no_other_job(layout: ProjectPaths) -> None:
    (layout.jobs / "sft-0000000c" / job_records.NAME).write_text("{")
    (layout.jobs / "align-0000000b" / job_records.PROGRESS).write_text("{")
    found = Console(layout).client.get("/jobs.json").json()
    assert [job["id"] for job in found["jobs"]] == ["sft-0000000a"]
    assert found["problems"].keys() == {"job sft-0000000c", "job align-0000000b"}


def test_the_command_records_what_a_cluster_answers_and_shows_the_last_state_where_it_does_not(
    layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_state(record: job_records.JobRecord) -> str:
        if record.to == "kubernetes":
            raise InfrastructureError("the cluster does not answer", hint="try later")
        return {"slurm": "lost", "ray": "pending"}[record.to]

    monkeypatch.setattr(job_submission, "read_state", read_state)
    monkeypatch.setattr(job_submission, "read_reason", lambda record, state: "")
    monkeypatch.setattr(
        terminal, "table", lambda title, columns, rows: print(*("|".join(row) for row in rows), sep="\n")
    )
    monkeypatch.chdir(layout.root)
    assert main(["submit", "status"]) == 0
    printed = capsys.readouterr().out
    assert "align-0000000b|align|pending (2026-11-27 20:00)|kubernetes" in printed
    assert "align-0000000b: the cluster does not answer" in printed
    assert "sft-0000000a|sft|finished (2026-11-27 22:00)|slurm" in printed, "SLURM forgets a job; its end stays"
    assert "sft-0000000c|sft|pending|ray" in printed
    assert job_records.read_progress(layout.jobs, "sft-0000000c").state == "pending"


def test_fetched_results_are_a_run_of_the_ledger(layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_submission.dvc_remote, "fetch_runs", lambda root, remote: None)
    monkeypatch.setattr(job_submission, "_list_changes", lambda root, commit: [])
    monkeypatch.setattr(job_submission.dvc_repo, "restore", lambda root, stages: 0)
    before = set(run_ledger.list_runs(layout))
    job_submission.fetch_results(layout, job_records.read_job(layout.jobs, "sft-0000000a"))
    (added,) = set(run_ledger.list_runs(layout)) - before
    assert run_ledger.read_run(layout, added).reason == "fetched from job sft-0000000a (slurm)"
    assert job_records.read_progress(layout.jobs, "sft-0000000a").run == added
    assert "fetched from job sft-0000000a (slurm)" in Console(layout).client.get("/runs").text


def test_a_cancel_is_recorded(layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    canceled = []
    monkeypatch.setattr(job_submission.SCHEDULERS["ray"], "cancel", lambda record: canceled.append(record.id))
    job_submission.cancel_job(layout, job_records.read_job(layout.jobs, "sft-0000000c"))
    assert canceled == ["sft-0000000c"]
    assert "was accepted on" in Console(layout).client.get("/jobs").text


@pytest.mark.parametrize("end", ["finished", "failed", "canceled"])
def test_an_end_that_was_recorded_is_fetched_where_the_cluster_is_gone(
    layout: ProjectPaths, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(record: job_records.JobRecord) -> str:
        raise InfrastructureError("the cluster does not answer")

    remotes: list[str] = []
    monkeypatch.setattr(job_submission, "read_state", refuse)
    monkeypatch.setattr(job_submission.dvc_remote, "fetch_runs", lambda root, remote: remotes.append(remote))
    monkeypatch.setattr(job_submission, "_list_changes", lambda root, commit: [])
    monkeypatch.setattr(job_submission.dvc_repo, "restore", lambda root, stages: 0)
    record = job_records.read_job(layout.jobs, "sft-0000000c")
    with pytest.raises(InfrastructureError, match="the cluster does not answer"):
        job_submission.fetch_results(layout, record)
    job_records.record_state(layout.jobs, record.id, end, "", NOW)
    if end == "finished":
        job_submission.fetch_results(layout, record)
        assert job_records.read_progress(layout.jobs, record.id).fetched_at is not None
    else:
        with pytest.raises(InfrastructureError, match=f"is {end}; the stages that it finished are in DVC's cache now"):
            job_submission.fetch_results(layout, record)
    assert remotes == ["store"]


def test_a_job_that_was_started_again_after_a_failure_is_asked_for(
    layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_submission, "read_state", lambda record: "running")
    record = job_records.read_job(layout.jobs, "sft-0000000c")
    job_records.record_state(layout.jobs, record.id, "failed", "", NOW)
    with pytest.raises(InfrastructureError, match="is running, so there is nothing to fetch yet"):
        job_submission.fetch_results(layout, record)
