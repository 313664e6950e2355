"""Estimate tokens, memory and minutes of each stage, before anything runs.

tunectl estimate                    the recorded overrides included
tunectl estimate sft.epochs=3       with further overrides; nothing is recorded
tunectl estimate --json             the same as JSON

Minutes come from the last run where there was one with this model, otherwise one layer is timed now.
"""

from __future__ import annotations

import argparse
from typing import Any

from tunectl.artifacts.paths import ProjectPaths

COLUMNS = ("stage", "tokens", "memory", "minutes", "last run", "based on")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl estimate`` to ``parser``."""
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="applied on top of the recorded overrides, not recorded"
    )
    parser.add_argument("--ignore-overrides", action="store_true", help="ignore the recorded overrides")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Check the configuration, and print the estimated tokens, memory and minutes per stage; return the exit code.

    Raises  ConfigError with every mistake at once; DataError for a source that is missing; UsageError for a model of
            unknown size.
    """
    from tunectl.backends.system import terminal
    from tunectl.config.loading import checks, override_file
    from tunectl.pipeline import run_estimate

    layout = ProjectPaths()
    recorded = [] if args.ignore_overrides else override_file.load_overrides(layout)
    root = checks.load_config(layout, override_file.merge_overrides(recorded, args.overrides)).root
    result = run_estimate.estimate_run(layout, root)
    if args.json:
        terminal.print_json(result)
    else:
        _print(result, root.hardware.train_batch_tokens)
    return 0


def _print(result: dict[str, Any], batch_tokens: int) -> None:
    from tunectl.backends.system import terminal
    from tunectl.training import resource_check

    model = result["model"]
    terminal.table(
        "",
        COLUMNS,
        [_row(stage) for stage in result["stages"]],
        caption=f"{model['parameters'] / 1e6:.0f}M parameters ({model['source']}); speed {result['machine']['source']}",
    )
    terminal.print_line(
        f"in all about {result['minutes']:.0f} minutes and {result['memory_gb']:.1f} GB of memory at the peak"
    )
    terminal.print_line(result["curate_engine"])
    free = resource_check.available_memory()
    if free is not None and result["memory_gb"] * 1e9 > free:
        terminal.print_line(
            f"only {free / 1e9:.1f} GB are free: {resource_check.memory_hint(batch_tokens, 'sft')}", style="bold"
        )


def _row(stage: dict[str, Any]) -> tuple[str, ...]:
    return (
        stage["stage"],
        "" if stage["tokens"] is None else f"{stage['tokens']:,}",
        f"{stage['memory_gb']:.1f} GB",
        f"{stage['minutes']:.1f}",
        "" if stage["last"] is None else f"{stage['last'] / 60:.1f}",
        stage["basis"],
    )
