"""Make a project of your own.

tunectl init my-model                          empty: put raw files below data/
tunectl init my-model --example local_lens     the bundled example, ready for `tunectl repro`
"""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from pathlib import Path

from tunectl.core.errors import UsageError

SHOWN = 8
"""Names listed of a folder that is not empty."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the words of this verb."""
    parser.add_argument("folder", metavar="DIR", help="the folder to make; . is this one")
    parser.add_argument("--example", metavar="NAME", help="start from a bundled example, such as local_lens")
    parser.add_argument(
        "--name", help="name of the project in reports and model cards; else made from the folder's name"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="go into a folder that is not empty; what is in the way moves to .before-init",
    )


def run(args: argparse.Namespace) -> int:
    """Build the project beside its place, move it there, and start its repositories.

    Raises  UsageError for a folder that is not empty, an unknown example or an impossible name; InfrastructureError for a
            folder that cannot be written, or where git or dvc fail. Nothing is left behind in any of these.
    """
    from tunectl.backends.system import terminal
    from tunectl.backends.vcs import project_repo
    from tunectl.cli import project_template

    target = Path(args.folder).resolve()
    _refuse_full(target, args.folder, force=args.force)
    _refuse_unknown(args.example, project_template.list_examples())
    name = project_template.project_name(target, args.name)
    with project_template.scratch_project(target) as fresh:
        project_template.render_project(fresh, name, args.example)
        with project_template.move_atomically(fresh, target) as backup:
            said = project_repo.init_repositories(target)
    if backup is not None:
        said.append(f"what was in the way is in {backup}")
    for line in (f"{name}: a new project in {target}", *(f"  {line}" for line in said), *_next(args)):
        terminal.print_line(line)
    return 0


def _next(args: argparse.Namespace) -> list[str]:
    where = "" if args.folder == "." else f"cd {args.folder} && "
    if args.example is not None:
        return [f"next: {where}tunectl repro"]
    return [f"next: put raw files below {Path(args.folder) / 'data'}, then: {where}tunectl check && tunectl repro"]


def _refuse_full(target: Path, shown: str, *, force: bool) -> None:
    if target.exists() and not target.is_dir():
        raise UsageError(f"{shown} is a file, not a folder", hint="choose another name")
    there = sorted(item.name for item in target.iterdir()) if target.is_dir() else []
    # A repository without anything in it yet is as good as empty.
    if force or not set(there) - {".git"}:
        return
    names = ", ".join(there[:SHOWN]) + (f" and {len(there) - SHOWN} more" if len(there) > SHOWN else "")
    raise UsageError(
        f"{shown} is not empty: it holds {names}", hint="choose another folder, or go into this one with --force"
    )


def _refuse_unknown(example: str | None, known: list[str]) -> None:
    if example is None or example in known:
        return
    near = get_close_matches(example, known, 1)
    hint = f"did you mean {near[0]}?" if near else ""
    raise UsageError(f"{example}: no such example; there is {', '.join(known)}", hint=hint)
