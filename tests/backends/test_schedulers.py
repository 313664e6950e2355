"""The files of SLURM, Kubernetes and Ray, and what their programs answer; a real SLURM is in tests/cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from job_fixtures import NASTY, build_section, build_spec

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.schedulers import kubernetes_scheduler, ray_scheduler, scheduler_command, slurm_scheduler
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.jobs import job_records, job_script
from tunectl.jobs.job_records import JobRecord
from tunectl.pipeline import job_submission
from tunectl.pipeline.job_submission import PlannedJob

RELEASED = ("1.30", "1.34", "1.37")


def build_record(**changes: object) -> JobRecord:
    facts = {"id": "sft-0123abcd", "to": "slurm", "stages": ["sft"], "commit": "c" * 40, "scheduler_id": "7"}
    facts |= {"submitted_at": "2026-11-28T05:00:00+00:00", "remote": "store", "storage": None, "location": "default"}
    return JobRecord(**facts | changes)


def test_the_sbatch_script_asks_for_what_the_settings_say() -> None:
    section = build_section(
        storage_path="/shared",
        nodes=2,
        gpus=8,
        cpus=16,
        memory_gb=64,
        max_hours=1.51,
        grace_seconds=60,
        slurm={"options": ["--partition=gpu"]},
    )
    lines = slurm_scheduler.render_job_file(build_spec(section)).splitlines()
    assert lines[:15] == [
        "#!/bin/bash",
        "#SBATCH --job-name=tunectl-sft-0123abcd",
        '#SBATCH --output="/shared/sft-0123abcd/job.log"',
        "#SBATCH --open-mode=append",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --cpus-per-task=16",
        "#SBATCH --mem=64G",
        "#SBATCH --time=91",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@60",
        "#SBATCH --partition=gpu",
        "",
        job_script.write_script(build_spec(section)).splitlines()[0],
    ]


@pytest.mark.parametrize("text", NASTY)
def test_every_file_is_a_script_that_bash_reads(text: str) -> None:
    section = build_section(storage_path=f"/shared/{text}", setup=[f"echo {text!r} >/dev/null"])
    job = build_spec(section, repository=text, folder=text)
    for scheduler in (slurm_scheduler, ray_scheduler):
        assert subprocess.run(["bash", "-n"], input=scheduler.render_job_file(job), text=True).returncode == 0


@pytest.mark.parametrize("version", RELEASED)
@pytest.mark.parametrize("text", NASTY)
def test_kubernetes_takes_the_manifest(text: str, version: str) -> None:
    options = {"image": f"registry/{text}", "secret": "keys", "volume_claim": "claim", "namespace": "team"}
    section = build_section(
        to="kubernetes", storage_path=f"/shared/{text}", gpus=2, cpus=4, memory_gb=8, setup=[text], kubernetes=options
    )
    job = build_spec(section, repository=text, folder=text)
    manifest = yaml.safe_load(kubernetes_scheduler.render_job_file(job))
    kubernetes_validate.validate(manifest, version, strict=True)
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["bash", "-c", job_script.write_script(job)]
    assert container["image"] == f"registry/{text}"
    assert container["volumeMounts"] == [{"name": "storage", "mountPath": f"/shared/{text}"}]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "8G", "nvidia.com/gpu": "2"}
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 120)
    assert manifest["metadata"] == manifest["metadata"] | {"name": "tunectl-sft-0123abcd", "namespace": "team"}


def test_a_manifest_with_a_script_can_be_read_by_people() -> None:
    section = build_section(to="kubernetes", kubernetes={"image": "registry/image:1"})
    text = kubernetes_scheduler.render_job_file(build_spec(section))
    assert "        - |\n          set -e -o pipefail -m" in text
    assert "&id" not in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, r"kubernetes\.image is null"),
        (
            {"kubernetes": {"image": "i"}, "storage_path": "/s"},
            "volume_claim = null and submit.storage_path = /s: the claim",
        ),
        (
            {"kubernetes": {"image": "i", "volume_claim": "c"}},
            "volume_claim = c and submit.storage_path = null: the claim",
        ),
    ],
)
def test_what_kubernetes_lacks_is_named(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        kubernetes_scheduler.check(build_spec(build_section(to="kubernetes", **changes)))


def test_slurm_needs_a_shared_folder() -> None:
    with pytest.raises(UsageError, match=r"submit\.storage_path is null"):
        slurm_scheduler.check(build_spec(build_section()))


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({}, "pending"),
        ({"active": 1}, "running"),  # a cluster before 1.24, which does not count the pods that are ready
        ({"active": 1, "ready": 0, "startTime": "2026-12-03T08:00:00Z", "uncountedTerminatedPods": {}}, "pending"),
        ({"active": 1, "ready": 1, "startTime": "2026-12-03T08:00:00Z", "uncountedTerminatedPods": {}}, "running"),
        ({"active": 0, "ready": 0, "failed": 1, "startTime": "2026-12-03T08:00:00Z"}, "pending"),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, "finished"),
        ({"conditions": [{"type": "FailureTarget", "status": "True"}], "active": 1}, "failed"),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, "failed"),
        ({"conditions": [{"type": "Suspended", "status": "False"}], "active": 1}, "running"),
    ],
)
def test_the_state_of_a_kubernetes_job(status: dict[str, object], state: str) -> None:
    assert kubernetes_scheduler.parse_state(json.dumps({"kind": "Job", "status": status})) == state


def test_a_kubernetes_job_that_was_deleted_is_lost() -> None:
    assert kubernetes_scheduler.parse_state("") == "lost"


@pytest.mark.parametrize(
    ("printed", "state"),
    [
        ("Status for job 'tunectl-sft-1': PENDING\nStatus message: queued\n", "pending"),
        ("Status for job 'tunectl-sft-1': RUNNING\n", "running"),
        ("Job 'tunectl-sft-1' succeeded\n", "finished"),
        ("Job 'tunectl-sft-1' failed\nStatus message: exit code 5\n", "failed"),
        ("Job 'tunectl-sft-1' was stopped\n", "canceled"),
        ("2026-12-03 13:08:18,684\tWARN cli.py:85 -- Job 'tunectl-sft-1' was stopped\n", "canceled"),
        ("Status message: it failed while PENDING\nJob 'tunectl-sft-1' failed\n", "failed"),
        ("", "lost"),
    ],
)
def test_the_state_of_a_ray_job(printed: str, state: str) -> None:
    assert ray_scheduler.parse_state(printed) == state


@pytest.mark.parametrize(
    ("scheduler", "program", "install"),
    [
        (slurm_scheduler, "sbatch", "slurm-client"),
        (kubernetes_scheduler, "kubectl", "kubernetes.io"),
        (ray_scheduler, "ray", "ray[default]"),
    ],
)
def test_a_program_that_is_not_here_is_named_with_what_to_install(
    scheduler: object, program: str, install: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    job = build_spec(build_section(storage_path=str(tmp_path)))
    record = build_record(storage=str(tmp_path))
    for call in (
        lambda: scheduler.submit(job, tmp_path),
        lambda: scheduler.read_state(record),
        lambda: scheduler.cancel(record),
    ):
        with pytest.raises(InfrastructureError, match=f"{program} is not on this machine") as caught:
            call()
        assert install in caught.value.hint


def test_a_folder_that_slurm_cannot_write_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "file").write_text("")
    job = build_spec(build_section(storage_path=str(tmp_path / "file")))
    with pytest.raises(InfrastructureError, match=r"cannot make .*/file/sft-0123abcd: Not a directory"):
        slurm_scheduler.submit(job, tmp_path)


def test_a_scheduler_that_refuses_is_quoted() -> None:
    words = [sys.executable, "-c", "import sys; sys.exit('Invalid account or account/partition combination')"]
    with pytest.raises(InfrastructureError, match="Invalid account or account/partition combination"):
        scheduler_command.call(words)


def install_program(folder: Path, name: str, script: str) -> None:
    """Write a program of a scheduler that notes its arguments in ``NAME.calls``, then runs ``script``."""
    (folder / name).write_text(f"#!/bin/sh\necho \"$@\" >>'{folder}/{name}.calls'\n{script}\n")
    (folder / name).chmod(0o755)


def read_calls(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.calls"
    return path.read_text().splitlines() if path.is_file() else []


@pytest.mark.parametrize(
    ("script", "state"),
    [
        ("echo \"Job 'tunectl-sft-1' was stopped\" >&2", "canceled"),
        ('echo "RuntimeError: Request failed with status code 404: Job 7 does not exist." >&2; exit 1', "lost"),
        ('echo "RuntimeError: Request failed with status code 500: no." >&2; exit 1', None),
    ],
)
def test_ray_is_understood_on_both_streams_and_where_it_forgot_a_job(
    script: str, state: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_program(tmp_path, "ray", script)
    monkeypatch.setenv("PATH", str(tmp_path))
    record = build_record(to="ray", location="http://127.0.0.1:8265")
    if state is not None:
        assert ray_scheduler.read_state(record) == state
        return
    with pytest.raises(InfrastructureError, match="status code 500"):
        ray_scheduler.read_state(record)


def test_what_a_job_noted_outlives_the_memory_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without squeue
    for note, state in (("finished 0", "finished"), ("finished 3", "finished"), ("failed 5", "failed")):
        (tmp_path / "state").write_text(note + "\n")
        assert slurm_scheduler.read_state(build_record(storage=str(tmp_path))) == state
    (tmp_path / "state").write_text("")  # a disk that was full
    assert slurm_scheduler.read_note(build_record(storage=str(tmp_path))) is None


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("slurm_load_jobs error: Invalid job id specified", "lost"),
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", None),
    ],
)
def test_a_job_is_lost_where_slurm_says_so_and_not_where_it_is_away(
    said: str, state: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "squeue"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if state is not None:
        assert slurm_scheduler.read_state(build_record()) == state
        return
    with pytest.raises(InfrastructureError, match="Unable to contact slurm controller"):
        slurm_scheduler.read_state(build_record())


@pytest.mark.parametrize(
    ("note", "said", "state"),
    [
        ("failed 143", "PENDING", "pending"),  # preempted while it cloned or sent its results
        ("failed 143", "RUNNING", "running"),
        ("failed 143", "CANCELLED", "canceled"),
        ("failed 5", "FAILED", "failed"),
        ("failed 5", "COMPLETED", "failed"),  # a template that ends well all the same
        ("failed 5", "", "failed"),
        ("stopped", "", "canceled"),
        ("running", "", "lost"),
        ("finished 0", "PENDING", "finished"),
    ],
)
def test_a_job_that_noted_a_failure_may_wait_in_the_queue_again(
    note: str, said: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text(note + "\n")
    install_program(tmp_path, "sbatch", "")
    install_program(tmp_path, "squeue", f"echo '{said}'")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_scheduler.read_state(build_record(storage=str(tmp_path))) == state


@pytest.mark.parametrize(
    ("printed", "scheduler_id", "selection", "canceled"),
    [
        ("123", "123", "--jobs=123", "123"),
        ("123;gpu", "123;gpu", "--clusters=gpu --jobs=123", "--clusters=gpu 123"),
    ],
)
def test_a_job_is_asked_and_canceled_on_the_cluster_that_took_it(
    printed: str, scheduler_id: str, selection: str, canceled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_program(tmp_path, "sbatch", f"echo '{printed}'")
    install_program(tmp_path, "squeue", "echo 'CLUSTER: gpu'; echo RUNNING")
    install_program(tmp_path, "scancel", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    job = build_spec(build_section(storage_path=str(tmp_path)))
    assert slurm_scheduler.submit(job, tmp_path) == scheduler_id
    record = build_record(scheduler_id=scheduler_id)
    assert slurm_scheduler.read_state(record) == "running"
    assert read_calls(tmp_path, "squeue") == [f"--noheader --states=all --format=%T {selection}"]
    slurm_scheduler.cancel(record)
    assert read_calls(tmp_path, "scancel") == [canceled]


def plan(storage: Path, scheduler: str, **changes: object) -> PlannedJob:
    spec = build_spec(build_section(to=scheduler, storage_path=str(storage), **changes))
    return PlannedJob(spec, "#!/bin/bash\n")


@pytest.mark.parametrize(
    ("scheduler", "program", "options", "asked", "look"),
    [
        ("slurm", "sbatch", {}, "tunectl-sft-0123abcd", "squeue --name=tunectl-sft-0123abcd"),
        (
            "slurm",
            "sbatch",
            {"slurm": {"options": ["--clusters=gpu"]}},
            "tunectl-sft-0123abcd;gpu",
            "squeue --clusters=gpu --name=tunectl-sft-0123abcd",
        ),
        (
            "kubernetes",
            "kubectl",
            {"kubernetes": {"namespace": "team"}},
            "job.batch/tunectl-sft-0123abcd",
            "kubectl get job.batch/tunectl-sft-0123abcd --namespace=team",
        ),
        (
            "ray",
            "ray",
            {"ray": {"address": "http://me:secret@ray.example:8265"}},
            "tunectl-sft-0123abcd",
            "ray.example:8265 tunectl-sft-0123abcd",
        ),
    ],
)
def test_a_job_that_may_have_been_sent_has_a_record_by_which_it_can_be_asked(
    scheduler: str,
    program: str,
    options: dict[str, object],
    asked: str,
    look: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_program(tmp_path, program, "echo 'error: Socket timed out on send/recv operation' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(job_submission.dvc_remote, "push", lambda root, remote, inputs: None)
    layout = ProjectPaths(tmp_path / "shop")
    with pytest.raises(scheduler_command.UnconfirmedError, match="may have the job all the same") as caught:
        job_submission.send_job(layout, plan(tmp_path, scheduler, **options))
    assert look in caught.value.hint
    assert "secret" not in caught.value.hint
    (record,) = job_records.list_jobs(layout.jobs)
    assert record.scheduler_id == asked


def test_a_job_is_recorded_before_it_is_sent_and_not_where_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_submission.dvc_remote, "push", lambda root, remote, inputs: None)
    layout, seen = ProjectPaths(tmp_path / "shop"), []

    def kill(job: object, folder: Path) -> str:
        seen.extend(job_records.list_jobs(layout.jobs))
        raise KeyboardInterrupt

    def refuse(job: object, folder: Path) -> str:
        raise InfrastructureError("Invalid account")

    job = plan(tmp_path, "slurm")
    for submit, error in ((kill, KeyboardInterrupt), (refuse, InfrastructureError)):
        monkeypatch.setattr(slurm_scheduler, "submit", submit)
        with pytest.raises(error):
            job_submission.send_job(layout, job)
        assert bool(job_records.list_jobs(layout.jobs)) == (submit is kill)
    assert [record.scheduler_id for record in seen] == ["tunectl-sft-0123abcd"]
    monkeypatch.setattr(slurm_scheduler, "submit", lambda job, folder: "7;gpu")
    record = job_submission.send_job(layout, job)
    assert record.scheduler_id == "7;gpu"
    assert job_records.list_jobs(layout.jobs) == [record]


def test_a_submission_that_slurm_did_not_confirm_is_asked_and_canceled_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_program(tmp_path, "sbatch", "")
    install_program(tmp_path, "squeue", "echo PENDING")
    install_program(tmp_path, "scancel", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    record = build_record(scheduler_id="tunectl-sft-0123abcd;gpu")
    assert slurm_scheduler.read_state(record) == "pending"
    slurm_scheduler.cancel(record)
    (call,) = read_calls(tmp_path, "squeue")
    assert call.endswith(" --clusters=gpu --name=tunectl-sft-0123abcd")
    assert read_calls(tmp_path, "scancel") == ["--clusters=gpu --name=tunectl-sft-0123abcd"]


def test_ray_gets_the_script_and_nothing_else_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'while [ "$1" != --working-dir ]; do shift; done\necho "$2"/* >>"$0.files"'
    install_program(tmp_path, "ray", script)
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "job"
    folder.mkdir()
    for name in (ray_scheduler.FILE, job_records.NAME):
        (folder / name).write_text("")
    assert ray_scheduler.submit(build_spec(build_section(to="ray")), folder) == "tunectl-sft-0123abcd"
    assert Path((tmp_path / "ray.files").read_text().strip()).name == ray_scheduler.FILE


def test_a_program_that_does_not_answer_is_not_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_command, "TIMEOUT_SECONDS", 0.2)
    words = [sys.executable, "-c", "import time; time.sleep(30)"]
    with pytest.raises(scheduler_command.UnconfirmedError, match="did not answer within") as caught:
        scheduler_command.send_job(words, check_command="squeue --name=tunectl-sft-1")
    assert "squeue --name=tunectl-sft-1" in caught.value.hint


@pytest.mark.parametrize(
    "ending",
    [
        "echo 'error: Post \"https://cluster:6443/apis\": EOF' >&2; exit 1",
        "echo 'Error from server: context deadline exceeded' >&2; exit 1",
        "echo 'read tcp: connection reset by peer' >&2; exit 1",
        "kill -9 $$",
    ],
)
def test_a_program_that_lost_its_cluster_or_was_killed_may_have_sent_the_job(ending: str) -> None:
    with pytest.raises(scheduler_command.UnconfirmedError, match="may have the job all the same"):
        scheduler_command.send_job(["sh", "-c", ending], check_command="squeue")


def test_of_a_traceback_the_last_line_is_reported(tmp_path):
    program = tmp_path / "kubectl"
    program.write_text(
        "#!/bin/sh\nprintf 'Traceback (most recent call last):\\n  File x\\nConnectionError: no one is there\\n' >&2\nexit 3\n"
    )
    program.chmod(0o755)
    with pytest.raises(InfrastructureError) as caught:
        scheduler_command.call([str(program), "get"])
    assert caught.value.message == f"{program} get failed: ConnectionError: no one is there"


def test_a_program_that_says_nothing_is_reported_by_its_code(tmp_path):
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(InfrastructureError) as caught:
        scheduler_command.call([str(program), "get"])
    assert caught.value.message == f"{program} get failed: exit code 3"
