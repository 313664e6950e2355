"""Make a project of your own.

tunectl init my-model                          empty: put raw files below data/
tunectl init my-model --example local_lens     the bundled example, ready for `tunectl repro`
tunectl init my-model --from reviews.csv       your data: looks at it, declares it as the source, says what is in it
tunectl init my-model --from FOLDER            pages, PDF, DOCX, texts, tables, chat logs, all mixed
tunectl init my-model --from OWNER/NAME        a data set of the Hugging Face Hub
"""

from __future__ import annotations

import argparse
import shlex
from difflib import get_close_matches
from pathlib import Path

from tunectl.core.errors import UsageError

SHOWN = 8
"""Most names that are listed of a folder that is not empty."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl init`` to ``parser``."""
    parser.add_argument("folder", metavar="DIR", help="the folder to make; . is this one")
    parser.add_argument("--example", metavar="NAME", help="start from a bundled example, such as local_lens")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FOLDER|FILE|HUB_ID",
        help="start from this data: it is copied below data/ (from 1 GB on it is read where it lies)",
    )
    parser.add_argument(
        "--prompt", action="append", metavar="COLUMN", help="with --from: the column of the input; may be repeated"
    )
    parser.add_argument("--answer", metavar="COLUMN", help="with --from: the column of the answer")
    parser.add_argument(
        "--text", action="append", metavar="COLUMN", help="with --from: the column of raw text; may be repeated"
    )
    parser.add_argument(
        "--encoding", metavar="NAME", help="with --from: encoding of files that are not UTF-8, for example cp1252"
    )
    parser.add_argument(
        "--name", help="name of the project in reports and model cards; else made from the folder's name"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="go into a folder that is not empty; what is in the way moves to .before-init",
    )


def run(args: argparse.Namespace) -> int:
    """Create a project in a temporary folder, move it to its place, and initialize Git and DVC; return the exit code.

    Raises  UsageError for a folder that is not empty, an unknown example, an impossible name, or data that is not there or cannot
            be read; InfrastructureError for a folder that cannot be written, or where git or dvc fail. Nothing is left behind
            in any of these.
    """
    from tunectl.backends.system import terminal
    from tunectl.backends.vcs import project_repo
    from tunectl.cli import project_source, project_template

    _refuse_contradiction(args)
    target = Path(args.folder).resolve()
    _refuse_full(target, args.folder, force=args.force)
    _refuse_unknown(args.example, project_template.list_examples())
    name = project_template.project_name(target, args.name)
    with project_template.scratch_project(target) as folder:
        project_template.render_project(folder, name, args.example)
        source = None if args.source is None else project_source.add_source(folder, target, args)
        with project_template.move_atomically(folder, target) as backup:
            lines = project_repo.init_repositories(target)
    if backup is not None:
        lines.append(f"what was in the way is in {backup}")
    next_lines = _next(args) if source is None else project_source.next_lines(source, args.folder)
    if source is not None:
        lines += [
            *source.lines,
            "written: conf/ingest/project.yaml, with what was detected, and a JSON schema by which editors check it",
        ]
    for line in (f"{name}: a new project in {target}", *(f"  {line}" for line in lines), *next_lines):
        terminal.print_line(line)
    return 0


def _refuse_contradiction(args: argparse.Namespace) -> None:
    if args.source is not None and args.example is not None:
        raise UsageError(
            f"--example {args.example} has data of its own, --from {args.source} names other data",
            hint="leave one of them out",
        )
    named = [option for option in ("prompt", "answer", "text", "encoding") if getattr(args, option)]
    if named and args.source is None:
        raise UsageError(
            f"--{named[0]} is about the data of --from, and --from is missing",
            hint=f"tunectl init NAME --from FILE --{named[0]} {'NAME' if named[0] == 'encoding' else 'COLUMN'}",
        )


def _next(args: argparse.Namespace) -> list[str]:
    where = "" if args.folder == "." else f"cd {shlex.quote(args.folder)} && "
    if args.example is not None:
        return [f"next: {where}tunectl repro"]
    return [f"next: put raw files below {Path(args.folder) / 'data'}, then: {where}tunectl check && tunectl repro"]


def _refuse_full(target: Path, folder: str, *, force: bool) -> None:
    if target.exists() and not target.is_dir():
        raise UsageError(f"{folder} is a file, not a folder", hint="choose another name")
    there = sorted(item.name for item in target.iterdir()) if target.is_dir() else []
    # A folder with an empty repository counts as empty.
    if force or not set(there) - {".git"}:
        return
    names = ", ".join(there[:SHOWN]) + (f" and {len(there) - SHOWN} more" if len(there) > SHOWN else "")
    raise UsageError(
        f"{folder} is not empty: it holds {names}", hint="choose another folder, or go into this one with --force"
    )


def _refuse_unknown(example: str | None, examples: list[str]) -> None:
    if example is None or example in examples:
        return
    near = get_close_matches(example, examples, 1)
    hint = f"did you mean {near[0]}?" if near else ""
    raise UsageError(f"{example}: no such example; there is {', '.join(examples)}", hint=hint)
