"""The first look, ``experiment=first``: a verdict in minutes on few inputs, and what to build after it."""

from __future__ import annotations

from typing import Final

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks, override_file
from tunectl.core.errors import TunectlError

RECIPE: Final = "experiment=first"
GOES_ON: Final = "experiment=small"
"""The whole chain on few rows. Only the example has it; it takes over the fine-tuned model of the first look."""


def next_lines(layout: ProjectPaths) -> list[str]:
    """Return what the first look did not do, and the commands that do it; empty after any other recipe."""
    if all(override.text != RECIPE for override in override_file.load_overrides(layout)):
        return []
    lines = ["this was a first look: nothing was learned from people's preferences, and nothing was packaged"]
    if _goes_on(layout):
        lines.append(f"next: tunectl repro {GOES_ON}    goes on: people, a reward model, alignment, a release; minutes")
    lines.append("next: tunectl repro --reset-overrides    the whole recipe: all training rows, narrower intervals")
    return lines


def is_untouched(layout: ProjectPaths) -> bool:
    """Whether nothing was built in this project, and nothing was asked for: then a first look is what to begin with."""
    return (
        not override_file.load_overrides(layout)
        and not (layout.root / "dvc.lock").is_file()
        and (layout.conf / "experiment" / "first.yaml").is_file()
    )


def _goes_on(layout: ProjectPaths) -> bool:
    try:
        checks.load_project_config(layout, [GOES_ON])
    except TunectlError:
        return False
    return True
