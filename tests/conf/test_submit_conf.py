"""What ``tunectl submit run`` refuses before anything is sent, and the job that it writes for several machines."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conf_copy import copy_conf

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.main import main
from tunectl.core.errors import ConfigError, UsageError
from tunectl.pipeline import job_submission

SEVERAL = ("submit.nodes=2", "submit.storage_path=/shared/jobs", "submit.cpus=8")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> ProjectPaths:
    """A project whose commit is at a remote."""
    folder = tmp_path_factory.mktemp("shop")
    copy_conf(folder)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    remote = far\n['remote \"far\"']\n    url = /srv/store\n")
    subprocess.run(["git", "init", "--quiet", "--bare", str(folder / ".far")], check=True)
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["remote", "add", "origin", str(folder / ".far")],
        ["add", "conf", ".dvc"],
        ["-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "--quiet", "--message", "start"],
        ["push", "--quiet", "--set-upstream", "origin", "main"],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    return ProjectPaths(folder)


def test_a_job_of_several_machines_has_their_words(layout: ProjectPaths) -> None:
    job = job_submission.plan_job(layout, ["sft"], [*SEVERAL, "launch=torchrun", "launch.nproc_per_node=4"])
    assert "#SBATCH --nodes=2" in job.text
    assert "srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=8" in job.text
    assert "tunectl repro --unattended --to sft launch=torchrun launch.nproc_per_node=4 launch.nnodes=2" in job.text
    assert job.spec.fits == ("cpt", "sft")


@pytest.mark.parametrize("method", ["local", "ray"])
def test_several_machines_need_torchrun(layout: ProjectPaths, method: str) -> None:
    with pytest.raises(UsageError) as error:
        job_submission.plan_job(layout, ["sft"], [*SEVERAL, f"launch={method}"])
    assert (
        error.value.message
        == f"submit.nodes is 2, and launch is {method}; a job on several machines trains with torchrun"
    )
    assert "launch=torchrun" in error.value.hint


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            (*SEVERAL, "launch=torchrun", "submit.to=kubernetes"),
            "nodes is 2, but only `to: slurm` has jobs of several machines (now `to: kubernetes`)",
        ),
        (
            (*SEVERAL, "launch=torchrun", "submit.to=ray"),
            "nodes is 2, but only `to: slurm` has jobs of several machines (now `to: ray`); set that, or set nodes to 1",
        ),
        (("submit.storage_path=s3://bucket/jobs",), "Checkpoints in an object store are launch.storage_path"),
        (("launch=torchrun", "launch.storage_path=s3://bucket/fits"), "torchrun needs a folder that all machines see"),
    ],
)
def test_where_it_cannot_work_it_is_refused(layout: ProjectPaths, words: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        job_submission.plan_job(layout, ["sft"], words)
    assert any(reason in problem for problem in error.value.problems), error.value.problems


def test_a_job_builds_the_settings_of_its_commit(layout: ProjectPaths) -> None:
    with pytest.raises(UsageError, match=r"sft.lora_rank=4: a job builds the settings of its commit"):
        job_submission.plan_job(layout, ["sft"], ["sft.lora_rank=4"])


def test_checkpoints_of_a_fit_on_ray_may_lie_in_a_bucket(layout: ProjectPaths) -> None:
    words = ("submit.to=ray", "launch=ray", "launch.address=auto", "launch.storage_path=s3://bucket/fits")
    assert (
        " launch=ray launch.address=auto launch.storage_path=s3://bucket/fits &"
        in job_submission.plan_job(layout, ["sft"], words).text
    )


@pytest.mark.parametrize(
    ("scheduler", "overrides", "line"),
    [
        ("slurm", ["submit.storage_path=/shared/jobs"], "#SBATCH --job-name=tunectl-sft-"),
        ("kubernetes", ["submit.kubernetes.image=registry/image:1"], "kind: Job"),
        ("ray", [], "tunectl repro --unattended --to sft"),
    ],
)
def test_a_dry_run_prints_the_file_and_changes_nothing(
    layout: ProjectPaths,
    scheduler: str,
    overrides: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not in the project, not at its remote; and no program of a scheduler is there that could be called."""
    before = read_files(layout.root)
    monkeypatch.chdir(layout.root)
    monkeypatch.setenv("PATH", keep_only("git", layout.root.parent / f"bin-{scheduler}"))
    assert main(["submit", "run", "sft", "--to", scheduler, "--dry-run", *overrides]) == 0
    printed = capsys.readouterr().out
    assert line in printed
    if scheduler == "kubernetes":
        assert yaml.safe_load(printed)["metadata"]["name"].startswith("tunectl-sft-")
    else:
        assert subprocess.run(["/bin/bash", "-n"], input=printed, text=True, check=False).returncode == 0
    assert read_files(layout.root) == before


def keep_only(program: str, folder: Path) -> str:
    """A PATH on which there is ``program`` alone."""
    folder.mkdir()
    (folder / program).symlink_to(shutil.which(program) or program)
    return str(folder)


def read_files(folder: Path) -> dict[Path, bytes]:
    """Content of all files by path, except Git's index, which a look at the tree refreshes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "index"}
