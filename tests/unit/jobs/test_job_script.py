"""The script of a job in a real bash: what it calls, in which order, and that no text of a setting is ever a command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from job_fixtures import NASTY, build_section, build_spec, install_programs, read_notes
from pydantic import ValidationError

from tunectl.artifacts.paths import ProjectPaths
from tunectl.jobs import job_script
from tunectl.jobs.job_spec import JobSpec


class Machine:
    """A folder with programs that note what they are called with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, folder / "notes"
        self.programs = install_programs(folder / "bin")
        (folder / "work").mkdir()

    def start(self, job: JobSpec, codes: dict[str, int] | None = None, **more: str) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "NOTES": str(self.notes),
            "CODES": json.dumps(codes or {}),
            "SLURM_JOB_ID": "77",
            **more,
        }
        words = ["bash", "-c", job_script.write_script(job)]
        return subprocess.Popen(words, cwd=self.folder / "work", env=environment)

    def run(self, job: JobSpec, codes: dict[str, int] | None = None) -> list[list[str]]:
        self.code = self.start(job, codes).wait(timeout=60)
        return read_notes(self.notes)

    def state(self, job: JobSpec) -> str:
        return Path(str(job.storage), job_script.STATE).read_text().strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def shared(tmp_path: Path, name: str = "shared", **changes: object) -> JobSpec:
    return build_spec(build_section(storage_path=str(tmp_path / name), **changes))


def test_a_job_clones_brings_builds_and_sends(machine: Machine, tmp_path: Path) -> None:
    job = shared(tmp_path)
    calls = machine.run(job)
    clone = f"{job.storage}/clone"
    assert machine.code == 0
    assert calls == [
        ["git", "clone", "--quiet", "--no-checkout", "--", "/srv/shop.git", clone],
        ["git", "-C", clone, "checkout", "--quiet", "--detach", "c" * 40],
        [
            "tunectl",
            "dvc",
            "pull",
            "--quiet",
            "--run-cache",
            "--allow-missing",
            "--with-deps",
            "--remote",
            "store",
            "--",
            "sft",
        ],
        ["tunectl", "repro", "--unattended", "--to", "sft"],
    ]
    assert machine.state(job) == "finished 0"


def test_no_line_of_the_script_calls_dvc_without_its_checks() -> None:
    """Whoever may write to the remote could otherwise write any file of the job's account: backends/vcs/guarded_dvc.py."""
    for section in (build_section(storage_path="/shared"), build_section(storage_path="/shared", nodes=2)):
        script = job_script.write_script(build_spec(section))
        assert len(re.findall(r"tunectl dvc (pull|add|push) ", script)) == 3
        assert not re.findall(r"^\s*(?:exec )?dvc\b", script, re.MULTILINE)


def test_metrics_are_sent_beside_the_cache_of_runs(machine: Machine, tmp_path: Path) -> None:
    job = shared(tmp_path)
    metrics = Path(str(job.storage), "project", "artifacts", "metrics")
    metrics.mkdir(parents=True)
    (metrics / "sft.json").write_text("{}")
    calls = machine.run(job)
    assert calls[-2:] == [
        ["tunectl", "dvc", "add", "--quiet", "tunectl-job"],
        [
            "tunectl",
            "dvc",
            "push",
            "--quiet",
            "--run-cache",
            "--with-deps",
            "--remote",
            "store",
            "--",
            "sft",
            "tunectl-job.dvc",
        ],
    ]
    assert (metrics.parents[1] / "tunectl-job" / "sft.json").is_file()


def test_a_job_that_starts_again_does_not_clone_again(machine: Machine, tmp_path: Path) -> None:
    job = shared(tmp_path)
    machine.run(job)
    calls = machine.run(job)
    assert [call[:2] for call in calls if call[0] == "git"] == [["git", "clone"], ["git", "-C"]]


def test_a_clone_that_was_cut_off_is_made_again(machine: Machine, tmp_path: Path) -> None:
    job = shared(tmp_path)
    machine.run(job, {"git -C": 128})
    assert (machine.code, machine.state(job)) == (128, "failed 128")
    machine.run(job)
    assert (machine.code, machine.state(job)) == (0, "finished 0")


