"""Evaluate a model on a file: read the file as the project reads its sources, answer its inputs, score."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.backends.wiring.evaluation import EvaluationBackend
    from tunectl.config.schema.evaluate import BeamSearch, Greedy
    from tunectl.config.schema.ingest import FileSource, Ingest, RowOptions
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.core.errors import DataError
    from tunectl.evaluation.file_evaluation import EvalTask, FileEvalResult
    from tunectl.evaluation.items import Item
    from tunectl.evaluation.system import SystemResult
    from tunectl.pipeline.model_choice import ModelChoice

COLUMNS = "check the file; name its columns with --input-column NAME --reference-column NAME, or its --format NAME"
LIMITS = (
    "give a smaller file, or raise that limit in the source of ingest.sources by which DATA is read (--source NAME)"
)


@dataclass(frozen=True)
class FileEvalOptions:
    """Options of ``tunectl evaluate DATA``; None means the project's setting. An error names the option of the command."""

    source: str | None = None
    """Source of ingest whose settings are used to read the file."""
    format: str | None = None
    input_column: str | None = None
    reference_column: str | None = None
    system: str | None = None
    """System text, in place of the one used in training."""
    limit: int | None = None
    """Most inputs to answer, drawn with the seed."""
    slots: Path | None = None
    """YAML file with rules of the slot error rate."""
    beams: int | None = None
    """Number of beams in beam search; None: greedy."""
    length_penalty: float = 1.0
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class FileEval:
    """A prepared evaluation of models on one file: its inputs, the settings, and the backend that answers them."""

    data: Path
    root: TunectlConfig
    task: EvalTask
    available: int
    skipped: dict[str, int]
    backend: EvaluationBackend

    @property
    def length_tolerance(self) -> float:
        """Relative difference up to which two word counts are equal, as in ``evaluate.aligned.length_tolerance``."""
        return self.root.evaluate.aligned.length_tolerance


def prepare_evaluation(
    layout: ProjectPaths, options: FileEvalOptions, data: Path, models: Sequence[ModelChoice], overrides: Sequence[str]
) -> FileEval:
    """Read ``data`` and the settings, and return the evaluation to run, with the inputs that every one of ``models`` can be asked; none is loaded yet.

    Raises  UsageError for an invalid option; DataError for a file without inputs and references, or of which too many inputs
            cannot be asked; ConfigError for invalid slot rules.
    """
    from tunectl.backends.wiring import evaluation
    from tunectl.config.loading import checks
    from tunectl.evaluation import few_shot

    root = checks.load_project_config(layout, overrides).root
    decoding = choose_decoding(options, root)
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit}: must be at least 1")
    if not data.exists() and not set("*?[") & set(str(data)):
        raise UsageError(f"{data}: there is no such file", hint="check the path of DATA")
    examples, skipped = read_items(options, data, load_ingest_config(layout, root))
    task, backend = _task(options, root, examples, decoding), evaluation.build_backend(root.hardware, None)
    kept, left_out = few_shot.leave_out_unanswerable(
        task.items,
        [(backend.prompter(*model), evaluation.token_counter(model.folder)) for model in models],
        new_tokens=decoding.max_new_tokens,
        references=task.references,
        inputs=f"inputs of {data}",
    )
    return FileEval(data, root, replace(task, items=kept), len(examples), skipped | left_out, backend)


def run_evaluation(job: FileEval, model: ModelChoice) -> tuple[FileEvalResult, SystemResult]:
    """Answer the inputs of ``job`` with ``model``; return the result for the file, and the scores of the model alone."""
    from tunectl.evaluation import file_evaluation

    task, backend = job.task, job.backend
    generator = backend.open(model.folder, model.adapter)
    try:
        result = file_evaluation.generate_answers(task, generator, backend.prompter(model.folder, model.adapter))
    finally:
        generator.close()
    assert result.cost is not None
    report = file_evaluation.FileEvalResult(
        data=str(job.data),
        model=str(model.folder),
        adapter=None if model.adapter is None else str(model.adapter),
        inputs=len(task.items),
        available=job.available,
        references=sum(len(item.references) for item in task.items),
        skipped=job.skipped,
        scores=file_evaluation.compute_scores(task, result, backend.tools),
        cost=result.cost,
        decoding=task.how.model_dump(),
        confidence=task.gate.confidence,
        resamples=task.gate.resamples,
        bleu_signature=backend.signature,
        slots=file_evaluation.slot_report(task, result, backend.tools),
    )
    return report, result


def choose_decoding(options: FileEvalOptions, root: TunectlConfig) -> Greedy | BeamSearch:
    """Return beam search where the options ask for beams, else greedy decoding."""
    from tunectl.config.schema.evaluate import BeamSearch, Greedy

    tokens = root.evaluate.decoding.max_new_tokens if options.max_new_tokens is None else options.max_new_tokens
    if tokens < 1:
        raise UsageError(f"--max-new-tokens {tokens}: must be at least 1")
    if options.beams is None or options.beams == 1:
        return Greedy(method="greedy", max_new_tokens=tokens)
    if not 2 <= options.beams <= 16:
        raise UsageError(f"--beams {options.beams}: must be 1 to 16")
    return BeamSearch(method="beams", max_new_tokens=tokens, beams=options.beams, length_penalty=options.length_penalty)


