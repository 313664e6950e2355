"""``tunectl evaluate DATA --model``: one model on one file."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.backends.wiring.evaluation import EvaluationBackend
    from tunectl.cli.model_args import ModelChoice
    from tunectl.config.schema.evaluate import BeamSearch, Greedy
    from tunectl.config.schema.ingest import FileSource, Ingest, RowOptions
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.evaluation.file_evaluation import EvalTask, FileEvalResult
    from tunectl.evaluation.items import Item
    from tunectl.evaluation.system import SystemResult

COLUMNS = "check the file; name its columns with --input-column NAME --reference-column NAME, or its --format NAME"


@dataclass(frozen=True)
class FileEval:
    """A file to measure on, and how."""

    data: Path
    root: TunectlConfig
    task: EvalTask
    available: int
    skipped: dict[str, int]
    backend: EvaluationBackend

    @property
    def close(self) -> float:
        """Word counts that differ by at most this share are about equal."""
        return self.root.evaluate.aligned.length_tolerance


def measure(args: argparse.Namespace, data: Path, overrides: Sequence[str]) -> None:
    """Answer the inputs of ``data`` with the model, score, print.

    Raises  UsageError for an unknown model; DataError for a file without inputs and references; ArtifactError for an
            adapter of another base.
    """
    import msgspec

    from tunectl.backends.system import terminal
    from tunectl.cli.model_args import resolve_model
    from tunectl.evaluation import file_evaluation
    from tunectl.evaluation.results import ANSWERS, NAME

    chosen = resolve_model(ProjectPaths(), args.model, args.adapter)
    job = prepare_evaluation(args, data, overrides)
    found, one = run_evaluation(job, chosen)
    if args.out is not None:
        atomic_io.write_json(args.out / NAME, found)
        atomic_io.write_rows(args.out / ANSWERS, file_evaluation.build_answer_rows(job.task, one))
    if args.json:
        terminal.print_json(msgspec.to_builtins(found))
        return
    columns, rows = file_evaluation.format_table(found)
    speed = f"{found.cost.tokens} tokens in {found.cost.seconds:.1f} s"
    terminal.table(f"{data} with {args.model}", columns, rows, caption=f"{len(job.task.items)} inputs, {speed}")
    if found.slots is not None:
        terminal.table("slot errors by attribute", *file_evaluation.slot_table(found.slots))


def prepare_evaluation(args: argparse.Namespace, data: Path, overrides: Sequence[str]) -> FileEval:
    """Read ``data`` and the settings; nothing is answered yet.

    Raises  UsageError and DataError as ``measure`` says; ConfigError for bad rules of slots.
    """
    from tunectl.backends.wiring import evaluation

    layout = ProjectPaths()
    root = load_settings(layout, overrides)
    how = decoding_from_args(args, root)
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit {args.limit}: at least 1")
    if not data.exists() and not set("*?[") & set(str(data)):
        raise UsageError(f"{data}: there is no such file")
    examples, skipped = read(args, data, load_ingest_config(layout, root))
    task = _task(args, root, examples, how)
    return FileEval(data, root, task, len(examples), skipped, evaluation.build_backend(root.hardware, None))


def run_evaluation(job: FileEval, chosen: ModelChoice) -> tuple[FileEvalResult, SystemResult]:
    """One model's answers to the inputs of the job, and everything measured on them."""
    from tunectl.evaluation import file_evaluation

    task, backend = job.task, job.backend
    generator = backend.open(chosen.folder, chosen.adapter)
    try:
        one = file_evaluation.generate_answers(task, generator, backend.prompter(chosen.folder, chosen.adapter))
    finally:
        generator.close()
    assert one.cost is not None
    found = file_evaluation.FileEvalResult(
        data=str(job.data),
        model=str(chosen.folder),
        adapter=None if chosen.adapter is None else str(chosen.adapter),
        inputs=len(task.items),
        available=job.available,
        references=sum(len(item.references) for item in task.items),
        skipped=job.skipped,
        scores=file_evaluation.compute_scores(task, one, backend.tools),
        cost=one.cost,
        decoding=task.how.model_dump(),
        confidence=task.gate.confidence,
        resamples=task.gate.resamples,
        bleu_signature=backend.signature,
        slots=file_evaluation.slot_report(task, one, backend.tools),
    )
    return found, one


def load_settings(layout: ProjectPaths, overrides: Sequence[str]) -> TunectlConfig:
    """The project's configuration with the recorded and the typed overrides."""
    from tunectl.config.loading import checks
    from tunectl.config.loading import override_file as recorded

    return checks.load_config(layout, recorded.merge_overrides(recorded.load_overrides(layout), list(overrides))).root


def decoding_from_args(args: argparse.Namespace, root: TunectlConfig) -> Greedy | BeamSearch:
    """Greedy, or beams where they are asked for."""
    from tunectl.config.schema.evaluate import BeamSearch, Greedy

    tokens = root.evaluate.decoding.max_new_tokens if args.max_new_tokens is None else args.max_new_tokens
    if tokens < 1:
        raise UsageError(f"--max-new-tokens {tokens}: at least 1")
    if args.beams is None or args.beams == 1:
        return Greedy(method="greedy", max_new_tokens=tokens)
    if not 2 <= args.beams <= 16:
        raise UsageError(f"--beams {args.beams}: must be 1 to 16")
    return BeamSearch(method="beams", max_new_tokens=tokens, beams=args.beams, length_penalty=args.length_penalty)


