"""``tunectl evaluate DATA --model A --against B``: two models on one file, difference by difference."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths


def compare(args: argparse.Namespace, data: Path, overrides: Sequence[str]) -> None:
    """Answer the inputs of ``data`` with both models, compare them input by input, print.

    Raises  what ``evaluate_file.measure`` raises, for either model.
    """
    import msgspec

    from tunectl.backends.system import terminal
    from tunectl.cli.evaluate_file import options_from_args
    from tunectl.evaluation import two_model_report
    from tunectl.evaluation.results import ANSWERS, NAME
    from tunectl.pipeline import file_evaluation_runner
    from tunectl.pipeline.model_choice import resolve_model

    layout = ProjectPaths()
    models = [
        resolve_model(layout, args.model, args.adapter),
        resolve_model(layout, args.against, None, option="--against"),
    ]
    job = file_evaluation_runner.prepare_evaluation(layout, options_from_args(args), data, overrides)
    (first, own), (second, other) = (file_evaluation_runner.run_evaluation(job, item) for item in models)
    result = two_model_report.TwoModelReport(
        first, second, *two_model_report.differences(job.task, (own, other), job.backend.tools, job.close)
    )
    if args.out is not None:
        atomic_io.write_json(args.out / NAME, result)
        atomic_io.write_rows(args.out / ANSWERS, two_model_report.rows(job.task, (own, other)))
    if args.json:
        terminal.print_json(msgspec.to_builtins(result))
        return
    columns, rows = two_model_report.table(result)
    terminal.table(
        f"{data}: {args.model} against {args.against}", columns, rows, caption=f"{len(job.task.items)} inputs, paired"
    )
