"""The paths of a project; names inside a folder belong to the module that writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProjectPaths:
    """Paths below a project's root; relative by default, because stages run there."""

    root: Path = Path()

    @property
    def conf(self) -> Path:
        """Folder of the YAML configuration (Hydra), which people edit."""
        return self.root / "conf"

    @property
    def overrides(self) -> Path:
        """File of the overrides that ``tunectl repro key=value`` recorded; every later run replays them."""
        return self.conf / "overrides.yaml"

    @property
    def web_page_digests(self) -> Path:
        """File with the digests of the declared web pages, as ``tunectl data refresh`` last saw them change."""
        return self.conf / "web_page_digests.json"

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts that the stages write."""
        return self.root / "artifacts"

    def artifact(self, stage: str) -> Path:
        """Return the artifact folder of one stage; it is complete only once it holds a manifest."""
        return self.artifacts / stage

    def config(self, stage: str) -> Path:
        """Return the JSON file with the resolved configuration of one stage."""
        return self.artifacts / "config" / f"{stage}.json"

    def metrics(self, stage: str) -> Path:
        """Return the JSON file with the DVC metrics of one stage: numbers, seconds, code revision."""
        return self.artifacts / "metrics" / f"{stage}.json"

    def plots(self, stage: str) -> Path:
        """Return the folder with the CSV files of one stage's DVC plots."""
        return self.artifacts / "plots" / stage

    @property
    def state_dir(self) -> Path:
        """Folder of the state outside DVC: work in progress, locks, caches. Never committed."""
        return self.root / ".tunectl"

    @property
    def scratch(self) -> Path:
        """Folder of artifacts that are being written."""
        return self.state_dir / "tmp"

    def work(self, stage: str, key: str) -> Path:
        """Return the folder of a stage's checkpoints, which survives a kill; ``key`` is the digest of its inputs and configuration."""
        return self.state_dir / "work" / f"{stage}-{key}"

    @property
    def repro_lock(self) -> Path:
        """Lock file that ``tunectl repro`` holds from check to verdict."""
        return self.state_dir / "repro.lock"

    @property
    def stage_lock(self) -> Path:
        """Lock file that the running stage holds."""
        return self.state_dir / "stage.lock"

    @property
    def launch(self) -> Path:
        """JSON file with the section ``launch``, as ``compose`` last wrote it. Not in a stage's JSON, so that another choice reruns nothing."""
        return self.state_dir / "launch.json"

    @property
    def curate_engine(self) -> Path:
        """JSON file with the engine of curate, as ``compose`` last wrote it. Not in a stage's JSON, so that another choice reruns nothing."""
        return self.state_dir / "curate_engine.json"

    @property
    def failure(self) -> Path:
        """JSON file with the error of the last stage; absent where it did not fail."""
        return self.state_dir / "failure.json"

    @property
    def executed(self) -> Path:
        """File with the names of the stages that ran since ``tunectl repro`` began, one per line; the others were up to date or in DVC's cache."""
        return self.state_dir / "executed"

    @property
    def up_lock(self) -> Path:
        """Lock file that ``tunectl up`` holds while it runs."""
        return self.state_dir / "up.lock"

    @property
    def up_log(self) -> Path:
        """File with the output of ``tunectl up`` and of all that it started; the previous log has the ending ``.previous``."""
        return self.state_dir / "up.log"

    @property
    def build_request(self) -> Path:
        """JSON file that says who started the last build from the console, and why."""
        return self.state_dir / "build.json"

    @property
    def build_stop(self) -> Path:
        """JSON file that says who last stopped a build from the console, and why."""
        return self.state_dir / "build_stop.json"

    @property
    def build_log(self) -> Path:
        """File with the output of the last build that was started from the console."""
        return self.state_dir / "build.log"

    @property
    def prepare_request(self) -> Path:
        """JSON file that says who last let questions for people be prepared from the console, and why."""
        return self.state_dir / "prepare.json"

    @property
    def prepare_log(self) -> Path:
        """File with the output of ``tunectl annotate prepare`` that was last started from the console."""
        return self.state_dir / "prepare.log"

    def progress(self, stage: str) -> Path:
        """Return the progress file of the running, or the last, run of a stage: JSON lines. Safe to delete."""
        return self.state_dir / "progress" / f"{stage}.jsonl"

    @property
    def runs(self) -> Path:
        """Folder of the run ledger: one JSON file per ``tunectl repro``, for comparison. Safe to delete."""
        return self.state_dir / "runs"

    @property
    def track(self) -> Path:
        """Folder of builds that were not sent to a tracker yet, and of the last result of ``tunectl track sync``."""
        return self.state_dir / "track"

    @property
    def jobs(self) -> Path:
        """Folder of the records and files of jobs that ``tunectl submit`` sent to a cluster."""
        return self.state_dir / "jobs"

    @property
    def sweeps(self) -> Path:
        """Folder of the trials, worktrees and logs of ``tunectl sweep``."""
        return self.state_dir / "sweeps"

    @property
    def releases(self) -> Path:
        """Folder of the release registry: every packaged release, and which of them is the champion."""
        return self.state_dir / "releases"

    @property
    def remote(self) -> Path:
        """Folder of releases that a server copied from a registry behind an address. Safe to delete while it does not run."""
        return self.state_dir / "remote"

    @property
    def retrain(self) -> Path:
        """Folder of the records, worktree and logs of ``tunectl retrain controller``."""
        return self.state_dir / "retrain"

    @property
    def gates(self) -> Path:
        """Folder of the prompts and answers of promotion gates, with texts of live traffic; ``purge`` deletes it."""
        return self.retrain / "gate"

    @property
    def exporters(self) -> Path:
        """Folder of the Python environments that export models to an engine's format, made on first use. Safe to delete."""
        return self.state_dir / "exporters"

    @property
    def cache(self) -> Path:
        """Folder of downloads: pages, wheels, Hub files. Safe to delete."""
        return self.state_dir / "cache"

    @property
    def monitor_lock(self) -> Path:
        """Lock file that the one ``tunectl monitor`` of the project holds; exists since that first ran."""
        return self.state_dir / "monitor" / "lock"

    @property
    def monitor_newest_champion(self) -> Path:
        """JSON file with the newest signed champion pointer that the monitor has seen; without it, it would follow older ones."""
        return self.state_dir / "monitor" / "newest_champion.json"

    @property
    def calibration(self) -> Path:
        """JSON file with the result of the last ``tunectl monitor calibrate``; the monitor exports it as metrics."""
        return self.state_dir / "monitor" / "calibration.json"

    @property
    def embeddings(self) -> Path:
        """Folder of sentence encoders and the tables distilled from them, made on first use. Safe to delete."""
        return self.cache / "embeddings"

    @property
    def inference_log_exports(self) -> Path:
        """Folder of the files that ``tunectl log export`` wrote; ``purge`` deletes it."""
        return self.cache / "inference_log"

    @property
    def snapshots(self) -> Path:
        """Folder of the frozen windows of the inference log where ``feedback`` is switched off, and so names no folder."""
        return self.state_dir / "inference_log" / "snapshots"

    @property
    def pipeline(self) -> Path:
        """File ``dvc.yaml``, in which DVC's stages are declared."""
        return self.root / "dvc.yaml"

    @property
    def dvc_lock(self) -> Path:
        """File ``dvc.lock``, in which DVC records the inputs and outputs of each stage; absent before the first build."""
        return self.root / "dvc.lock"
