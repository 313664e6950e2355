"""``tunectl evaluate DATA --model``: one model on one file, or with ``--against`` two, difference by difference."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.pipeline import file_evaluation_runner
from tunectl.pipeline.file_evaluation_runner import FileEvalOptions


def options_from_args(args: argparse.Namespace) -> FileEvalOptions:
    """Return the options of an evaluation that are in the command's arguments."""
    return FileEvalOptions(**{field.name: getattr(args, field.name) for field in dataclasses.fields(FileEvalOptions)})


def measure(args: argparse.Namespace, data: Path, overrides: Sequence[str]) -> None:
    """Generate answers to the inputs of the file ``data`` with the model, score them, and print the scores.

    ``args.out`` (``--out``): folder for the scores and the answers; ``args.json`` (``--json``): print JSON in place of the tables.
    Raises  UsageError for an unknown model; DataError for a file without inputs and references; ArtifactError for an
            adapter of another base.
    """
    import msgspec

    from tunectl.backends.system import terminal
    from tunectl.evaluation import file_evaluation
    from tunectl.evaluation.results import ANSWERS, NAME
    from tunectl.pipeline.model_choice import resolve_model

    layout = ProjectPaths()
    model = resolve_model(layout, args.model, args.adapter)
    job = file_evaluation_runner.prepare_evaluation(layout, options_from_args(args), data, [model], overrides)
    result, answers = file_evaluation_runner.run_evaluation(job, model)
    if args.out is not None:
        atomic_io.write_json(args.out / NAME, result)
        atomic_io.write_rows(args.out / ANSWERS, file_evaluation.build_answer_rows(job.task, answers))
    if args.json:
        terminal.print_json(msgspec.to_builtins(result))
        return
    columns, rows = file_evaluation.format_table(result)
    speed = f"{result.cost.tokens} tokens in {result.cost.seconds:.1f} s"
    terminal.table(f"{data} with {args.model}", columns, rows, caption=f"{len(job.task.items)} inputs, {speed}")
    if result.slots is not None:
        terminal.table("slot errors by attribute", *file_evaluation.slot_table(result.slots))
    print_left_out(job.skipped)


def compare(args: argparse.Namespace, data: Path, overrides: Sequence[str]) -> None:
    """Generate answers to the inputs of ``data`` with both models, and print the paired differences of their scores.

    ``args.out`` and ``args.json`` are those of ``measure``.
    Raises  as ``measure``, for either model.
    """
    import msgspec

    from tunectl.backends.system import terminal
    from tunectl.evaluation import two_model_report
    from tunectl.evaluation.results import ANSWERS, NAME
    from tunectl.pipeline.model_choice import resolve_model

    layout = ProjectPaths()
    models = [
        resolve_model(layout, args.model, args.adapter),
        resolve_model(layout, args.against, None, option="--against"),
    ]
    job = file_evaluation_runner.prepare_evaluation(layout, options_from_args(args), data, models, overrides)
    (first, first_answers), (second, second_answers) = (
        file_evaluation_runner.run_evaluation(job, item) for item in models
    )
    result = two_model_report.TwoModelReport(
        first,
        second,
        *two_model_report.differences(
            job.task, (first_answers, second_answers), job.backend.tools, job.length_tolerance
        ),
    )
    if args.out is not None:
        atomic_io.write_json(args.out / NAME, result)
        atomic_io.write_rows(args.out / ANSWERS, two_model_report.rows(job.task, (first_answers, second_answers)))
    if args.json:
        terminal.print_json(msgspec.to_builtins(result))
        return
    columns, rows = two_model_report.table(result)
    terminal.table(
        f"{data}: {args.model} against {args.against}", columns, rows, caption=f"{len(job.task.items)} inputs, paired"
    )
    print_left_out(job.skipped)


def print_left_out(skipped: Mapping[str, int]) -> None:
    """Print how many rows and inputs were left out, by reason; nothing where none was."""
    from tunectl.backends.system import terminal
    from tunectl.evaluation import few_shot

    if skipped:
        terminal.print_line(f"left out: {few_shot.format_reasons(skipped)}")
