"""The trigger of a person: retrain now, or test an existing release."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core import user
from tunectl.retraining import run_store
from tunectl.retraining.state_machine import Trigger


def request_retrain(
    layout: ProjectPaths, message: str, *, ignore_limits: bool, release: str | None = None, author: str | None = None
) -> tuple[str, bool]:
    """Put a trigger into the inbox of the retrain controller.

    Args:
        layout: the project.
        message: the reason, for the release history.
        ignore_limits: start in spite of cooldown or budget.
        release: a release of the registry for gate and canary; None: build a new one.
        author: who asks; None: the account of this process.

    Returns:
        The id of the trigger, and whether a controller is running that will handle it.
    """
    name = f"person-{uuid.uuid4().hex[:16]}"
    trigger = Trigger(
        "person",
        name,
        datetime.now(UTC),
        message,
        user.current_user() if author is None else author,
        ignore_limits=ignore_limits,
        release=release,
    )
    run_store.RunStore(layout.retrain).enqueue_trigger(trigger)
    return name, lock.is_locked(layout.retrain / run_store.LOCK)
