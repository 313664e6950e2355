"""Measure a model on a file, compare base models, or run the comparison of the pipeline again.

tunectl evaluate DATA --model sft                    BLEU, chrF, ROUGE-L, perplexity ... of a model on any file
tunectl evaluate test.csv --model sft --beams 4 --json
tunectl evaluate test.csv --model DIR --input-column mr --reference-column ref
tunectl evaluate test.csv --model align --against sft   two models input by input, with paired intervals
tunectl evaluate test.csv --model sft --slots conf/evaluate/e2e.yaml   and the slot error rate by these rules
tunectl evaluate --bases A,B                         base models, zero- and few-shot, on the validation split
tunectl evaluate                                     the evaluate stage once more, though nothing changed

DATA is any file that ingest reads: CSV, TSV, JSON, JSON lines, Parquet. Rows with the same input are one input with several
references. Prompts are those of training: the project's source tells template and columns, the adapter its system text. Inputs that a
model cannot be asked (refused by its chat template, too long) are left out and counted; more than 20 % of them are an error.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl evaluate`` to ``parser``."""
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="DATA | key=value",
        help="the file to measure on; overrides of the configuration",
    )
    parser.add_argument(
        "--model", metavar="STAGE|DIR", help="model, cpt, sft, align, a model folder or an adapter folder"
    )
    parser.add_argument("--against", metavar="STAGE|DIR", help="a second model; both answer, differences are paired")
    parser.add_argument("--adapter", metavar="DIR|auto", help="adapter to put on the model; auto: artifacts/sft")
    parser.add_argument("--bases", metavar="A,B", help="base models: options of conf/model, folders or Hub ids@commit")
    parser.add_argument("--beams", type=int, metavar="N", help="beam search with N beams; otherwise greedy")
    parser.add_argument("--length-penalty", type=float, default=1.0, metavar="X", help="of beam search (1.0)")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer (as evaluate.decoding says)")
    parser.add_argument(
        "--slots", type=Path, metavar="FILE", help="YAML with rules of the slot error rate (as evaluate.slots declares)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="answer at most N inputs, drawn with the seed")
    parser.add_argument("--source", metavar="NAME", help="read DATA as this source of ingest is read")
    parser.add_argument("--format", metavar="NAME", help="format of DATA, as in ingest.sources.<name>.format")
    parser.add_argument("--input-column", metavar="NAME", help="column of the input")
    parser.add_argument("--reference-column", metavar="NAME", help="column of the reference answer")
    parser.add_argument("--system", metavar="TEXT", help="system text, instead of the one used in training")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write results.json and answers.jsonl there (the whole report without DATA)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluate a model on a file, compare base models, or rerun the stage evaluate, as the arguments say; return the exit code.

    Raises  UsageError for arguments that do not go together.
    """
    overrides = [argument for argument in args.arguments if "=" in argument and not Path(argument).exists()]
    files = [argument for argument in args.arguments if argument not in overrides]
    if len(files) > 1:
        raise UsageError(
            f"DATA must be one file, not {len(files)}: {', '.join(files)}", hint="run the command once for each"
        )
    if args.bases is not None:
        if files or args.model or args.against:
            raise UsageError("--bases compares on the validation split; leave out DATA, --model and --against")
        from tunectl.cli.evaluate_bases import compare

        compare(args, overrides)
        return 0
    if files:
        from tunectl.cli import evaluate_file

        evaluate = evaluate_file.measure if args.against is None else evaluate_file.compare
        evaluate(args, Path(files[0]), overrides)
        return 0
    if args.model or args.against or args.slots or overrides:
        raise UsageError(
            "DATA is missing: which file should the model be evaluated on?",
            hint="name it, for example: tunectl evaluate test.jsonl",
        )
    _stage(args.out, as_json=args.json)
    return 0


def _stage(out: Path | None, *, as_json: bool) -> None:
    """Run the evaluate stage again into ``out``, or write nothing: the artifacts that DVC tracks stay unchanged."""
    import dataclasses
    import tempfile

    from tunectl.pipeline import resolved_config
    from tunectl.pipeline.runner import load_input_artifact
    from tunectl.pipeline.stages import evaluate as stage

    layout = ProjectPaths()
    cfg, _ = resolved_config.load_stage_config(layout, "evaluate")
    names = [field.name for field in dataclasses.fields(stage.Inputs)]
    for name in names:
        load_input_artifact(layout, name)
    inputs = stage.Inputs(**{name: layout.artifact(name) for name in names})
    with tempfile.TemporaryDirectory() as scratch:
        outputs = stage.Outputs(artifact=out or Path(scratch) / "artifact", plots=Path(scratch) / "plots")
        stage.run(cfg, inputs, outputs)
        _print(outputs.artifact, as_json=as_json)


def _print(folder: Path, *, as_json: bool) -> None:
    from tunectl.backends.system import terminal
    from tunectl.evaluation import results, summary

    result = results.load(folder / results.NAME)
    if as_json:
        terminal.print_json(_plain(result))
        return
    columns, rows = summary.summary_rows(result)
    terminal.table(f"{result.split} split", columns, rows)
    for line in summary.win_lines(result):
        terminal.print_line(line)
    for text in (result.verdict.reason, *summary.cause_lines(result)):
        terminal.print_line(text)


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)
