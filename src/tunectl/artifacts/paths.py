"""Every path of a project; no other module spells one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProjectPaths:
    """Paths below a project's root; relative by default, because stages run there."""

    root: Path = Path()

    @property
    def conf(self) -> Path:
        """The Hydra tree that people edit."""
        return self.root / "conf"

    @property
    def overrides(self) -> Path:
        """The ad-hoc overrides that ``tunectl repro key=value`` records and every later run replays."""
        return self.conf / "overrides.yaml"

    @property
    def web_page_digests(self) -> Path:
        """Digests of the declared pages of the web, as ``tunectl data refresh`` last saw them change."""
        return self.conf / "web_page_digests.json"

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts that the stages write."""
        return self.root / "artifacts"

    def artifact(self, stage: str) -> Path:
        """Return the artifact folder of one stage; it is complete only once it holds a manifest."""
        return self.artifacts / stage

    def config(self, stage: str) -> Path:
        """Return the resolved configuration of one stage."""
        return self.artifacts / "config" / f"{stage}.json"

    def metrics(self, stage: str) -> Path:
        """Return the DVC metrics of one stage: numbers, seconds, code revision."""
        return self.artifacts / "metrics" / f"{stage}.json"

    def plots(self, stage: str) -> Path:
        """Return the DVC plots of one stage, a folder of CSV files."""
        return self.artifacts / "plots" / stage

    @property
    def state_dir(self) -> Path:
        """State outside DVC: work in progress, locks, caches. Never committed."""
        return self.root / ".tunectl"

    @property
    def scratch(self) -> Path:
        """Half-written artifacts."""
        return self.state_dir / "tmp"

    def work(self, stage: str, key: str) -> Path:
        """Return the trainer state that survives a kill, by the digest of inputs and configuration."""
        return self.state_dir / "work" / f"{stage}-{key}"

    @property
    def repro_lock(self) -> Path:
        """Held by ``tunectl repro`` from check to verdict."""
        return self.state_dir / "repro.lock"

    @property
    def stage_lock(self) -> Path:
        """Held by the one stage that runs."""
        return self.state_dir / "stage.lock"

    @property
    def launch(self) -> Path:
        """How trainings are launched, as ``compose`` last wrote it. Not in a stage's JSON, so that another choice reruns nothing."""
        return self.state_dir / "launch.json"

    @property
    def curate_engine(self) -> Path:
        """Where curate runs, as ``compose`` last wrote it. Not in a stage's JSON, so that another choice reruns nothing."""
        return self.state_dir / "curate_engine.json"

    @property
    def failure(self) -> Path:
        """Why the last stage failed; absent where it did not fail."""
        return self.state_dir / "failure.json"

    @property
    def executed(self) -> Path:
        """Names of the stages that ran since ``tunectl repro`` began, one per line; the others were up to date or in DVC's cache."""
        return self.state_dir / "executed"

    @property
    def up_lock(self) -> Path:
        """Held by ``tunectl up`` while it runs."""
        return self.state_dir / "up.lock"

    @property
    def up_log(self) -> Path:
        """Output of ``tunectl up`` and of all that it started; the previous log has the ending ``.previous``."""
        return self.state_dir / "up.log"

    @property
    def build_request(self) -> Path:
        """Who started the last build from the console, and why."""
        return self.state_dir / "build.json"

    @property
    def build_stop(self) -> Path:
        """Who last stopped a build from the console, and why."""
        return self.state_dir / "build_stop.json"

    @property
    def build_log(self) -> Path:
        """Output of the last build that was started from the console."""
        return self.state_dir / "build.log"

    def progress(self, stage: str) -> Path:
        """Return the progress file of the running, or the last, run of a stage: JSON lines. Safe to delete."""
        return self.state_dir / "progress" / f"{stage}.jsonl"

    @property
    def runs(self) -> Path:
        """What each ``tunectl repro`` did, one file per run, for comparison. Safe to delete."""
        return self.state_dir / "runs"

    @property
    def track(self) -> Path:
        """Builds that were not sent to a tracker yet, and the last result of ``tunectl track sync``."""
        return self.state_dir / "track"

    @property
    def jobs(self) -> Path:
        """Records and files of jobs that ``tunectl submit`` sent to a cluster."""
        return self.state_dir / "jobs"

    @property
    def sweeps(self) -> Path:
        """Trials, worktrees and logs of ``tunectl sweep``."""
        return self.state_dir / "sweeps"

    @property
    def releases(self) -> Path:
        """The release store: every packaged release, and which of them is the champion."""
        return self.state_dir / "releases"

    @property
    def remote(self) -> Path:
        """Releases that a server copied from a registry behind an address. Safe to delete while it does not run."""
        return self.state_dir / "remote"

    @property
    def retrain(self) -> Path:
        """Records, worktree and logs of ``tunectl retrain controller``."""
        return self.state_dir / "retrain"

    @property
    def gates(self) -> Path:
        """Questions and answers of the gates of retrains, with texts of live traffic; ``purge`` deletes it."""
        return self.retrain / "gate"

    @property
    def exporters(self) -> Path:
        """Environments that turn models into what an engine loads, made on first use. Safe to delete."""
        return self.state_dir / "exporters"

    @property
    def cache(self) -> Path:
        """Downloads: pages, wheels, Hub files. Safe to delete."""
        return self.state_dir / "cache"

    @property
    def monitor_lock(self) -> Path:
        """Held by the one ``tunectl monitor`` of the project; exists since that first ran."""
        return self.state_dir / "monitor" / "lock"

    @property
    def calibration(self) -> Path:
        """What ``tunectl monitor calibrate`` measured last; the monitor's metrics include it."""
        return self.state_dir / "monitor" / "calibration.json"

    @property
    def embeddings(self) -> Path:
        """Sentence encoders and what was distilled from them, made on first use. Safe to delete."""
        return self.cache / "embeddings"

    @property
    def inference_log_exports(self) -> Path:
        """What ``tunectl log export`` wrote; ``purge`` deletes it."""
        return self.cache / "inference_log"

    @property
    def pipeline(self) -> Path:
        """DVC's description of the stages."""
        return self.root / "dvc.yaml"