@pytest.mark.parametrize("text", NASTY)
def test_no_text_of_a_setting_runs(machine: Machine, tmp_path: Path, text: str) -> None:
    job = build_spec(
        build_section(storage_path=f"{tmp_path}/{text}", setup=["export SETUP_RAN=1"]),
        repository=text,
        folder="sub",
        inputs=("sft", f"{text}.dvc"),
        overrides=(f"launch.storage_path={text}",),
    )
    calls = machine.run(job)
    assert calls[0][4:] == ["--", text, f"{tmp_path}/{text}/sft-0123abcd/clone"]
    assert calls[2][-3:] == ["--", "sft", f"{text}.dvc"]
    assert calls[3] == ["tunectl", "repro", "--unattended", "--to", "sft", f"launch.storage_path={text}"]
    assert not list(tmp_path.rglob("pwned"))
    assert machine.code == 0


@pytest.mark.parametrize("text", NASTY)
def test_a_folder_of_the_repository_is_entered_by_its_name(machine: Machine, tmp_path: Path, text: str) -> None:
    job = shared(tmp_path)
    job = build_spec(job.section, folder=text)
    Path(str(job.storage), "project", text).mkdir(parents=True)
    calls = machine.run(job)
    assert [call[:2] for call in calls] == [["tunectl", "dvc"], ["tunectl", "repro"]]
    assert not list(tmp_path.rglob("pwned"))


def test_several_machines_meet_and_the_others_join_each_fit(tmp_path: Path) -> None:
    job = build_spec(build_section(storage_path="/sh ared/it's", nodes=3), overrides=("launch=torchrun",))
    text = job_script.write_script(job)
    assert "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --exclude=" in text
    with_cores = job_script.write_script(build_spec(build_section(storage_path="/shared", nodes=3, cpus=4)))
    assert "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=4 --exclude=" in with_cores
    assert "TUNECTL_FITS='cpt sft'" in text
    assert ProjectPaths(Path()).launch == Path(job_script.LAUNCH)
    assert text.index("rm -f -- .tunectl/launch.json") < text.index("until [ -s .tunectl/launch.json ]")
    (line,) = [line for line in text.splitlines() if line.startswith("tunectl repro")]
    done = subprocess.run(
        ["bash", "-c", 'tunectl() { printf "%s\\n" "$@"; }\n' + line.removesuffix("&") + "\nwait"],
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.splitlines()
    assert words[:5] == ["repro", "--unattended", "--to", "sft", "launch=torchrun"]
    assert words[5] == "launch.nnodes=3"
    assert words[6].startswith("launch.rdzv_endpoint=")
    assert words[6].endswith(":29500")
    assert words[7] == "launch.storage_path='/sh ared/it\\'s/sft-0123abcd/launch'"
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_a_build_that_fails_sends_its_finished_stages_and_says_its_code(machine: Machine, tmp_path: Path) -> None:
    job = shared(tmp_path)
    metrics = Path(str(job.storage), "project", "artifacts", "metrics")
    metrics.mkdir(parents=True)
    (metrics / "split.json").write_text("{}")
    calls = machine.run(job, {"tunectl repro": 5})
    assert (machine.code, machine.state(job)) == (5, "failed 5")
    assert calls[-1][:3] == ["tunectl", "dvc", "push"]


def test_a_gate_that_says_no_is_a_result(machine: Machine, tmp_path: Path) -> None:
    job = shared(tmp_path)
    machine.run(job, {"tunectl repro": 3})
    assert (machine.code, machine.state(job)) == (0, "finished 3")


def test_a_remote_that_does_not_answer_ends_the_job_before_the_build(machine: Machine, tmp_path: Path) -> None:
    job = shared(tmp_path)
    calls = machine.run(job, {"tunectl dvc pull": 255})
    assert (machine.code, machine.state(job)) == (255, "failed 255")
    assert calls[-1][:3] == ["tunectl", "dvc", "pull"]


def test_results_that_cannot_be_sent_are_a_failure(machine: Machine, tmp_path: Path) -> None:
    job = shared(tmp_path)
    metrics = Path(str(job.storage), "project", "artifacts", "metrics")
    metrics.mkdir(parents=True)
    (metrics / "sft.json").write_text("{}")
    machine.run(job, {"tunectl dvc push": 255})
    assert (machine.code, machine.state(job)) == (255, "failed 255")


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ({"tunectl dvc pull": 1}, 5),
        ({"tunectl dvc push": 1}, 5),
        ({"tunectl dvc add": 4}, 5),
        ({"git clone": 128}, 128),
        ({"tunectl repro": 1}, 1),
        ({"tunectl repro": 2}, 2),
    ],
)
def test_only_the_build_says_that_another_start_is_useless(
    machine: Machine, tmp_path: Path, codes: dict[str, int], code: int
) -> None:
    """Kubernetes gives up at the codes 1 to 4 of tunectl; a network that fails also ends DVC with 1, and passes."""
    job = shared(tmp_path)
    metrics = Path(str(job.storage), "project", "artifacts", "metrics")
    if "git clone" not in codes:
        metrics.mkdir(parents=True)
        (metrics / "sft.json").write_text("{}")
    machine.run(job, codes)
    assert (machine.code, machine.state(job)) == (code, f"failed {code}")


