"""The console on a recorded project: data, rejected rows, answers, releases, drift, and a decision that waits.

    tunectl demo                 prints a link that signs this browser in; stop with Ctrl-C
    tunectl demo --port 8301     another port

It is the bundled example, as its build and its traffic left it: synthetic data and simulated people, real programs. What you do
there changes a copy in a temporary folder, which is removed at the end. The copy has no weights, so nothing can be built or served
from it. It needs the extra [console] and no project.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Final

from tunectl.core.errors import MissingExtraError, UsageError

PACKAGES: Final = ("jinja2", "sqlalchemy", "starlette", "uvicorn")
"""Packages of the extra [console]; without one of them a screen would stay empty."""
MAX_PORT: Final = 65_535


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl demo`` to ``parser``."""
    parser.add_argument("--port", type=int, default=8300, help="port to listen on; 0 takes a free one (8300)")


def run(args: argparse.Namespace) -> int:
    """Unpack the recorded project, and serve the console on it until stopped; return the exit code.

    Raises  MissingExtraError without the extra; UsageError for what is no port; InfrastructureError for a port that is taken, or a disk that is full.
    """
    _require_extra()
    if not 0 <= args.port <= MAX_PORT:
        raise UsageError(f"--port {args.port}: a port is a number from 0 to {MAX_PORT}", hint="0 takes a free one")
    from tunectl.backends.system import terminal
    from tunectl.cli import project_template
    from tunectl.console import recorded_project
    from tunectl.services import console_service

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the copy is removed however the program ends
    folder = Path(tempfile.mkdtemp(prefix="tunectl-demo-"))
    try:
        layout, recording = recorded_project.unpack(folder, project_template.find_template_dir() / "conf")

        def print_link(link: str) -> None:
            terminal.print_line(
                f"a project recorded on {recording.ended_at:%-d %B %Y}; your copy of it lies in {folder}"
            )
            terminal.print_line(f"open {link}")
            terminal.print_line("the link works once, for ten minutes; stop with Ctrl-C, which removes the copy")

        console_service.run_recorded(args.port, layout, recording, started=print_link)
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):  # uvx passes Ctrl-C on, so it comes twice
            signal.signal(name, signal.SIG_IGN)
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _require_extra() -> None:
    """Raise in one line what to install where a package is absent.

    Raises  MissingExtraError.
    """
    from importlib.util import find_spec

    from tunectl.core.distribution import format_tool_command

    if any(find_spec(name) is None for name in PACKAGES):
        raise MissingExtraError(f"tunectl demo needs the extra [console]: {format_tool_command('console', 'demo')}")
