"""``tunectl data rejects``: rejected rows, and why."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable

from tunectl.artifacts import atomic_io, row_counts
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import RejectedRow
from tunectl.cli.number_args import parse_count
from tunectl.core.errors import ArtifactError, UsageError
from tunectl.pipeline.stages import STAGES


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl data rejects`` to ``parser``."""
    parser.add_argument("--stage", help="only this stage; all of them where it is not given")
    parser.add_argument("--reason", help="print the rows of this reason, instead of counts")
    parser.add_argument("-n", "--number", type=parse_count, default=20, metavar="N", help="rows to print (20)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the numbers of rejected rows by stage and reason, or the rows of one reason; return the exit code."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal

    result = _read(ProjectPaths(), args.stage)
    if args.reason is None:
        counts = Counter((stage, reject.reason) for stage, reject in result)
        firsts = {(stage, reject.reason): reject for stage, reject in reversed(result)}
        rows = [
            (stage, reason, count, firsts[stage, reason].source.location, _what(firsts[stage, reason]))
            for (stage, reason), count in counts.most_common()
        ]
        if args.json:
            terminal.print_json(
                [dict(zip(("stage", "reason", "rows", "first", "what"), row, strict=True)) for row in rows]
            )
        else:
            terminal.table("", ("stage", "reason", "rows", "first", "what"), rows)
        return 0
    matches = [(stage, reject) for stage, reject in result if reject.reason == args.reason]
    if not matches:
        raise UsageError(
            f"{args.reason}: no row was rejected for this reason; reasons that occur: {_names(result)}",
            hint="tunectl data rejects counts them",
        )
    if args.json:
        terminal.print_json([{"stage": stage, **to_builtins(reject)} for stage, reject in matches[: args.number]])
    else:
        table_rows = [
            (stage, reject.source.location, reject.detail, reject.sample) for stage, reject in matches[: args.number]
        ]
        terminal.table(f"{args.reason}: {len(matches)} rows", ("stage", "row", "detail", "text"), table_rows)
    return 0


def _read(layout: ProjectPaths, stage: str | None) -> list[tuple[str, RejectedRow]]:
    names = [stage.name for stage in STAGES]
    if stage is not None and stage not in names:
        raise UsageError(f"{stage}: no such stage; there are {', '.join(names)}")
    folders = {name: layout.artifact(name) for name in names if stage in (None, name)}
    built = {name: folder for name, folder in folders.items() if (folder / row_counts.REJECTS).is_file()}
    if not built:
        where = layout.artifact(stage) if stage is not None else layout.artifacts
        raise ArtifactError(
            f"no stage has left a list of rejected rows in {where}", hint="run: tunectl repro --to split"
        )
    return [
        (name, reject)
        for name, folder in built.items()
        for reject in atomic_io.read_rows(folder / row_counts.REJECTS, RejectedRow)
    ]


def _what(reject: RejectedRow) -> str:
    return reject.detail or reject.sample


def _names(result: Iterable[tuple[str, RejectedRow]]) -> str:
    return ", ".join(sorted({reject.reason for _, reject in result})) or "none"
