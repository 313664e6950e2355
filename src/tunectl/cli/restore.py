"""Put a backup of tunectl backup in place: after a disk was lost, or on another machine.

    git clone ... && cd ...                     first what Git has
    tunectl restore /mnt/backups/2026-11-27
    tunectl restore DIR --erasures FILE         erasures.jsonl of another host that erased people since

The digest of every file is checked first. Existing files are never overwritten: the command stops and names them. People who were
erased after the backup (by erasures.jsonl beside it and beside the hash key of this host) are erased again before anything is in
place. A restore that was killed resumes when it is called again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tunectl.artifacts.paths import ProjectPaths


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl restore`` to ``parser``."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder that tunectl backup wrote")
    parser.add_argument(
        "--erasures",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="another file of erasures; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Restore a backup, and print what to do next; return the exit code.

    Raises  ArtifactError for a damaged backup; UsageError for a place that is taken; InfrastructureError where a server runs, or
            a file cannot be written or the database refuses the rows.
    """
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.backup import host_state, restore
    from tunectl.cli import log
    from tunectl.core.errors import UsageError

    for path in args.erasures:
        if not path.is_file():
            raise UsageError(
                f"--erasures {path}: there is no such file",
                hint="name the file erasures.jsonl that lies beside the hash key (inference_log.hash_key_file)",
            )
    layout = ProjectPaths()
    host = host_state.describe_host(layout, log.load_settings(layout))
    restored = restore.restore(host, args.folder, args.erasures)
    if args.json:
        terminal.print_json(to_builtins(restored))
        return 0
    backup = restored.backup
    champion = f"champion {backup.champion}" if backup.champion else "no champion"
    terminal.print_line(
        f"as of {backup.created_at:%Y-%m-%d %H:%M} UTC: inference log ({backup.inference_log or 'none'}), {backup.releases} releases "
        f"({champion}), {backup.keys} keys, {backup.runs} retrains"
    )
    terminal.print_line(
        f"{restored.erasures} erasures are known; {restored.erased} rows that the backup still had, and rows of {restored.snapshots} "
        "frozen windows, are erased again"
    )
    terminal.print_line(
        "next: tunectl log verify; tunectl log prune, where inference_log.retention_days is set; tunectl release pull ADDRESS, where the "
        "registry has a copy behind an address: what happened there since is adopted"
    )
    return 0
