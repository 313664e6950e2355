"""Save what this host holds and nobody can build again, into a new folder that its owner alone can read.

    tunectl backup /mnt/backups/2026-11-27      while server, monitor and retrain controller go on
    tunectl backup DIR --json

In it: the inference log (SQLite's online backup; pg_dump for PostgreSQL), hash key, keys, the release registry, frozen windows, and the
records of retrains. It prints what is not in it. Who is erased later is noted beside the folder (erasures.jsonl) and beside the
hash key, and is erased again by tunectl restore. A backup holds text of people and secrets: encrypt the disk, and delete what is
older than inference_log.retention_days.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tunectl.artifacts.paths import ProjectPaths


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl backup`` to ``parser``."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to make; best on another disk")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Write a backup of this host's data, and print what is in it and what is not; return the exit code.

    Raises  UsageError for a folder that exists; InfrastructureError where a file cannot be written or the database cannot be read.
    """
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.backup import create, host_state
    from tunectl.cli import log

    layout = ProjectPaths()
    backup = create.create_backup(host_state.describe_host(layout, log.load_settings(layout)), args.folder)
    if args.json:
        terminal.print_json({"folder": str(args.folder), **to_builtins(backup)})
        return 0
    size = sum(file.size for file in backup.files.values())
    champion = f"champion {backup.champion}" if backup.champion else "no champion"
    terminal.print_line(
        f"{args.folder}: {len(backup.files)} files, {size / 1e6:.1f} MB: inference log ({backup.inference_log or 'none'}), "
        f"{backup.releases} releases ({champion}), {backup.keys} keys, {backup.runs} retrains"
    )
    for item in backup.missing:
        terminal.print_line(f"not in it: {item}")
    return 0
