"""Entry point of the command line: a static table of commands, so that ``--help`` imports nothing but argparse."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from tunectl.core.control_codes import replace_control_codes
from tunectl.core.errors import MissingExtraError, TunectlError, UsageError


class MixedArgumentParser(argparse.ArgumentParser):
    """An argparse parser that accepts options between positional arguments: ``run sft --to slurm key=value``.

    A command that passes all its arguments on (``argparse.REMAINDER``) takes none for itself but ``--help`` as the first one.
    Subcommands inherit it, because argparse creates their parsers with the class of their parent.
    """

    _mixing = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """Return the parsed arguments as a namespace, and the arguments that are unknown."""
        # argparse's intermixed parsing supports neither subcommands nor REMAINDER
        passes_on = any(action.nargs == argparse.REMAINDER for action in self._actions)
        if passes_on and args and args[0] not in {"-h", "--help"}:
            return super().parse_known_args(["--", *args], namespace)
        if self._mixing or passes_on or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


class Command(NamedTuple):
    """Name and help text of one command, an entry of the static table of commands."""

    name: str
    help: str

    @property
    def module(self) -> str:
        """Full name of the command's module; a name that is a Python keyword gets an underscore at its end."""
        return f"tunectl.cli.{self.name}_" if self.name == "import" else f"tunectl.cli.{self.name}"


VERBS: tuple[Command, ...] = (
    Command("demo", "look around: the console on a recorded project; needs no project of your own"),
    Command("init", "make a project of your own: from your data, from an example, or empty"),
    Command("check", "compose conf/, report every mistake at once, show where each value comes from"),
    Command("estimate", "estimate tokens, memory and minutes of each stage, before anything runs"),
    Command("repro", "check, then rebuild whatever changed (dvc repro)"),
    Command("up", "start the console and a build; on request server, monitor and retrain controller; Ctrl-C ends all"),
    Command("run", "run one stage, as dvc.yaml does"),
    Command("dvc", "run DVC with a check of what its remote says (tunectl dvc pull)"),
    Command("status", "in one screen: stages, champion, traffic, drift, retrains, what waits for a person"),
    Command(
        "doctor", "check this machine: Python, memory, disk, torch, GPU, Docker, ports, extras; each with what to do"
    ),
    Command("console", "the project in a browser: builds, rows, verdicts, releases, drift, decisions"),
    Command("chat", "chat with the model of a stage, or of a folder"),
    Command("data", "look at the data: counts, report, inspect, show, rejects, refresh, agreement, lineage"),
    Command("annotate", "compare answers on a page, to learn from people"),
    Command("evaluate", "measure a model on a file, or compare base models"),
    Command("serve", "serve the champion with OpenAI's HTTP API; manage keys"),
    Command("log", "the inference log: show, export, erase, prune, purge, verify, migrate"),
    Command("backup", "save what this host holds: inference log, keys, registry, records of retrains"),
    Command("restore", "put a backup in place; erasures made after it are applied again"),
    Command("monitor", "detect drift in live traffic; calibrate, backtest, set the reference"),
    Command("retrain", "retrain on drift, on schedules or on request: controller, request, status"),
    Command("sweep", "search for better settings with Optuna: run, worker, show, stop, take"),
    Command("submit", "build on a cluster (SLURM, Kubernetes, Ray): run, status, logs, fetch, cancel"),
    Command("federate", "train on data that may not be pooled: simulate, server, client"),
    Command("track", "send builds and releases to MLflow and W&B: sync, status"),
    Command("release", "list, compare, promote and roll back releases; canary; the release history"),
    Command("explain", "lineage of an answer, a row, a release or a retrain: what it came from and what came from it"),
    Command("import", "turn a LLaMA-Factory or Axolotl file into tunectl's settings"),
    Command("docs", "open the documentation: a page, a setting, a command, or the page of an error"),
    Command("completions", "print the completion script of a shell"),
)

EPILOG = """exit codes: 0 fine, 1 a bug, 2 configuration or usage, 3 a gate failed, 4 a missing extra, 5 the environment,
75 a trial of a sweep was stopped early
Every verb explains itself: tunectl VERB --help"""
VERBOSE = "--verbose"
RESUMABLE = frozenset({"repro", "run", "sweep", "up"})
"""Commands that resume where they were stopped."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: ``sys.argv``); return the exit code, which ``core/errors.py`` lists."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except TunectlError as error:
        if VERBOSE in arguments:
            _print_traceback(error)
        return _report(error)
    except KeyboardInterrupt:
        goes_on = "; run the same command again to resume" if arguments[:1] and arguments[0] in RESUMABLE else ""
        sys.stderr.write(f"\nstopped{goes_on}\n")
        return 130
    except BrokenPipeError:  # the reader of the output has closed the pipe, as in `tunectl check | head`
        sys.stderr.close()
        return 0
    except (MemoryError, OSError) as error:
        return _report(_environment(error))


def entry() -> None:
    """Run ``main`` and exit with its code: the entry point of the console script ``tunectl``."""
    sys.exit(main())


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_help())
        return 0
    if argv[0] == "--version":
        from tunectl import __version__

        sys.stdout.write(f"tunectl {__version__}\n")
        return 0
    verb, rest = _find(argv[0]), argv[1:]
    if VERBOSE in rest and verb.name != "dvc":  # subcommands take it, too; DVC has an option of this name
        rest = [VERBOSE, *(argument for argument in rest if argument != VERBOSE)]
    from importlib import import_module

    module = import_module(verb.module)
    parser = MixedArgumentParser(
        prog=f"tunectl {verb.name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(VERBOSE, action="store_true", help="log details, and show tracebacks")
    module.add(parser)
    args = parser.parse_args(rest)
    _prepare(args)
    code: int = module.run(args)
    return code


def _prepare(args: argparse.Namespace) -> None:
    from tunectl.backends.system import terminal
    from tunectl.core import logging_setup

    logging_setup.configure_logging(level="debug" if args.verbose else "info")
    terminal.install_progress()


def _find(name: str) -> Command:
    for verb in VERBS:
        if verb.name == name:
            return verb
    from difflib import get_close_matches

    names = [verb.name for verb in VERBS]
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else "tunectl --help lists them"
    raise UsageError(f"{name}: no such verb; there are {', '.join(names)}", hint=hint)


def _help() -> str:
    width = max(len(verb.name) for verb in VERBS)
    rows = "\n".join(f"  {verb.name:<{width}}  {verb.help}" for verb in VERBS)
    return f"usage: tunectl VERB [options] [key=value ...]\n\n{rows}\n\n{EPILOG}\n"


def _report(error: TunectlError) -> int:
    from tunectl.core.error_slugs import find_slug

    slug = None if isinstance(error, MissingExtraError) else find_slug(error)  # its hint says all
    more = f"  more: tunectl docs {slug}\n" if slug else ""
    sys.stderr.write(f"tunectl: {replace_control_codes(str(error))}\n{more}")
    return error.exit_code


def _print_traceback(error: TunectlError) -> None:
    from traceback import format_exception

    sys.stderr.write(replace_control_codes("".join(format_exception(error))))


def _environment(error: MemoryError | OSError) -> TunectlError:
    """Return an OSError as an error for users; one that names no file is a bug and keeps its traceback."""
    from tunectl.core.errors import InfrastructureError

    if isinstance(error, MemoryError):
        return InfrastructureError(
            "out of memory", hint="lower hardware.train_batch_tokens, hardware.generate_batch or sft.max_length"
        )
    if error.filename is None:
        raise error
    return InfrastructureError(
        f"{error.filename}: {error.strerror}", hint="check that the path exists, its permissions and the free space"
    )
