"""Send builds and releases to the trackers of track.to (MLflow, W&B). Builds do this by themselves; use it for builds that could not be sent.

tunectl track sync      send every build that waits, and update the registered model from the registry
tunectl track status    waiting builds, and the last lines of the last sync; --json
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.config.schema.track import Track


def add(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``tunectl track``, each with its own arguments, to ``parser``."""
    parser.add_argument("verb", choices=("sync", "status"), help="send waiting builds, or list them")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for this run, such as track.uri=ADDRESS")
    parser.add_argument("--json", action="store_true", help="with status: print JSON")


def run(args: argparse.Namespace) -> int:
    """Send the waiting builds to the trackers, or print the status; return the exit code.

    Raises  UsageError where no tracker is set; InfrastructureError where a tracker refuses a build, which stays in the queue.
    """
    from tunectl.backends.system import terminal
    from tunectl.config.loading import checks, override_file
    from tunectl.pipeline import build_tracking

    layout = ProjectPaths()
    overrides = override_file.merge_overrides(override_file.load_overrides(layout), args.overrides)
    settings = checks.load_config(layout, overrides).root.track
    if args.verb == "status":
        _print_status(layout, settings, as_json=args.json)
        return 0
    if not settings.to:
        raise UsageError(
            "track.to is empty, so there is no tracker to send to", hint="tunectl track sync 'track.to=[mlflow]'"
        )
    count = build_tracking.send_spool(layout, settings, terminal.print_line)
    terminal.print_line(f"{count} builds sent; none waits")
    return 0


def _print_status(layout: ProjectPaths, settings: Track, *, as_json: bool) -> None:
    from datetime import UTC, datetime

    from tunectl.backends.system import terminal
    from tunectl.pipeline import build_tracking

    waiting = build_tracking.list_waiting(layout)
    if as_json:
        rows = [{"id": record.id, "started": record.started, "exit_code": record.exit_code} for record in waiting]
        terminal.print_json({"to": settings.to, "waiting": rows})
        return
    for record in waiting:
        terminal.print_line(f"{record.id}: {datetime.fromtimestamp(record.started, UTC):%Y-%m-%d %H:%M} UTC waits")
    terminal.print_line(f"{len(waiting)} builds wait for {', '.join(settings.to) or 'a tracker: track.to is empty'}")
    log = layout.track / build_tracking.LOG
    if waiting and log.is_file():
        terminal.print_line(f"the last sync: {log}")
