"""``tunectl retrain controller``: the long-running program that retrains. One per project; all its state is on the disk."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Final

from tunectl.access.signatures import TRUSTED_KEYS_ENV, TrustStore
from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.system import supervised_process
from tunectl.config.schema.root import TunectlConfig
from tunectl.core import logging_setup
from tunectl.core.errors import UsageError
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import cron
from tunectl.retraining import run_store as books
from tunectl.retraining.controller_process import RetrainerProcess
from tunectl.retraining.schedules import CronSchedule
from tunectl.retraining.workspace import RetrainWorkspace

STORE: Final = "TUNECTL_REGISTRY"
LOCK_TIMEOUT_SECONDS: Final = 20.0
"""Seconds that a change of the registry waits for its lock, so that the work of hours is not lost."""
_log = logging_setup.get_logger(__name__)


def open_registry(root: TunectlConfig, layout: ProjectPaths) -> ReleaseRegistry:
    """Return the release registry in the folder that the configuration, or the environment, names.

    Raises  UsageError for the address of an object store: the controller promotes in a folder, from which it copies to ``serve.registry``.
    """
    registry = os.environ.get(STORE) or root.retrain.registry
    if "://" in registry:
        raise UsageError(
            f"retrain.registry = {registry}: must be a folder, not an address",
            hint=f"set serve.registry={registry}: the retrain controller copies its folder there",
        )
    trusted = os.environ.get(TRUSTED_KEYS_ENV) or root.serve.trusted_keys_file
    return ReleaseRegistry(
        layout.root / registry, LOCK_TIMEOUT_SECONDS, TrustStore(layout.root / trusted) if trusted else None
    )


def run(layout: ProjectPaths, root: TunectlConfig, *, cost: str, once: bool = False) -> None:
    """Run the retrain controller until SIGTERM or Ctrl-C; with ``once``, end as soon as nothing is due.

    ``cost`` is a text about the duration of a build, for approvals.
    Raises  InfrastructureError when another controller works here, or the port is taken; UsageError for a wrong schedule.
    """
    for name, declared in root.retrain.schedules.items():
        cron.next_slot(CronSchedule(name, declared.cron, declared.zone), datetime.now(UTC))
    workspace, store = RetrainWorkspace(layout), open_registry(root, layout)
    with lock.file_lock(
        workspace.store_dir / books.LOCK,
        "tunectl retrain controller",
        busy=f"{workspace.store_dir}: another retrain controller works here",
        hint="one is enough; end that process first",
        timeout_seconds=1.0,  # a check whether a controller runs holds the lock for a moment
    ):
        workspace.close_to_others(store.root)
        orphans = supervised_process.kill_marked(workspace.mark)
        if orphans:
            _log.warning("ended %d processes that a killed controller had left", len(orphans))
        RetrainerProcess(workspace, store, layout, root, cost).run(once=once)
