"""``tunectl submit`` on a real SLURM: a fit is interrupted and killed there, goes on to the same bytes, and comes home."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster, find_slurm

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not find_slurm(), reason="SLURM is not installed: .ci/install"),
]


class Home:
    """A project at home, pushed to a bare repository, whose settings and data a job finds."""

    def __init__(self, folder: Path, model: Path, slurm: SlurmCluster) -> None:
        self.root, self.slurm = folder / "it's 100% $(touch pwned)", slurm
        self.storage = folder / "shared jobs"
        for name in ("conf", ".dvc"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("cache", "tmp", "*.local"))
        for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
            shutil.copy(ROOT / name, self.root / name)
        rows = (ROOT / "examples/local_lens/data/new_clients.jsonl").read_text().splitlines()[:60]
        (self.root / "data").mkdir()
        (self.root / "data" / "first.jsonl").write_text("\n".join(rows) + "\n")
        self.storage.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.dvc("remote", "add", "--default", "store", str(folder / "the store"))
        settings = [
            "sft.epochs=1",
            "sft.batch_size=4",
            "sft.save_steps=1",
            "sft.evals_per_epoch=1",
            "sft.early_stopping=null",
            f"model.source.path={model}",
        ]
        self.tunectl("repro", "experiment=smoke", "data.path=data", *settings, "--unattended", "--to", "split")
        subprocess.run(["git", "init", "--quiet", "--bare", str(folder / "far.git")], check=True)
        self.git("remote", "add", "origin", "../far.git")
        self.commit("start")

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.slurm.environment,
            "PYTHONPATH": str(ROOT / "src"),
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",
        }

    def call(self, *words: str, root: Path | None = None, code: int = 0) -> str:
        done = subprocess.run(
            words,
            cwd=root or self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, done.stdout[-4000:]
        return done.stdout

    def git(self, *words: str) -> str:
        return self.call("git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", *words)

    def dvc(self, *words: str) -> str:
        return self.call(sys.executable, "-m", "dvc", *words)

    def tunectl(self, *words: str, root: Path | None = None, code: int = 0) -> str:
        return self.call(sys.executable, "-m", "tunectl", *words, root=root, code=code)

    def commit(self, message: str) -> None:
        self.git("add", ".")
        if self.git("status", "--porcelain"):
            self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", "main")

    def submit(self, *words: str) -> dict[str, str]:
        """Send a job; returns its record."""
        self.tunectl(
            "submit", "run", "sft", f"submit.storage_path='{self.storage}'", *(words or ("submit.max_hours=0.5",))
        )
        return self.status()

    def status(self) -> dict[str, str]:
        return json.loads(self.tunectl("submit", "status", "--json"))["jobs"][0]

    def wait(self, until: Callable[[], object], job: dict[str, str], seconds: float = 400) -> None:
        end = time.monotonic() + seconds
        while not until():
            log = Path(str(job["storage"])) / "job.log"
            assert time.monotonic() < end, (log.read_text() if log.is_file() else "") + str(self.status())
            time.sleep(0.1)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, slurm: SlurmCluster) -> Home:
    return Home(tmp_path_factory.mktemp("home"), tiny_model, slurm)


def read_step(job: dict[str, str], folder: str = "project/.tunectl/work") -> int:
    """The step of the newest complete checkpoint."""
    found = Path(str(job["storage"])).glob(f"{folder}/sft-*/checkpoint-*/complete.json")
    return max((int(path.parent.name.rpartition("-")[2]) for path in found), default=0)


def build_alone(home: Home, folder: Path, *words: str) -> bytes:
    """The adapter of the same build, without a break and without what the job sent."""
    alone = folder / "alone"
    home.git("clone", "--quiet", str(home.root), str(alone))
    home.tunectl("repro", "--unattended", "--to", "sft", *words, root=alone)
    return read_adapter(alone)


def read_adapter(project: Path) -> bytes:
    (path,) = (project / "artifacts/sft").rglob("adapter_model.safetensors")
    return path.read_bytes()


def test_a_fit_that_is_interrupted_and_killed_goes_on_to_the_same_bytes_and_comes_home(
    home: Home, slurm: SlurmCluster, tmp_path: Path
) -> None:
    job = home.submit()
    log, number = Path(str(job["storage"])) / "job.log", job["scheduler_id"]

    # the hours are nearly over
    home.wait(lambda: read_step(job) >= 2, job)
    slurm.call("scancel", "--signal=USR1", "--batch", number)
    home.wait(lambda: (log.parent / "state").read_text() == "requeued\n", job)
    assert "stopping after this step" in log.read_text()
    first = read_step(job)
    home.wait(lambda: home.status()["state"] == "running" and read_step(job) > first, job)

    # somebody cancels it in the middle, and takes that back
    slurm.call("scancel", number)
    home.wait(lambda: home.status()["state"] == "canceled", job)
    assert home.tunectl("submit", "fetch", job["id"], code=5).count("is canceled") == 1
    slurm.call("scontrol", "requeue", number)
    home.wait(lambda: home.status()["state"] == "finished", job)
    steps = [int(step) for step in re.findall(r"resum\w* .*?step (\d+)", log.read_text())]
    assert len(steps) == 2, log.read_text()
    assert steps[0] >= 2
    assert steps[1] > steps[0]

    home.tunectl("submit", "fetch", job["id"][:7])
    assert "Stage 'sft' didn't change, skipping" in home.dvc("repro", "sft")
    assert "Running stage" not in re.sub(
        "Running stage 'compose'", "", home.tunectl("repro", "--unattended", "--to", "sft")
    )

    assert read_adapter(home.root) == build_alone(home, tmp_path)
    assert not [path for path in (home.root, home.storage, tmp_path) if list(path.rglob("pwned"))]


def test_a_job_that_cannot_start_says_why_and_is_canceled(home: Home) -> None:
    home.commit("what another test built")
    job = home.submit("submit.max_hours=3")
    home.wait(lambda: home.status()["reason"], job)
    assert (home.status()["state"], home.status()["reason"]) == ("pending", "PartitionTimeLimit")
    assert f"{job['id']} waits: PartitionTimeLimit" in home.tunectl("submit", "status")
    assert home.tunectl("submit", "cancel", job["id"]) == f"{job['id']}: canceled\n"
    assert home.status()["state"] == "canceled"


@pytest.mark.timeout(1800)
def test_a_job_on_two_nodes_is_interrupted_and_has_the_bytes_of_two_processes_on_one(
    home: Home, slurm: SlurmCluster, tmp_path: Path
) -> None:
    home.tunectl(
        "repro", "sft.learning_rate=0.002", "--unattended", "--to", "split"
    )  # what was built is not found again
    home.commit("another rate")
    job = home.submit("submit.max_hours=0.5", "submit.nodes=2", "launch=torchrun", "launch.nproc_per_node=1")
    log = Path(str(job["storage"])) / "job.log"
    home.wait(lambda: read_step(job, "launch") >= 2, job, seconds=900)
    slurm.call("scancel", "--signal=USR1", "--batch", job["scheduler_id"])
    home.wait(lambda: (log.parent / "state").read_text() == "requeued\n", job)
    home.wait(lambda: home.status()["state"] in {"finished", "failed"}, job, seconds=900)
    assert home.status()["state"] == "finished", log.read_text()[-4000:]
    assert re.search(r"resum\w* .*?step [2-9]", log.read_text())
    home.tunectl("submit", "fetch", job["id"])
    record = json.loads((home.root / "artifacts/metrics/sft.json").read_text())["launch"]
    assert (record["method"], record["ranks"], record["nodes"]) == ("torchrun", 2, 2)
    assert read_adapter(home.root) == build_alone(home, tmp_path, "launch=torchrun", "launch.nproc_per_node=2")
