"""Detect drift in live traffic: windows of prompts and answers against a reference, with alarms of a known rate.

    tunectl monitor                                   until stopped: closes windows, writes reports, serves metrics and pages
    tunectl monitor once                              close the windows that are due, then end (for cron; ends with 3 on drift)
    tunectl monitor list [-n 10]                      the newest windows
    tunectl monitor show [ID]                         one window (the newest): signals, what moved, examples
    tunectl monitor set-reference ID [ID ...] -m ..   compare prompts with these windows from now on
    tunectl monitor calibrate [--trials 400]          false alarms and power with the references of this project
    tunectl monitor backtest --from TIME --to TIME    the verdicts that past traffic would have given; nothing is stored

Settings stand in conf/monitor; key=value changes one for this run. Times: 2026-03-01, 2026-03-01T12:00+01:00, or 7d and 12h
for "ago".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.number_args import parse_count
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.config.schema.monitor import MonitorSettings

VERBS = ("once", "list", "show", "set-reference", "calibrate", "backtest")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl monitor`` to ``parser``."""
    parser.add_argument(
        "arguments", nargs="*", metavar="VERB [ID] | key=value", help=f"{', '.join(VERBS)}; or settings"
    )
    parser.add_argument(
        "-n", "--number", type=parse_count, default=10, metavar="N", help="with list: windows to print (10)"
    )
    parser.add_argument("-m", "--message", default="", metavar="TEXT", help="with set-reference: why, for the record")
    parser.add_argument(
        "--trials", type=int, default=400, metavar="N", help="with calibrate: simulated sequences of each figure (400)"
    )
    parser.add_argument(
        "--rows", type=int, metavar="N", help="with calibrate: rows of a window (monitor.window.max_rows)"
    )
    parser.add_argument("--from", dest="since", metavar="TIME", help="with backtest: traffic accepted at or after")
    parser.add_argument("--to", dest="until", metavar="TIME", help="with backtest: traffic accepted before (now)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the monitor or its subcommand; return 3 on drift after a window (show) or check (once), 1 after a check with an error.

    Raises  UsageError for an unknown subcommand or window; InfrastructureError where the inference log cannot be opened, or another
            monitor runs on it.
    """
    verb, names, overrides = _split(args.arguments)
    layout = ProjectPaths()
    settings = _settings(layout, overrides)
    return _CALLS[verb](args, names, settings, layout)


def _split(arguments: list[str]) -> tuple[str, list[str], list[str]]:
    """Return subcommand (empty: the monitor itself), its arguments, and settings."""
    overrides = [argument for argument in arguments if "=" in argument]
    rest = [argument for argument in arguments if "=" not in argument]
    if rest and rest[0] not in VERBS:
        raise UsageError(
            f"monitor {rest[0]}: no such action; there are {', '.join(VERBS)}", hint="tunectl monitor --help"
        )
    if rest[1:] and rest[0] not in {"show", "set-reference"}:
        raise UsageError(f"monitor {rest[0]} takes no {rest[1]}", hint="tunectl monitor --help")
    return (rest[0] if rest else ""), rest[1:], overrides


def _settings(layout: ProjectPaths, overrides: list[str]) -> MonitorSettings:
    from tunectl.config.loading import checks
    from tunectl.config.schema.monitor import MonitorSettings

    root = checks.load_project_config(layout, overrides).root
    return MonitorSettings(
        project=root.project,
        seed=root.seed,
        monitor=root.monitor,
        inference_log=root.inference_log,
        registry=root.serve.registry,
        keys_file=root.serve.keys_file,
        trusted_keys_file=root.serve.trusted_keys_file,
    )


def _watch(_args: argparse.Namespace, _names: list[str], settings: MonitorSettings, layout: ProjectPaths) -> int:
    from tunectl.backends.system import terminal
    from tunectl.services import monitor

    def print_urls(port: int) -> None:
        host = f"[{settings.monitor.host}]" if ":" in settings.monitor.host else settings.monitor.host
        for what, path in (("windows", "/"), ("reports", "/reports"), ("metrics", "/metrics"), ("health", "/healthz")):
            terminal.print_line(f"{what:<8} http://{host}:{port}{path}")
        terminal.print_line("stop with Ctrl-C")

    monitor.run(settings, layout, started=print_urls)
    return 0


def _once(args: argparse.Namespace, _names: list[str], settings: MonitorSettings, layout: ProjectPaths) -> int:
    from tunectl.cli import monitor_windows
    from tunectl.monitoring import factory

    with factory.open_monitor(settings, layout) as monitor:
        closed = monitor.run_once()
    return monitor_windows.print_windows(args, closed)


def _list(args: argparse.Namespace, _names: list[str], settings: MonitorSettings, layout: ProjectPaths) -> int:
    from tunectl.cli import monitor_windows

    return monitor_windows.list_windows(args, settings, layout)


def _show(args: argparse.Namespace, names: list[str], settings: MonitorSettings, layout: ProjectPaths) -> int:
    from tunectl.cli import monitor_windows

    return monitor_windows.show(args, names, settings, layout)


def _set_reference(args: argparse.Namespace, names: list[str], settings: MonitorSettings, layout: ProjectPaths) -> int:
    from tunectl.cli import monitor_windows

    return monitor_windows.set_reference(args, names, settings, layout)


def _calibrate(args: argparse.Namespace, _names: list[str], settings: MonitorSettings, layout: ProjectPaths) -> int:
    from tunectl.cli import monitor_calibrate

    return monitor_calibrate.calibrate(args, settings, layout)


def _backtest(args: argparse.Namespace, _names: list[str], settings: MonitorSettings, layout: ProjectPaths) -> int:
    from tunectl.cli import monitor_calibrate

    return monitor_calibrate.backtest(args, settings, layout)


_Call = Callable[[argparse.Namespace, list[str], "MonitorSettings", ProjectPaths], int]
_CALLS: dict[str, _Call] = {
    "": _watch,
    "once": _once,
    "list": _list,
    "show": _show,
    "set-reference": _set_reference,
    "calibrate": _calibrate,
    "backtest": _backtest,
}
