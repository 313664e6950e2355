"""``tunectl evaluate DATA --model``: one model on one file."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.artifacts import io
from tunectl.artifacts.layout import Layout
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.backends.evaluation_tools import Backend
    from tunectl.cli.evaluate_model import Chosen
    from tunectl.config.evaluate import Beams, Greedy
    from tunectl.config.ingest import Files, Ingest, Reading
    from tunectl.config.root import Root
    from tunectl.evaluation.entry import Entry
    from tunectl.evaluation.items import Item
    from tunectl.evaluation.single import Measured, Task

COLUMNS = "check the file; name its columns with --input-column NAME --reference-column NAME, or its --format NAME"


@dataclass(frozen=True)
class Job:
    """A file to measure on, and how."""

    data: Path
    root: Root
    task: Task
    available: int
    skipped: dict[str, int]
    backend: Backend

    @property
    def close(self) -> float:
        """Word counts that differ by at most this share are about equal."""
        return self.root.evaluate.aligned.close


def measure(args: argparse.Namespace, data: Path, overrides: Sequence[str]) -> None:
    """Answer the inputs of ``data`` with the model, score, print.

    Raises  UsageError for an unknown model; DataError for a file without inputs and references; ArtifactError for an
            adapter of another base.
    """
    import msgspec

    from tunectl.backends import terminal
    from tunectl.cli.evaluate_model import resolve
    from tunectl.evaluation import single
    from tunectl.evaluation.results import ANSWERS, NAME

    chosen = resolve(Layout(), args.model, args.adapter)
    job = prepared(args, data, overrides)
    found, one = measured(job, chosen)
    if args.out is not None:
        io.write_json(args.out / NAME, found)
        io.write_rows(args.out / ANSWERS, single.rows(job.task, one))
    if args.json:
        terminal.print_json(msgspec.to_builtins(found))
        return
    columns, rows = single.table(found)
    speed = f"{found.cost.tokens} tokens in {found.cost.seconds:.1f} s"
    terminal.table(f"{data} with {args.model}", columns, rows, caption=f"{len(job.task.items)} inputs, {speed}")
    if found.slots is not None:
        terminal.table("slot errors by attribute", *single.slot_table(found.slots))


def prepared(args: argparse.Namespace, data: Path, overrides: Sequence[str]) -> Job:
    """Read ``data`` and the settings; nothing is answered yet.

    Raises  UsageError and DataError as ``measure`` says; ConfigError for bad rules of slots.
    """
    from tunectl.backends import evaluation_tools

    layout = Layout()
    root = settings(layout, overrides)
    how = decoding(args, root)
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit {args.limit}: at least 1")
    if not data.exists() and not set("*?[") & set(str(data)):
        raise UsageError(f"{data}: there is no such file")
    examples, skipped = read(args, data, reading(layout, root))
    task = _task(args, root, examples, how)
    return Job(data, root, task, len(examples), skipped, evaluation_tools.backend(root.profile, None))


def measured(job: Job, chosen: Chosen) -> tuple[Measured, Entry]:
    """One model's answers to the inputs of the job, and everything measured on them."""
    from tunectl.evaluation import single

    task, backend = job.task, job.backend
    generator = backend.open(chosen.folder, chosen.adapter)
    try:
        one = single.answered(task, generator, backend.prompter(chosen.folder, chosen.adapter))
    finally:
        generator.close()
    assert one.cost is not None
    found = single.Measured(
        data=str(job.data),
        model=str(chosen.folder),
        adapter=None if chosen.adapter is None else str(chosen.adapter),
        inputs=len(task.items),
        available=job.available,
        references=sum(len(item.references) for item in task.items),
        skipped=job.skipped,
        scores=single.scored(task, one, backend.tools),
        cost=one.cost,
        decoding=task.how.model_dump(),
        confidence=task.gate.confidence,
        resamples=task.gate.resamples,
        bleu_signature=backend.signature,
        slots=single.slot_report(task, one, backend.tools),
    )
    return found, one


