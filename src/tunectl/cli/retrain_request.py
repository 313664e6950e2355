"""``tunectl retrain request``: ask the controller for a retrain with the newest traffic and feedback, of what is committed.

tunectl retrain request -m "new shops"
"""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl retrain request`` to ``parser``."""
    parser.add_argument("-m", "--message", required=True, metavar="TEXT", help="reason, for the release history")
    parser.add_argument("--ignore-limits", action="store_true", help="start in spite of cooldown and budget")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Write a request for a retrain, which is kept until a controller runs; return the exit code."""
    from tunectl.backends.system import terminal
    from tunectl.retraining.manual_trigger import request_retrain

    trigger, running = request_retrain(ProjectPaths(), args.message, ignore_limits=args.ignore_limits)
    if args.json:
        terminal.print_json({"trigger": trigger, "controller": running})
        return 0
    terminal.print_line(f"requested: {args.message} ({trigger})")
    terminal.print_line(describe_controller(running))
    return 0


def describe_controller(running: bool) -> str:
    """Return a sentence that says when a request is handled; ``running``: whether a controller runs."""
    if running:
        return "the retrain controller takes it up"
    return "no retrain controller runs here; it is taken up when one starts: tunectl retrain controller"
