"""``tunectl retrain status``: the retrains, the newest last, and pending triggers. Read-only.

tunectl retrain status [-n 10] [--json]
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.number_args import parse_count

if TYPE_CHECKING:
    from tunectl.retraining.state_machine import RetrainRun, Trigger

COLUMNS = ("retrain", "state", "since", "trigger", "reason")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl retrain status`` to ``parser``."""
    parser.add_argument(
        "-n",
        "--number",
        type=parse_count,
        default=10,
        metavar="N",
        help="retrains to print (10); with --json at most 100",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the retrains and the pending triggers; return the exit code. No lock is taken, so it may run beside a controller."""
    from tunectl.artifacts import lock
    from tunectl.backends.system import terminal
    from tunectl.retraining import run_store

    if args.json:
        from msgspec import structs, to_builtins

        from tunectl.console.read_context import ReadContext
        from tunectl.console.screens.retrain import read_retrain

        screen = read_retrain(ReadContext(ProjectPaths(), datetime.now(UTC)), {})
        terminal.print_json(to_builtins(structs.replace(screen, runs=screen.runs[: args.number])))
        return 0
    store = run_store.RunStore(ProjectPaths().retrain)
    running = lock.is_locked(store.root / run_store.LOCK)
    runs = [_describe_run(item) for item in store.runs()[-args.number :]] if args.number > 0 else []
    pending = [_describe_trigger(pending_trigger) for pending_trigger in store.list_pending_triggers()]
    if runs:
        terminal.table("", COLUMNS, [tuple(row[name] for name in COLUMNS) for row in runs])
        terminal.print_line("every step of one retrain: tunectl release log RETRAIN")
    else:
        terminal.print_line("no retrain yet")
    for row in pending:
        terminal.print_line(f"pending since {row['since']}: {row['trigger']}, {row['reason']}")
    terminal.print_line(
        "the retrain controller runs" if running else "no retrain controller runs here: tunectl retrain controller"
    )
    return 0


def _describe_run(run: RetrainRun) -> dict[str, Any]:
    step = run.steps[-1]
    return {
        "retrain": run.id,
        "state": run.state,
        "since": f"{step.at:%Y-%m-%d %H:%M} UTC",
        "trigger": run.trigger.kind,
        "reason": run.trigger.message
        if not step.message or step.message == run.trigger.message
        else f"{run.trigger.message}; {step.message}",
    }


def _describe_trigger(trigger: Trigger) -> dict[str, Any]:
    return {
        "id": trigger.id,
        "since": f"{trigger.at:%Y-%m-%d %H:%M} UTC",
        "trigger": trigger.kind,
        "reason": trigger.message,
    }
