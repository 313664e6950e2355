"""Paths of the retrain controller below a project's ``.tunectl``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunectl.artifacts import private_files
from tunectl.artifacts.paths import ProjectPaths
from tunectl.retraining import golden_set
from tunectl.retraining.state_machine import RetrainRun

BRANCH = "tunectl/retrain/"


@dataclass(frozen=True, slots=True)
class RetrainWorkspace:
    """Paths of the records, the worktree and the scratch files of retrain runs."""

    layout: ProjectPaths

    @property
    def store_dir(self) -> Path:
        """Folder with the records of all runs."""
        return self.layout.retrain

    @property
    def worktree(self) -> Path:
        """Folder of the Git worktree that a run trains in; one at a time."""
        return self.store_dir / "worktree"

    def close_to_others(self, registry: Path) -> None:
        """Restrict the folders with people's texts to their owner; other files, such as the token for Alertmanager, are left as they are.

        ``registry``: folder of the release registry, which has the golden sets.
        """
        folders = (self.layout.gates, registry / golden_set.FOLDER, self.store_dir / "windows", self.store_dir / "logs")
        for folder in folders:
            private_files.make_folder(folder)
        private_files.restrict(self.worktree, private_files.FOLDER)

    @property
    def secret(self) -> Path:
        """File of the key that signs links."""
        return self.store_dir / "secret"

    def log_path(self, run: RetrainRun) -> Path:
        """Return the log file of a run's processes."""
        return self.store_dir / "logs" / f"{run.id}.log"

    def window_path(self, run: RetrainRun) -> Path:
        """Return the file that becomes a run's ``inference_log/window.json`` when it is committed."""
        return self.store_dir / "windows" / f"{run.id}.json"

    def scratch_dir(self, run: RetrainRun) -> Path:
        """Return the folder with prompts and answers of the gate."""
        return self.layout.gates / run.id

    @property
    def mark(self) -> str:
        """Value of an environment variable of every process that a run starts, by which left-over ones are found."""
        return str(self.store_dir.absolute())

    @staticmethod
    def branch(run: RetrainRun) -> str:
        """Return the name of the Git branch of a run's commits."""
        return BRANCH + run.id