def interrupt(machine: Machine, job: JobSpec, number: int, **more: str) -> list[list[str]]:
    waits = machine.folder / "waits"
    process = machine.start(job, WAIT=str(waits), **more)
    end = time.monotonic() + 30
    while not waits.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    machine.code = process.wait(timeout=30)
    return read_notes(machine.notes)


def test_before_the_hours_are_over_the_build_is_interrupted_and_the_job_requeued(
    machine: Machine, tmp_path: Path
) -> None:
    job = shared(tmp_path)
    calls = interrupt(machine, job, signal.SIGUSR1)
    assert calls[-2] == ["tunectl", "repro", "--unattended", "--to", "sft", {"got": "SIGINT"}]
    assert calls[-1] == ["scontrol", "requeue", "77"]
    assert (machine.code, machine.state(job)) == (0, "requeued")


def test_a_job_is_not_requeued_for_ever(machine: Machine, tmp_path: Path) -> None:
    job = shared(tmp_path, max_restarts=2)
    calls = interrupt(machine, job, signal.SIGUSR1, SLURM_RESTART_COUNT="2")
    assert calls[-1][-1] == {"got": "SIGINT"}
    assert (machine.code, machine.state(job)) == (143, "stopped")


def test_a_job_that_is_canceled_is_not_requeued(machine: Machine, tmp_path: Path) -> None:
    job = shared(tmp_path)
    calls = interrupt(machine, job, signal.SIGTERM)
    assert calls[-1][-1] == {"got": "SIGINT"}
    assert (machine.code, machine.state(job)) == (143, "stopped")


def test_on_kubernetes_nobody_calls_slurm(machine: Machine, tmp_path: Path) -> None:
    section = build_section(to="kubernetes", storage_path=str(tmp_path / "shared"))
    assert "scontrol" not in job_script.write_script(build_spec(section))


def test_a_template_has_the_script_indented_and_its_values() -> None:
    job = build_spec(build_section(storage_path="/shared", nodes=2, gpus=4, max_hours=1.5))
    text = job_script.fill_template("name: @ID@\nnodes: @NODES@x@GPUS@ @MINUTES@\nrun: |\n    @SCRIPT@\n", job, "/l og")
    lines = text.splitlines()
    assert lines[:3] == ["name: sft-0123abcd", "nodes: 2x4 90", "run: |"]
    assert all(not line or line.startswith("    ") for line in lines[3:])
    assert "\n".join(line[4:] for line in lines[3:]) + "\n" == job_script.write_script(job)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("@SCRIPT@\n@WHO@\n", "@WHO@ is unknown"),
        ("#!/bin/bash\n", "it has no line @SCRIPT@"),
        ("x @SCRIPT@", "unknown"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        job_script.fill_template(text, build_spec(), "")


@pytest.mark.parametrize("sign", ["\n", "\r", "\x1b", "\x85", "\u2028", "\0"])
@pytest.mark.parametrize("key", ["storage_path", "repository", "setup", "template"])
def test_no_text_begins_another_line_of_a_job(key: str, sign: str) -> None:
    text = f"/a{sign}#SBATCH --uid=0"
    with pytest.raises(ValidationError, match="line break or a control code"):
        build_section(**{key: [text] if key == "setup" else text})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"nodes": 2, "to": "kubernetes"},
            "only `to: slurm` has jobs of several machines",
        ),
        ({"max_hours": 0.01}, "less than grace_seconds"),
        ({"remote": "$(x)"}, "pattern"),
        ({"storage_path": "relative"}, "'relative' is no absolute path"),
        (
            {"storage_path": "s3://bucket/jobs"},
            "Checkpoints in an object store are launch.storage_path, with launch=ray",
        ),
        ({"slurm": {"options": ["partition=gpu"]}}, "pattern"),
        ({"kubernetes": {"namespace": "A b"}}, "pattern"),
        ({"ray": {"address": "here"}}, "pattern"),
    ],
)
def test_settings_that_no_cluster_takes_are_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        build_section(**changes)
