"""The first small build, ``experiment=first``: which commands follow it, and whether a project should begin with it."""

from __future__ import annotations

from typing import Final

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks, override_file
from tunectl.core.errors import TunectlError

RECIPE: Final = "experiment=first"
GOES_ON: Final = "experiment=small"
"""The whole pipeline on few rows. Only the example has it; it reuses the fine-tuned model of ``experiment=first``."""


def next_lines(layout: ProjectPaths) -> list[str]:
    """Return lines for the terminal: what ``experiment=first`` left out, and the commands that do it; empty after any other recipe."""
    if all(override.text != RECIPE for override in override_file.load_overrides(layout)):
        return []
    lines = ["this was a first look: nothing was learned from people's preferences, and nothing was packaged"]
    if _goes_on(layout):
        lines.append(f"next: tunectl repro {GOES_ON}    goes on: people, a reward model, alignment, a release; minutes")
    lines.append("next: tunectl repro --reset-overrides    the whole recipe: all training rows, narrower intervals")
    return lines


def is_untouched(layout: ProjectPaths) -> bool:
    """Return whether the project has no build and no recorded override, so that ``experiment=first`` should be proposed."""
    return (
        not override_file.load_overrides(layout)
        and not layout.dvc_lock.is_file()
        and (layout.conf / "experiment" / "first.yaml").is_file()
    )


def _goes_on(layout: ProjectPaths) -> bool:
    try:
        checks.load_project_config(layout, [GOES_ON])
    except TunectlError:
        return False
    return True
