"""``tunectl data show``: rows of a stage, readable."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Document, Example, LabeledCompletion, Message, PreferencePair, truncate
from tunectl.cli.number_args import parse_count
from tunectl.core.errors import ArtifactError, UsageError

FILES = {
    "ingest": ("examples", "documents"),
    "feedback": ("examples",),
    "curate": ("examples", "documents"),
    "split": ("train", "validation", "test", "documents"),
    "preferences": ("train", "validation", "test", "labeled_completions", "candidates"),
}
"""Files of each stage that can be shown; the first is shown where none is named."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl data show`` to ``parser``."""
    parser.add_argument(
        "stage", nargs="?", choices=list(FILES), default="curate", help="stage whose rows to print (curate)"
    )
    parser.add_argument(
        "--file",
        help="examples, documents, train, validation, test, labeled_completions or candidates; the first that the stage has",
    )
    parser.add_argument("--find", metavar="TEXT", help="only rows that contain this text")
    parser.add_argument(
        "--field", action="append", metavar="NAME=VALUE", help="only rows whose field has this value; may be repeated"
    )
    parser.add_argument("-n", "--number", type=parse_count, default=5, metavar="N", help="rows to print (5)")
    parser.add_argument("--full", action="store_true", help="whole texts instead of their first 400 characters")
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def run(args: argparse.Namespace) -> int:
    """Print the first rows of a stage, or the first that contain a text; return the exit code."""
    from tunectl.backends.system import terminal

    path = _path(ProjectPaths(), args.stage, args.file)
    shape = _shape(args.stage, path.stem)
    fields = _parse_fields(args.field or ())
    matching = (
        row
        for row in atomic_io.read_rows(path, shape)
        if fields.items() <= row.fields.items() and (args.find is None or args.find in _text(row))
    )
    rows = list(islice(matching, args.number))
    if args.json:
        from msgspec import to_builtins

        terminal.print_json([to_builtins(row) for row in rows])
        return 0
    for row in rows:
        _show(row, limit=None if args.full else 400)
    if not rows:
        filters = [f"holds {args.find!r}"] if args.find is not None else []
        filters += [f"has {name}={value}" for name, value in fields.items()]
        terminal.print_line(f"{path}: no row {' and '.join(filters)}".rstrip())
    return 0


def _parse_fields(options: Sequence[str]) -> dict[str, str]:
    fields = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not (name and equals):
            raise UsageError(f"--field {option}: this is not NAME=VALUE", hint="for example: --field city=Atlanta")
        fields[name] = value
    return fields


Shown = Document | Example | PreferencePair | LabeledCompletion


def _shape(stage: str, file: str) -> type[Shown]:
    if stage == "preferences" and file != "candidates":
        return LabeledCompletion if file == "labeled_completions" else PreferencePair
    return Document if file == "documents" else Example


def _path(layout: ProjectPaths, stage: str, name: str | None) -> Path:
    names = FILES[stage]
    if name is not None and name not in names:
        raise UsageError(f"--file {name}: {stage} has no such file; it has {', '.join(names)}")
    path = layout.artifact(stage) / f"{name or names[0]}.jsonl"
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist", hint=f"run: tunectl repro --to {stage}")
    return path


def _show(row: Shown, *, limit: int | None) -> None:
    from tunectl.backends.system import terminal

    source = row.annotations[0].source if isinstance(row, PreferencePair | LabeledCompletion) else row.source
    location = source.location
    notes = [row.kind, location, *(f"{name}={value}" for name, value in row.fields.items())]
    if isinstance(row, Example):
        notes += [f"cluster {row.cluster}"] if row.cluster else []
        notes += [f"weight {row.weight:g}"] if row.weight != 1.0 else []
    if isinstance(row, PreferencePair | LabeledCompletion):
        notes += [_format_votes(row)]
    terminal.print_line(f"── {row.id}  {'  '.join(notes)}", style="dim")
    for label, text, style in _turns(row):
        terminal.print_line(f"{label:>9}  {text if limit is None else truncate(text, limit)}", style=style)


def _format_votes(row: PreferencePair | LabeledCompletion) -> str:
    """Return who gave the votes, how sure, and why."""
    names = ", ".join(sorted({vote.annotator or "unnamed" for vote in row.annotations}))
    tags = ", ".join(dict.fromkeys(tag for vote in row.annotations for tag in vote.tags))
    margin = f"  margin {row.margin:g}" if isinstance(row, PreferencePair) and row.margin is not None else ""
    return f"{len(row.annotations)} {'vote' if len(row.annotations) == 1 else 'votes'} ({names}){margin}{f'  [{tags}]' if tags else ''}"


def _turns(row: Shown) -> list[tuple[str, str, str]]:
    if isinstance(row, Document):
        return [("text", row.text, "")]
    turns = _format_messages(row.messages)
    if isinstance(row, PreferencePair):
        chosen, rejected = ([text for _, text, _ in _format_messages(side)] for side in (row.chosen, row.rejected))
        turns += [("chosen", text, "green") for text in chosen]
        return turns + [("rejected", text, "red") for text in rejected]
    if isinstance(row, LabeledCompletion):
        label, style = ("good", "green") if row.label else ("bad", "red")
        return turns + [(label, text, style) for _, text, _ in _format_messages(row.completion)]
    turns += [("answer", answer.text, "green") for answer in row.answers]
    turns += [
        ("learned" if segment.train else "shown", segment.text, "green" if segment.train else "")
        for segment in row.segments
    ]
    if row.tokens is not None:
        turns.append(
            (
                "tokens",
                f"{len(row.tokens.ids)} ids, {sum(label != -100 for label in row.tokens.labels)} of them learned",
                "",
            )
        )
    return turns


def _format_messages(messages: Sequence[Message]) -> list[tuple[str, str, str]]:
    return [(turn.role, turn.content, "cyan" if turn.role == "user" else "") for turn in messages]


def _text(row: Shown) -> str:
    return "\n".join(text for _, text, _ in _turns(row))
