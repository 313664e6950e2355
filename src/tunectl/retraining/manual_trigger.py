"""The trigger of a person: retrain now, or test an existing release."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core import user
from tunectl.core.errors import UsageError
from tunectl.retraining import run_store
from tunectl.retraining.state_machine import Trigger


def request_retrain(
    layout: ProjectPaths,
    message: str,
    *,
    ignore_limits: bool,
    release: str | None = None,
    author: str | None = None,
    name: str | None = None,
) -> tuple[str, bool]:
    """Store a person's trigger for the retrain controller.

    Args:
        layout: paths of the project.
        message: why; it stands in the release history.
        ignore_limits: start although the cooldown or the budget forbid it.
        release: a release of the registry to put through gate and canary; None: build a new one.
        author: name of the person who starts it; None: the account of this process.
        name: id of the trigger; None: a new one.

    Returns:
        The id of the trigger, and whether a controller runs that will handle it.

    Raises:
        UsageError: a trigger with that id exists already, or the same is pending (``run_store.TriggerPendingError``).
    """
    name = name or f"person-{uuid.uuid4().hex[:16]}"
    trigger = Trigger(
        "person",
        name,
        datetime.now(UTC),
        message,
        user.current_user() if author is None else author,
        ignore_limits=ignore_limits,
        release=release,
    )
    if not run_store.RunStore(layout.retrain).enqueue_trigger(trigger):
        raise UsageError(
            f"the retrain request {name} exists already, so this one was not stored",
            hint="tunectl retrain status shows what became of it",
        )
    return name, lock.is_locked(layout.retrain / run_store.LOCK)
