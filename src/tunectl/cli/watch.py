"""Watch for drift alerts, the calendar and people's wishes; rebuild, prove, try and promote, every step on record.

tunectl watch                      work until told to stop
tunectl watch --once               do what there is to do now, then end

Alertmanager and Grafana send their alerts to /webhook with the token in retrain.token_file; people ask with `tunectl repro --reason`.
The pages show the story of each retrain. Drift itself is found by `tunectl monitor`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig

READ: Final = frozenset(("retrain", "inference_log", "feedback", "monitor", "serve", "evaluate"))
"""Sections of the configuration that a watcher reads; its builds read what the project has recorded."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the words of this verb."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for this watcher alone; nothing is recorded")
    parser.add_argument("--once", action="store_true", help="do what there is to do now, then end")


def run(args: argparse.Namespace) -> int:
    """Check the configuration, then watch."""
    from tunectl.config.loading import checks, override_file
    from tunectl.services import retrain_controller

    layout = ProjectPaths()
    root: TunectlConfig = checks.load_config(
        layout, override_file.merge_overrides(override_file.load_overrides(layout), args.overrides)
    ).root
    _refuse_builds(args.overrides)
    retrain_controller.run(layout, root, cost=_cost(layout), once=args.once)
    return 0


def _refuse_builds(given: Sequence[str]) -> None:
    for text in given:
        if re.split(r"[.=@]", text.lstrip("+~"), maxsplit=1)[0] not in READ:
            raise UsageError(
                f"{text}: a watcher's retrains are built with the settings that the project has recorded, not with its own",
                hint=f"for every build: tunectl repro {text}; for retrains alone: tunectl watch 'retrain.train.overrides=[{text}]'",
            )


def _cost(layout: ProjectPaths) -> str:
    """What the last build took, in words."""
    from tunectl.artifacts import atomic_io
    from tunectl.pipeline.stages import STAGES

    seconds: list[float] = [
        atomic_io.read_json(layout.metrics(stage.name))["seconds"]
        for stage in STAGES
        if layout.metrics(stage.name).is_file()
    ]
    return (
        f"about {max(1, round(sum(seconds) / 60))} min, as the last build took" if seconds else "no build was timed yet"
    )


def request_retrain(layout: ProjectPaths, reason: str, *, urgent: bool, release: str | None = None) -> tuple[str, bool]:
    """Leave a person's wish for the watcher, a retrain or that ``release`` be tried; its id, and whether a watcher runs."""
    import uuid
    from datetime import UTC, datetime

    from tunectl.artifacts import lock
    from tunectl.core import user
    from tunectl.retraining import run_store
    from tunectl.retraining.state_machine import Trigger

    name = f"person-{uuid.uuid4().hex[:16]}"
    wish = Trigger("person", name, datetime.now(UTC), reason, user.current_user(), urgent=urgent, release=release)
    run_store.RunStore(layout.retrain).enqueue_trigger(wish)
    return name, lock.is_locked(layout.retrain / run_store.LOCK)
