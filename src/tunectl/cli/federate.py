"""Train one adapter on data that may not be pooled (conf/federate): a client sends only adapters and counts of its data.

tunectl federate simulate [key=value]             server and clients on this machine, each with a part of the training inputs
tunectl federate server [key=value]               wait for clients, average their adapters; resumes after a kill
tunectl federate client NAME [key=value]          fit on the training rows of this project whenever the server asks
tunectl repro sft.adapter=.tunectl/federate/NAME/result    evaluate, judge and package the result

Flower runs in an environment of its own, which is made at first use. --json prints the rounds as JSON.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tunectl.federated.exchange import Contribution


def add(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``tunectl federate``, each with its own arguments, to ``parser``."""
    parser.add_argument("verb", choices=("simulate", "server", "client"), help="what this process is")
    parser.add_argument(
        "arguments", nargs="*", metavar="NAME | key=value", help="client: its name; others: federate.KEY=VALUE"
    )
    parser.add_argument("--json", action="store_true", help="print the rounds as JSON (simulate, server)")


def run(args: argparse.Namespace) -> int:
    """Run as client or server of a federated training, or as both (simulate); return the exit code.

    Raises  ConfigError with every mistake; UsageError for a client without a name; InfrastructureError where Flower gives up.
    """
    from tunectl.backends.system import terminal
    from tunectl.pipeline import federate_run

    name = _take_name(args.arguments) if args.verb == "client" else None
    federation = federate_run.open_federation(ProjectPaths(), args.arguments)
    if name is not None:
        federate_run.join(federation, name, terminal.print_line)
        return 0
    tell = (lambda _line: None) if args.json else terminal.print_line
    action = federate_run.simulate if args.verb == "simulate" else federate_run.serve
    _print_rounds(federation.folder, action(federation, tell), as_json=args.json)
    return 0


def _take_name(arguments: list[str]) -> str:
    if not arguments or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", arguments[0]):
        raise UsageError(
            f"{arguments[0][:80]!r} cannot be the name of a client"
            if arguments
            else "the name of this client is missing",
            hint="give 1 to 64 lower-case letters, digits, - and _, which no other client has: tunectl federate client hospital_a",
        )
    return arguments.pop(0)


def _describe_counts(client: Contribution) -> str:
    refused = f", {client.refused} of {client.rows} rows refused" if client.refused else ""
    return f"{client.answers} answers{refused}"


def _print_rounds(folder: Path, out: Path, *, as_json: bool) -> None:
    import msgspec

    from tunectl.backends.system import terminal
    from tunectl.federated import exchange

    rounds = exchange.read_rounds(folder)
    if as_json:
        terminal.print_json({"adapter": str(out), "rounds": msgspec.to_builtins(rounds)})
        return
    for item in rounds:
        contributors = (
            ", ".join(f"{client.name} ({_describe_counts(client)})" for client in item.contributions) or "nobody"
        )
        terminal.print_line(f"round {item.number}: {contributors}{'' if item.averaged else '; too few, not averaged'}")
        for failure in item.failures:
            terminal.print_line(f"  left out: {terminal.strip_control(failure)}")
    terminal.print_line(f"the adapter is in {out}; next: tunectl repro sft.adapter={out}")
