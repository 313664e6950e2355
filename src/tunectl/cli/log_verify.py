"""``tunectl log verify``: read the whole inference log and report damage."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import ArtifactError

if TYPE_CHECKING:
    from tunectl.cli.log_erase import LogSettings


def run(args: argparse.Namespace, layout: ProjectPaths, root: LogSettings) -> int:
    """Check the inference log that the settings name, and print rows and problems; return the exit code.

    Raises  DataError where nothing was logged yet; ArtifactError where something is wrong (with ``--json`` only its exit code is set).
    """
    from msgspec import to_builtins

    from tunectl.backends.storage import inference_log_check, open_inference_log
    from tunectl.backends.system import terminal
    from tunectl.inference_log import pseudonyms

    open_inference_log.require_log(root.inference_log, layout)
    result = inference_log_check.verify(pseudonyms.address(root.inference_log), layout.root)
    if args.json:
        terminal.print_json(to_builtins(result))
        return ArtifactError.exit_code if result.problems else 0
    if result.problems:
        raise ArtifactError(
            f"inference log {result.database}: " + "\n  ".join(result.problems),
            hint="stop what uses it, move it aside, and restore a backup: tunectl restore DIR",
        )
    rows = ", ".join(f"{count} {name}" for name, count in result.rows.items())
    terminal.print_line(f"{result.database} is whole: schema version {result.schema}, {rows}")
    return 0
