"""Start all that one project needs on this machine: the console, a build, and on request server, monitor and retrain controller.

    tunectl up                       check the machine, open the console, build; a first look where nothing was built yet
    tunectl up experiment=small      with settings, which are recorded as tunectl repro does
    tunectl up --serve --monitor --retrain
    tunectl up --no-build --serve    only what runs for long

It asks nothing. All output goes to the terminal and to .tunectl/up.log; Ctrl-C ends everything that it started. It ends when all
that it started has ended: with the exit code of the build, or else of the first service that failed or could not be started.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import InfrastructureError, UsageError

if TYPE_CHECKING:
    from tunectl.backends.system.child_group import ChildGroup

PROGRAM: Final = (sys.executable, "-m", "tunectl")
SERVICES: Final = {"serve": ("serve",), "monitor": ("monitor",), "retrain": ("retrain", "controller")}
"""Arguments that start the service of each flag."""
OPTIONAL: Final = frozenset({"GPU", "Docker", "extras"})
"""Checks that are left out here: a build on this machine works without, or reports itself what the recipe needs."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl up`` to ``parser``."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for tunectl repro")
    parser.add_argument("--no-build", action="store_true", help="build nothing")
    parser.add_argument("--no-console", action="store_true", help="start no console")
    parser.add_argument("--serve", action="store_true", help="after the build, start the server")
    parser.add_argument("--monitor", action="store_true", help="after the build, start the drift monitor")
    parser.add_argument("--retrain", action="store_true", help="after the build, start the retrain controller")


def run(args: argparse.Namespace) -> int:
    """Check the machine, start console, build and services, and wait until they end; return the exit code.

    Raises  UsageError outside a project; ConfigError, MissingExtraError and InfrastructureError before anything is started.
    """
    from tunectl.backends.system import terminal
    from tunectl.backends.system.child_group import ChildGroup

    layout = ProjectPaths()
    if not (layout.conf / "config.yaml").is_file():
        raise UsageError(
            f"{layout.root.resolve()} is not a tunectl project: there is no conf/config.yaml in it",
            hint="go to the project's folder, or make one: tunectl init NAME --example local_lens",
        )
    if args.no_build and args.overrides:
        raise UsageError(f"--no-build builds nothing, so {args.overrides[0]} has no use", hint="leave one of them out")
    _check_machine(layout.root, build=not args.no_build)
    build_overrides = None if args.no_build else _choose_build(layout, args.overrides)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's SIGTERM ends it as Ctrl-C does
    with (
        lock.file_lock(layout.up_lock, "tunectl up", busy="tunectl up runs in this project already"),
        ChildGroup(layout.root, layout.up_log, terminal.print_line) as children,
    ):
        return _supervise(children, layout, build_overrides, args)


def _check_machine(folder: Path, *, build: bool) -> None:
    """Print the notes of the checks of the machine.

    Raises  InfrastructureError where a ``build`` would stop: services need neither torch nor Git, and name what they lack.
    """
    from tunectl.backends.system import terminal
    from tunectl.pipeline import system_check

    system_checks = system_check.check_system(folder)
    for item in system_checks:
        if item.status == "note" and item.name not in OPTIONAL:
            terminal.print_line(f"{item.name}: {item.found}; {item.advice}")
    if build:
        system_check.refuse_problems(system_checks)


def _choose_build(layout: ProjectPaths, overrides: list[str]) -> list[str]:
    """Return the overrides for ``tunectl repro``, checked with the recorded ones; those of a small first build if nothing was built yet and no overrides are given."""
    from tunectl.config.loading import checks, override_file
    from tunectl.core.optional import require_all
    from tunectl.pipeline import first_look
    from tunectl.pipeline.required_extras import list_build_packages

    build_overrides = overrides or ([first_look.RECIPE] if first_look.is_untouched(layout) else [])
    merged_overrides = override_file.merge_overrides(override_file.load_overrides(layout), build_overrides)
    require_all(list_build_packages(checks.load_config(layout, merged_overrides).root, ()))
    return build_overrides


def _supervise(
    children: ChildGroup, layout: ProjectPaths, build_overrides: list[str] | None, args: argparse.Namespace
) -> int:
    if not args.no_console:
        _start_console(children)
    code = 0
    if build_overrides is not None:
        children.print_line("up", " ".join(["tunectl repro", *build_overrides]))
        children.start("build", [*PROGRAM, "repro", *build_overrides])
        code = children.wait("build")
        children.print_line("up", "the build is done" if not code else f"the build ended with exit code {code}")
    started = _start_services(children, layout, [name for name in SERVICES if getattr(args, name)])
    running = children.list_running()
    if running:
        children.print_line("up", f"running: {', '.join(running)}; Ctrl-C ends them")
    failed = children.wait_all()
    return code or failed or (0 if started else InfrastructureError.exit_code)


def _start_console(children: ChildGroup) -> None:
    from tunectl.cli.main import VERBS
    from tunectl.core.optional import RequiredPackage, describe_missing, find_missing

    if all(verb.name != "console" for verb in VERBS):
        return
    missing = find_missing(
        RequiredPackage(package, "console", "tunectl console") for package in ("jinja2", "starlette", "uvicorn")
    )
    if missing:
        children.print_line("up", f"no console: {describe_missing(missing).hint}")
        return
    children.start("console", [*PROGRAM, "console"])


def _start_services(children: ChildGroup, layout: ProjectPaths, names: list[str]) -> bool:
    """Start the services that were asked for; all of them need the champion, so without one none is started, and False is returned."""
    from tunectl.registry.release_store import ReleaseRegistry

    if names and ReleaseRegistry(layout.releases).champion() is None:
        children.print_line(
            "up",
            f"not started: {', '.join(names)}; there is no champion yet: tunectl repro --reset-overrides builds a release",
        )
        return False
    for name in names:
        children.start(name, [*PROGRAM, *SERVICES[name]])
    return True
