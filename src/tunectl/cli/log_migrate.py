"""``tunectl log migrate``: migrate the inference log of an older version."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import DataError

if TYPE_CHECKING:
    from tunectl.backends.storage.inference_log_migration import Migration
    from tunectl.cli.log_erase import LogSettings
    from tunectl.inference_log.project_folder import RenamedPath


def run(args: argparse.Namespace, layout: ProjectPaths, root: LogSettings) -> int:
    """Move the folder of tunectl 0.1 to its new place, then migrate the database to the current version; return the exit code.

    Raises  DataError where nothing was logged yet; UsageError where a setting names the old folder; InfrastructureError where a
            process still uses what is to be moved or changed, or the database is of a newer tunectl.
    """
    from msgspec import to_builtins

    from tunectl.backends.storage import inference_log_migration
    from tunectl.backends.system import terminal
    from tunectl.inference_log import project_folder, pseudonyms

    url = pseudonyms.address(root.inference_log)
    moved = project_folder.move(layout.root, _settings(root, url))
    migration = inference_log_migration.migrate(url, layout.root)
    if migration is None and not moved:
        raise DataError("nothing was logged yet, so there is nothing to migrate", hint="serve the model: tunectl serve")
    if args.json:
        terminal.print_json({"moved": to_builtins(moved), "migration": to_builtins(migration)})
    else:
        for line in _lines(moved, migration):
            terminal.print_line(line)
    return 0


def _settings(root: LogSettings, url: str) -> dict[str, str]:
    """Return the settings that may name the folder of 0.1, with their values."""
    from tunectl.cli import log_erase

    result = {"inference_log.url": url, "inference_log.hash_key_file": root.inference_log.hash_key_file}
    section = log_erase.feedback_config(root)
    return result if section is None else {**result, "feedback.snapshots": section.snapshots}


def _lines(moved: list[RenamedPath], migration: Migration | None) -> Iterator[str]:
    for item in moved:
        yield f"{item.old} is {item.new} now" + ("; commit both" if item.new.endswith("window.json") else "")
    if migration is None:
        return
    rows = ", ".join(f"{count} {table}" for table, count in migration.rows.items())
    if migration.from_version == migration.to_version:
        yield f"{migration.database} has schema version {migration.to_version} already: {rows}"
        return
    yield f"{migration.database}: schema version {migration.from_version} to {migration.to_version} in {migration.seconds:.1f} s: {rows}"
    if migration.copy is not None:
        yield f"{migration.copy} is the file as it was. tunectl log erase, prune and purge delete it; delete it when all is well."
