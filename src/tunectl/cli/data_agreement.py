"""``tunectl data agreement``: inter-annotator agreement, self-agreement, and biases of position and length."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import DataError

if TYPE_CHECKING:
    from tunectl.artifacts.records import Comparison
    from tunectl.preferences.agreement import Person

STAGE = "preferences"
COLUMNS = ("who", "judgments", "left wins", "longer wins", "agrees with others", "with self", "attention", "seconds")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl data agreement`` to ``parser``."""
    parser.add_argument(
        "--stage", action="store_true", help="of all judgments in the preferences artifact, not only those of the page"
    )
    parser.add_argument(
        "--out", type=Path, default=None, metavar="FILE", help="where the page goes (artifacts/agreement.html)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of writing a page")


def run(args: argparse.Namespace) -> int:
    """Measure the agreement of annotators, print it, and write its HTML page; return the exit code.

    Raises  DataError when there are no judgments.
    """
    from msgspec import to_builtins

    from tunectl.artifacts import atomic_io
    from tunectl.backends.reports import agreement as report_agreement
    from tunectl.backends.system import terminal
    from tunectl.backends.text.krippendorff_alpha import alpha
    from tunectl.config.loading import checks
    from tunectl.preferences import agreement

    layout = ProjectPaths()
    root = checks.load_project_config(layout).root
    path = layout.artifact(STAGE) / "judgments.jsonl" if args.stage else layout.root / root.annotate.store
    result = agreement.inter_annotator_agreement(_judgments(path, of_stage=args.stage), alpha, seed=root.seed)
    if args.json:
        terminal.print_json(to_builtins(result))
        return 0
    terminal.table("", COLUMNS, [_row(person) for person in result.people])
    terminal.print_line(agreement.summary(result))
    out: Path = args.out or layout.artifacts / "agreement.html"
    atomic_io.write_text(out, report_agreement.page(root.project, result))
    terminal.print_line(f"page: {out}")
    return 0


def _judgments(path: Path, *, of_stage: bool) -> list[Comparison]:
    from tunectl.artifacts import atomic_io
    from tunectl.artifacts.records import Comparison
    from tunectl.preferences import annotation_store, contrastive_pairs

    if of_stage:  # pairs made of references were not judged by a person
        result = [item for item in atomic_io.read_rows(path, Comparison) if item.kind != contrastive_pairs.NAME]
    else:
        result = [item for item in annotation_store.load_annotations(path) if isinstance(item, Comparison)]
    if not result:
        raise DataError(f"{path}: there are no judgments yet", hint="collect judgments: tunectl annotate")
    return result


def _row(person: Person) -> tuple[object, ...]:
    shares = (person.left, person.longer, person.with_others, person.with_self, person.attention)
    seconds = "" if person.seconds is None else f"{person.seconds:g}"
    return (person.name, person.judgments, *("" if share is None else str(share) for share in shares), seconds)
