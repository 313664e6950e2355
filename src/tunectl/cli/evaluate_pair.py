"""``tunectl evaluate DATA --model A --against B``: two models on one file, difference by difference."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tunectl.artifacts import io
from tunectl.artifacts.layout import Layout


def compare(args: argparse.Namespace, data: Path, overrides: Sequence[str]) -> None:
    """Answer the inputs of ``data`` with both models, compare them input by input, print.

    Raises  what ``evaluate_file.measure`` raises, for either model.
    """
    import msgspec

    from tunectl.backends import terminal
    from tunectl.cli import evaluate_file
    from tunectl.cli.evaluate_model import resolve
    from tunectl.evaluation import paired
    from tunectl.evaluation.results import ANSWERS, NAME

    layout = Layout()
    chosen = [resolve(layout, args.model, args.adapter), resolve(layout, args.against, None, said="--against")]
    job = evaluate_file.prepared(args, data, overrides)
    (first, mine), (second, theirs) = (evaluate_file.measured(job, one) for one in chosen)
    found = paired.Paired(first, second, *paired.differences(job.task, (mine, theirs), job.backend.tools, job.close))
    if args.out is not None:
        io.write_json(args.out / NAME, found)
        io.write_rows(args.out / ANSWERS, paired.rows(job.task, (mine, theirs)))
    if args.json:
        terminal.print_json(msgspec.to_builtins(found))
        return
    columns, rows = paired.table(found)
    terminal.table(
        f"{data}: {args.model} against {args.against}", columns, rows, caption=f"{len(job.task.items)} inputs, paired"
    )
