"""Everything behind one thing and everything after it: an answer, a row, a release or a retrain.

tunectl explain chatcmpl-...        an answer: its release, the settings, gates and decisions behind it, its rows, down to raw files
tunectl explain champion            a release (the beginning of its id, champion, previous or challenger)
tunectl explain data/ads.jsonl:12   a row (its id, or FILE:ROW): what each stage did with it, and the releases that learned it
tunectl explain 3f9c0a1b2c4d-1      a retrain

What is not known is said. The console shows the same as a page: tunectl console, then Explain.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import DataError

if TYPE_CHECKING:
    from tunectl.console.explanation_steps import ExplanationStep

MAX_FACTS = 8
"""Most facts of a step that are printed; --json prints all."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl explain`` to ``parser``."""
    parser.add_argument(
        "id", help="an answer (chatcmpl-..., or how it begins), a release, a retrain, or a row (its id, or FILE:ROW)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the lineage of an answer, release, row or retrain in both directions: its sources, and what was made of it; return the exit code.

    Raises  DataError where nothing has that id, or several things begin with it.
    """
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.console.read_context import ReadContext
    from tunectl.console.screens.explain import read_explain

    explanation = read_explain(ReadContext(ProjectPaths(), datetime.now(UTC)), {"id": args.id})
    if explanation.kind == "nothing":
        unread = "".join(f"; {part}: {message}" for part, message in explanation.problems.items())
        raise DataError(
            f"{args.id}: there is no answer, release, retrain or row with this id{unread}",
            hint="these list ids: tunectl log show, tunectl release list, tunectl retrain status, tunectl data show",
        )
    if args.json:
        terminal.print_json(to_builtins(explanation))
        return 0
    terminal.print_line(f"{explanation.title}. {explanation.summary}")
    for title, steps in (("What is behind it", explanation.behind), ("What came after it", explanation.after)):
        _print_steps(title, steps)
    for part, message in explanation.problems.items():
        terminal.print_line(f"{part} cannot be read: {terminal.strip_control(message)}")
    if explanation.unknown:
        terminal.print_line("\nWhat is not known:")
    for message in explanation.unknown:
        terminal.print_line(f"  {terminal.strip_control(message)}")
    return 0


def _print_steps(title: str, steps: Sequence[ExplanationStep]) -> None:
    from tunectl.backends.system import terminal

    if steps:
        terminal.print_line(f"\n{title}:")
    for step in steps:
        at = f"  ({step.at[:16].replace('T', ' ')} UTC)" if step.at else ""
        terminal.print_line(f"  {terminal.strip_control(step.title)}{at}")
        if step.text:
            terminal.print_line(f"      {terminal.strip_control(step.text)}")
        for fact in step.facts[:MAX_FACTS]:
            terminal.print_line(f"      {terminal.strip_control(fact.name)}: {terminal.strip_control(fact.value)}")
        if len(step.facts) > MAX_FACTS:
            terminal.print_line(f"      and {len(step.facts) - MAX_FACTS} more; --json prints all")
