"""The project in a browser: what is built and why not, rows and rejects, verdicts, releases, drift, retrains.

    tunectl console                          prints a link that signs this browser in; stop with Ctrl-C
    tunectl console console.port=8301        another port

It listens on this machine alone. Where others shall reach it, set console.host, console.hosts and console.keys_file, and put HTTPS in
front. A link for a further browser lies in .tunectl/console/sign_in_link. The console shows files of the project, and changes it on request (builds, releases, decisions; console.acts=false: read-only); closing it, or
the browser, stops nothing.
"""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl console`` to ``parser``."""
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="settings for this run, for example console.port=8301"
    )


def run(args: argparse.Namespace) -> int:
    """Serve the console until stopped; return the exit code.

    Raises  ConfigError with every mistake of the settings; MissingExtraError without the extra.
    """
    from tunectl.backends.system import terminal
    from tunectl.config.loading import checks
    from tunectl.services import console_service

    layout = ProjectPaths()
    root = checks.load_project_config(layout, args.settings).root

    def print_link(link: str) -> None:
        terminal.print_line(f"open {link}")
        terminal.print_line("the link works once, for ten minutes; stop with Ctrl-C")

    console_service.run(root.console, layout, root.project, started=print_link)
    return 0