def load_ingest_config(layout: ProjectPaths, root: TunectlConfig) -> Ingest:
    """How the project reads its sources: as the artifacts were made, or as declared where none were yet."""
    if not layout.config("ingest").is_file():
        return root.ingest
    from tunectl.pipeline import resolved_config

    found, _ = resolved_config.load_stage_config(layout, "ingest")
    ingest: Ingest = found.ingest
    return ingest


def read(args: argparse.Namespace, data: Path, ingest: Ingest) -> tuple[list[Item], dict[str, int]]:
    """The inputs of ``data``, and how many of its examples cannot be one, by reason.

    Raises  DataError when the file is missing or empty, its columns tell nothing, or no row has input and reference.
    """
    from tunectl.artifacts.records import Example
    from tunectl.config.schema.ingest import IngestStage
    from tunectl.core.errors import DataError
    from tunectl.evaluation import items
    from tunectl.pipeline.stages import ingest as stage

    source = source_from_args(args, data, ingest)
    with tempfile.TemporaryDirectory() as folder:
        cfg = IngestStage(ingest=ingest.model_copy(update={"sources": {"data": source}}))
        try:
            stage.run(cfg, stage.Inputs(), stage.Outputs(Path(folder)))
        except DataError as error:  # it speaks of a declared source; here there are only the words of this command
            raise DataError(error.message.replace("ingest.sources.data: ", ""), hint=COLUMNS) from error
        found, skipped = items.from_examples(atomic_io.read_rows(Path(folder) / "examples.jsonl", Example))
    if not found:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise DataError(
            f"{data} holds no input with a reference answer{': ' + reasons if reasons else ''}",
            hint=COLUMNS,
        )
    return found, skipped


def source_from_args(args: argparse.Namespace, data: Path, ingest: Ingest) -> FileSource:
    """A source that reads ``data`` as the project's own source of examples is read, with what the words change."""
    from tunectl.config.schema.ingest import FileReading, FileSource

    like = _like(args.source, ingest)
    columns = like.columns.model_dump() | {"split": None}
    form = args.format or like.format
    if (args.input_column is None) != (args.reference_column is None):
        raise UsageError("--input-column and --reference-column go together; give both or neither")
    if args.input_column is not None:
        columns |= {"prompt": [args.input_column], "answer": args.reference_column, "text": None}
        form = "auto"
    elif args.format is not None and args.format != "columns":
        columns = dict.fromkeys(columns)
    prompt = like.prompt.model_dump()
    if args.system is not None:
        prompt["system"] = args.system
    values: dict[str, Any] = {
        "method": "files",
        "path": str(data),
        "holds": "examples",
        "type": "auto",
        "format": form,
        "columns": columns,
        "fields": like.fields if args.source and args.input_column is None else {},
        "prompt": prompt,
        "merge_references": True,
        "encoding": like.encoding if isinstance(like, FileReading) else None,
        "limits": {"max_files": 1, "max_file_bytes": 10**12} | like.limits.model_dump(),
    }
    return _validate_source(FileSource, values)


def _validate_source(shape: type[FileSource], values: dict[str, Any]) -> FileSource:
    from pydantic import ValidationError

    try:
        return shape.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the source"
        raise UsageError(f"{place} = {first['input']!r}: {first['msg']}") from error


def _like(name: str | None, ingest: Ingest) -> RowOptions:
    """The source to read by.

    Raises  UsageError for a name that is not declared, or where several sources with different prompts leave a choice.
    """
    known = ", ".join(ingest.sources)
    if name is not None:
        if name not in ingest.sources:
            raise UsageError(f"--source {name}: ingest has no such source; there are {known}")
        return ingest.sources[name]
    examples = {key: source for key, source in ingest.sources.items() if source.holds != "documents"}
    found = list((examples or ingest.sources).values())
    if any(source.prompt != found[0].prompt or source.columns != found[0].columns for source in found):
        raise UsageError(
            f"ingest has several sources that are read in different ways: {', '.join(examples)}",
            hint="say which one the file is like: --source NAME",
        )
    return found[0]


def _task(
    args: argparse.Namespace, root: TunectlConfig, examples: Sequence[Item], how: Greedy | BeamSearch
) -> EvalTask:
    from tunectl.config.schema import slot_error as declared
    from tunectl.evaluation import file_evaluation, items, slot_error

    cfg = root.evaluate
    wanted = cfg.slots if args.slots is None else declared.read(args.slots)
    return file_evaluation.EvalTask(
        items=items.sample_items(examples, args.limit, root.seed),
        how=how,
        gate=cfg.gate,
        checks=cfg.checks,
        references=cfg.max_references,
        latency_inputs=cfg.latency_inputs,
        seed=root.seed,
        rules=None if wanted is None else slot_error.build_slot_matcher(wanted, examples),
        worst=cfg.num_worst_cases,
        small=cfg.slices.min_inputs,
    )
