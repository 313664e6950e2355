"""``tunectl data counts``: the row counts of all stages, checked."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from tunectl.artifacts.paths import ProjectPaths
from tunectl.data.pipeline_row_counts import StageRowCounts
from tunectl.pipeline.stages import STAGES


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl data counts`` to ``parser``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Check the row counts of all stages, and print one row per stage; return the exit code.

    Raises  GateError naming each stage where a sum does not hold (exit 3).
    """
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.core.errors import GateError
    from tunectl.data import pipeline_row_counts

    layout = ProjectPaths()
    lines = pipeline_row_counts.stage_row_counts({stage.name: layout.artifact(stage.name) for stage in STAGES})
    wrong = pipeline_row_counts.problems(lines)
    if args.json:
        from tunectl.console.read_context import ReadContext
        from tunectl.console.screens.data import read_data

        terminal.print_json(to_builtins(read_data(ReadContext(layout, datetime.now(UTC)), {})))
    else:
        rows = [
            (
                line.stage,
                line.rows_in,
                line.kept,
                sum(line.rejected.values()),
                _out(line.records_out),
                _reasons(line.rejected),
            )
            for line in lines
        ]
        terminal.table("", ("stage", "rows in", "kept", "rejected", "records out", "why"), rows)
    if wrong:
        raise GateError(
            "rows are unaccounted for:\n" + "\n".join(f"  {problem}" for problem in wrong),
            hint=f"rebuild from there: tunectl repro --force --to {_first(lines)}",
        )
    if not args.json:
        terminal.print_line("every row is accounted for")
    return 0


def _out(count: int | None) -> str:
    return "" if count is None else str(count)


def _reasons(rejected: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items(), key=lambda item: -item[1]))


def _first(lines: list[StageRowCounts]) -> str:
    return next(line.stage for line in lines if line.problems)
