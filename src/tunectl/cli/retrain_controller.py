"""``tunectl retrain controller``: retrain on drift alerts, on schedules and on request; gate, canary, promotion, rollback.

tunectl retrain controller                 work until stopped
tunectl retrain controller --once          do what is due now, then end

Alertmanager and Grafana send their alerts to /webhook with the token in retrain.token_file; people ask with
`tunectl retrain request`. The pages show every step of each retrain. `tunectl monitor` detects the drift itself.
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
"""Sections of the configuration that the controller reads; its builds read what the project has committed."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl retrain controller`` to ``parser``."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for this process only; not recorded")
    parser.add_argument("--once", action="store_true", help="do what is due now, then end")


def run(args: argparse.Namespace) -> int:
    """Check the configuration, then run the controller until stopped; return the exit code."""
    from tunectl.config.loading import checks
    from tunectl.services import retrain_controller

    layout = ProjectPaths()
    root: TunectlConfig = checks.load_project_config(layout, args.overrides).root
    _refuse_builds(args.overrides)
    retrain_controller.run(layout, root, cost=_cost(layout), once=args.once)
    return 0


def _refuse_builds(overrides: Sequence[str]) -> None:
    for text in overrides:
        if re.split(r"[.=@]", text.lstrip("+~"), maxsplit=1)[0] not in READ:
            raise UsageError(
                f"{text}: a retrain is built with the settings that the project has recorded, not with those of the controller",
                hint=f"for every build: tunectl repro {text}; for retrains alone: tunectl retrain controller 'retrain.train.overrides=[{text}]'",
            )


def _cost(layout: ProjectPaths) -> str:
    """Return the duration of the last build as text."""
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
