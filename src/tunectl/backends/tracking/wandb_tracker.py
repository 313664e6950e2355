"""Wrapper of W&B: a build is a group of runs, one for itself and one for each stage that ran. WANDB_MODE=offline keeps them on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunectl.config.schema.track import Track
from tunectl.core.errors import InfrastructureError
from tunectl.core.optional import import_optional
from tunectl.tracking import spool
from tunectl.tracking.build_record import StageRecord

SUCCESS = (0, 3)
"""Exit codes of a completed build; 3: a gate failed, which is a result."""


class WandbTracker:
    """Sends builds to one W&B project; account, host and mode come from W&B's own environment variables."""

    def __init__(self, settings: Track, folder: Path) -> None:
        self._wandb = import_optional("wandb", extra="wandb")
        self._settings = settings
        self._folder = folder

    def send(self, folder: Path) -> str:
        """Send the build in the spool folder ``folder``; a build that was sent before keeps its run ids, so it is not duplicated.

        Returns  the address of its page; empty offline.

        Raises  InfrastructureError with W&B's error message.
        """
        record = spool.load(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            config = {**record.params, **{f"digest.{name}": digest for name, digest in record.digests.items()}}
            with self._open(record.id, record.id, "build", {**config, **record.tags}) as run:
                run.summary.update(record.metrics)
                address = str(run.url or "")
                for file in sorted((folder / spool.FILES).rglob("*")):
                    if file.is_file():
                        run.save(str(file), base_path=str(folder / spool.FILES), policy="now")
                run.finish(exit_code=0 if record.exit_code in SUCCESS else record.exit_code)
            for stage in record.stages:
                with self._open(f"{record.id}-{stage.name}", record.id, stage.name, {}) as run:
                    for step, values in _by_step(stage):
                        run.log(values, step=step)
                    run.summary.update(stage.metrics)
        except (self._wandb.Error, OSError) as error:
            raise InfrastructureError(
                f"sending to W&B failed: {' '.join(str(error).split())[:300]}",
                hint="check the login (wandb login, or WANDB_API_KEY) and the network, then send again: tunectl track sync",
            ) from error
        return address

    def _open(self, name: str, group: str, kind: str, config: dict[str, str]) -> Any:
        return self._wandb.init(
            project=self._settings.experiment.strip("/").replace("/", "-"),
            id=name,
            name=name,
            group=group,
            job_type=kind,
            config=config,
            dir=str(self._folder),
            resume="allow",
            settings=self._wandb.Settings(init_timeout=self._settings.timeout_seconds, console="off", silent=True),
        )


def _by_step(stage: StageRecord) -> list[tuple[int, dict[str, float]]]:
    """Return the points of all curves of a stage, one dictionary per step, in order."""
    steps: dict[int, dict[str, float]] = {}
    for name, curve in stage.curves.items():
        for step, value in curve:
            steps.setdefault(step, {})[name] = value
    return sorted(steps.items())