def settings(layout: Layout, overrides: Sequence[str]) -> Root:
    """The project's configuration with the recorded and the typed overrides."""
    from tunectl.config import check
    from tunectl.config import overrides as recorded

    return check.load(layout, recorded.merge(recorded.replay(layout), list(overrides))).root


def decoding(args: argparse.Namespace, root: Root) -> Greedy | Beams:
    """Greedy, or beams where they are asked for."""
    from tunectl.config.evaluate import Beams, Greedy

    tokens = root.evaluate.decoding.max_new_tokens if args.max_new_tokens is None else args.max_new_tokens
    if tokens < 1:
        raise UsageError(f"--max-new-tokens {tokens}: at least 1")
    if args.beams is None or args.beams == 1:
        return Greedy(method="greedy", max_new_tokens=tokens)
    if not 2 <= args.beams <= 16:
        raise UsageError(f"--beams {args.beams}: must be 1 to 16")
    return Beams(method="beams", max_new_tokens=tokens, beams=args.beams, length_penalty=args.length_penalty)


def reading(layout: Layout, root: Root) -> Ingest:
    """How the project reads its sources: as the artifacts were made, or as declared where none were yet."""
    if not layout.config("ingest").is_file():
        return root.ingest
    from tunectl.config import resolved

    found, _ = resolved.read(layout, "ingest")
    ingest: Ingest = found.ingest
    return ingest


def read(args: argparse.Namespace, data: Path, ingest: Ingest) -> tuple[list[Item], dict[str, int]]:
    """The inputs of ``data``, and how many of its examples cannot be one, by reason.

    Raises  DataError when the file is missing or empty, its columns tell nothing, or no row has input and reference.
    """
    from tunectl.artifacts.records import Example
    from tunectl.config.ingest import IngestStage
    from tunectl.core.errors import DataError
    from tunectl.evaluation import items
    from tunectl.stages import ingest as stage

    source = as_source(args, data, ingest)
    with tempfile.TemporaryDirectory() as folder:
        cfg = IngestStage(ingest=ingest.model_copy(update={"sources": {"data": source}}))
        try:
            stage.run(cfg, stage.Inputs(), stage.Outputs(Path(folder)))
        except DataError as error:  # it speaks of a declared source; here there are only the words of this command
            raise DataError(error.message.replace("ingest.sources.data: ", ""), hint=COLUMNS) from error
        found, skipped = items.from_examples(io.read_rows(Path(folder) / "examples.jsonl", Example))
    if not found:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise DataError(
            f"{data} holds no input with a reference answer{': ' + reasons if reasons else ''}",
            hint=COLUMNS,
        )
    return found, skipped


def as_source(args: argparse.Namespace, data: Path, ingest: Ingest) -> Files:
    """A source that reads ``data`` as the project's own source of examples is read, with what the words change."""
    from tunectl.config.ingest import FileReading, Files

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
        "limits": {"files": 1, "file_bytes": 10**12} | like.limits.model_dump(),
    }
    return _checked(Files, values)


def _checked(shape: type[Files], values: dict[str, Any]) -> Files:
    from pydantic import ValidationError

    try:
        return shape.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the source"
        raise UsageError(f"{place} = {first['input']!r}: {first['msg']}") from error


def _like(name: str | None, ingest: Ingest) -> Reading:
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


def _task(args: argparse.Namespace, root: Root, examples: Sequence[Item], how: Greedy | Beams) -> Task:
    from tunectl.config import slots as declared
    from tunectl.evaluation import items, single, slots

    cfg = root.evaluate
    wanted = cfg.slots if args.slots is None else declared.read(args.slots)
    return single.Task(
        items=items.drawn(examples, args.limit, root.seed),
        how=how,
        gate=cfg.gate,
        checks=cfg.checks,
        references=cfg.references,
        latency_inputs=cfg.latency_inputs,
        seed=root.seed,
        rules=None if wanted is None else slots.rules(wanted, examples),
        worst=cfg.worst,
        small=cfg.slices.small,
    )