def load_ingest_config(layout: ProjectPaths, root: TunectlConfig) -> Ingest:
    """Return the ingest settings with which the project's artifacts were made; the declared ones where there are no artifacts."""
    if not layout.config("ingest").is_file():
        return root.ingest
    from tunectl.pipeline import resolved_config

    result, _ = resolved_config.load_stage_config(layout, "ingest")
    ingest: Ingest = result.ingest
    return ingest


def read_items(options: FileEvalOptions, data: Path, ingest: Ingest) -> tuple[list[Item], dict[str, int]]:
    """Return the usable inputs of ``data``, and the number of the unusable rows and examples by reason.

    Raises  DataError when the file is missing or empty, its format cannot be detected, or no row has input and reference.
    """
    from tunectl.artifacts import row_counts
    from tunectl.artifacts.records import Example
    from tunectl.config.schema.ingest import IngestStage
    from tunectl.core.errors import DataError
    from tunectl.evaluation import items
    from tunectl.pipeline.stages import ingest as stage

    source = build_source(options, data, ingest)
    with tempfile.TemporaryDirectory() as folder:
        cfg = IngestStage(ingest=ingest.model_copy(update={"sources": {"data": source}}))
        try:
            stage.run(cfg, stage.Inputs(), stage.Outputs(Path(folder)))
        except DataError as error:  # it names a declared source; here there are only the options of a command
            message = error.message.replace("ingest.sources.data: ", "").replace("ingest.sources.data.", "")
            raise DataError(message, hint=_adapt_hint(error)) from error
        result, unusable = items.from_examples(atomic_io.read_rows(Path(folder) / "examples.jsonl", Example))
        skipped = dict(Counter(row_counts.load(Path(folder)).rejected) + Counter(unusable))
    if not result:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise DataError(
            f"{data} holds no input with a reference answer{': ' + reasons if reasons else ''}",
            hint=COLUMNS,
        )
    return result, skipped


def _adapt_hint(error: DataError) -> str:
    """Return the hint of an error of reading DATA, without its parts about a declared source; ``COLUMNS`` where none is left."""
    if ".limits." in error.message:
        return LIMITS
    if not any(text in error.hint for text in ("ingest.", "take the source out", "take the field out")):
        return error.hint
    if "source out" in error.hint:
        return COLUMNS
    parts = [
        part
        for part in error.hint.replace(", or ", "; ").split("; ")
        if "ingest." not in part and part != "fix the data"
    ]
    return "; ".join(parts) or COLUMNS


def build_source(options: FileEvalOptions, data: Path, ingest: Ingest) -> FileSource:
    """Return a source that reads ``data`` like the project's own source of examples, changed by the options."""
    from tunectl.config.schema.ingest import FileReading, FileSource

    like = _find_source_options(options.source, ingest)
    columns = like.columns.model_dump() | {"split": None}
    form = options.format or like.format
    if (options.input_column is None) != (options.reference_column is None):
        raise UsageError("--input-column and --reference-column go together; give both or neither")
    if options.input_column is not None:
        columns |= {"prompt": [options.input_column], "answer": options.reference_column, "text": None}
        form = "auto"
    elif options.format is not None and options.format != "columns":
        columns = dict.fromkeys(columns)
    prompt = like.prompt.model_dump()
    if options.system is not None:
        prompt["system"] = options.system
    values: dict[str, Any] = {
        "method": "files",
        "path": str(data),
        "holds": "examples",
        "type": "auto",
        "format": form,
        "columns": columns,
        "fields": like.fields if options.source and options.input_column is None else {},
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
        location = ".".join(str(part) for part in first["loc"]) or "the source"
        raise UsageError(
            f"the settings by which DATA is read are wrong: {location} = {first['input']!r:.80}: {first['msg']}",
            hint=COLUMNS,
        ) from error


def _find_source_options(name: str | None, ingest: Ingest) -> RowOptions:
    """Return the source whose settings are used.

    Raises  UsageError for a name that is not declared, or where several sources with different prompts are possible.
    """
    kinds = ", ".join(ingest.sources)
    if name is not None:
        if name not in ingest.sources:
            raise UsageError(f"--source {name}: ingest has no such source; there are {kinds}")
        return ingest.sources[name]
    examples = {key: source for key, source in ingest.sources.items() if source.holds != "documents"}
    result = list((examples or ingest.sources).values())
    if any(source.prompt != result[0].prompt or source.columns != result[0].columns for source in result):
        raise UsageError(
            f"ingest has several sources that are read in different ways: {', '.join(examples)}",
            hint="say which one the file is like: --source NAME",
        )
    return result[0]


def _task(
    options: FileEvalOptions, root: TunectlConfig, examples: Sequence[Item], decoding: Greedy | BeamSearch
) -> EvalTask:
    from tunectl.config.schema import slot_error as declared
    from tunectl.evaluation import file_evaluation, items, slot_error

    cfg = root.evaluate
    slots = cfg.slots if options.slots is None else declared.read(options.slots)
    return file_evaluation.EvalTask(
        items=items.sample_items(examples, options.limit, root.seed),
        how=decoding,
        gate=cfg.gate,
        checks=cfg.checks,
        references=cfg.max_references,
        latency_inputs=cfg.latency_inputs,
        seed=root.seed,
        rules=None if slots is None else slot_error.build_slot_matcher(slots, examples),
        worst=cfg.num_worst_cases,
        small=cfg.slices.min_inputs,
    )
