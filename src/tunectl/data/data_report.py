"""Facts of the data report, collected from the artifacts; the command line draws it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from tunectl.artifacts import atomic_io, row_counts
from tunectl.artifacts.records import SPLIT_NAMES, Document, Example, RejectedRow
from tunectl.core.errors import ArtifactError
from tunectl.data.curation_report import CurationReport
from tunectl.data.pipeline_row_counts import StageRowCounts, stage_row_counts
from tunectl.data.readers.example_collector import SourceReport
from tunectl.data.record_text import input_text, output_text
from tunectl.data.split.report import NAME, SplitReport

MAX_SLICE_VALUES = 30
"""A field with more values than this identifies rows, and is no slice."""
SAMPLES = 5


class Lengths(Struct):
    """Word counts of the texts in the report, one number per text."""

    documents: list[int] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Words of every reference."""
    references: list[int] = field(default_factory=list)
    """Number of reference answers of each input."""


class RejectCount(Struct, frozen=True):
    """Number of rows that one stage rejected for one reason, with samples."""

    stage: str
    reason: str
    rows: int
    samples: list[RejectedRow]
    """The first rows, at most five."""


class FieldShares(Struct, frozen=True):
    """Shares of the values of one field in train, validation and test."""

    field: str
    values: list[str]
    """Most frequent first."""
    shares: dict[str, list[float]]
    """Share of each value, by split."""


class DataFacts(Struct, frozen=True):
    """Everything that the page of the data report shows, read from artifacts."""

    accounts: list[StageRowCounts]
    losses: list[RejectCount]
    """Most rows first."""
    origin: str
    """The stage whose records are described: curate, or ingest where curate has not run."""
    kinds: dict[str, dict[str, int]]
    """Documents and examples by source."""
    lengths: Lengths
    sources: dict[str, SourceReport]
    """How ingest read each source."""
    curation: CurationReport | None
    """None where curate has not run."""
    clusters: list[int]
    """Sizes of the near-duplicate clusters that were kept together."""
    split: SplitReport | None
    """None where split has not run."""
    slices: list[FieldShares]
    weights: list[float]
    """Loss weights of train; empty where all are 1."""


def gather(folders: Mapping[str, Path]) -> DataFacts:
    """Return the facts of the report from the finished artifacts of ``folders`` (stage to folder, in pipeline order).

    Raises  ArtifactError when ingest has not run.
    """
    accounts = stage_row_counts(folders)
    origin = next((name for name in ("curate", "ingest") if (folders[name] / "examples.jsonl").is_file()), None)
    if origin is None:
        raise ArtifactError(
            f"{folders['ingest']} is not built, so there is no data to report on", hint="run: tunectl repro --to split"
        )
    kinds: dict[str, dict[str, int]] = {}
    lengths = Lengths()
    sizes: Counter[str] = Counter()
    for document in atomic_io.read_rows(folders[origin] / "documents.jsonl", Document):
        _count(kinds, document.kind, "documents")
        lengths.documents.append(len(document.text.split()))
    for example in atomic_io.read_rows(folders[origin] / "examples.jsonl", Example):
        _count(kinds, example.kind, "examples")
        _measure(lengths, example)
        sizes.update([example.cluster] if example.cluster is not None else [])
    split = _optional(folders["split"] / NAME, SplitReport)
    slices, weights = _slices(folders["split"]) if split else ([], [])
    return DataFacts(
        accounts=accounts,
        losses=_losses(folders),
        origin=origin,
        kinds=kinds,
        lengths=lengths,
        sources=_optional(folders["ingest"] / "decisions.json", dict[str, SourceReport]) or {},
        curation=_optional(folders["curate"] / "report.json", CurationReport),
        clusters=sorted(sizes.values(), reverse=True),
        split=split,
        slices=slices,
        weights=weights,
    )


def _optional(path: Path, shape: Any) -> Any:
    """Return the file as ``shape``; None where its stage has not run."""
    return atomic_io.read_json(path, shape) if path.is_file() else None


def _count(kinds: dict[str, dict[str, int]], kind: str, description: str) -> None:
    kinds.setdefault(kind, {"documents": 0, "examples": 0})[description] += 1


def _measure(lengths: Lengths, example: Example) -> None:
    if example.tokens is not None:
        return
    lengths.inputs.append(len(input_text(example).split()))
    if not example.answers:
        lengths.answers.append(len(output_text(example).split()))
        return
    lengths.references.append(len(example.answers))
    lengths.answers.extend(len(answer.text.split()) for answer in example.answers)


def _losses(folders: Mapping[str, Path]) -> list[RejectCount]:
    losses = []
    for stage, folder in folders.items():
        if not (folder / row_counts.ROW_COUNTS).is_file():
            continue
        account = row_counts.load(folder)
        losses += [
            RejectCount(stage, reason, rows, account.samples.get(reason, [])[:SAMPLES])
            for reason, rows in account.rejected.items()
        ]
    return sorted(losses, key=lambda loss: -loss.rows)


def _slices(folder: Path) -> tuple[list[FieldShares], list[float]]:
    counts: dict[str, dict[str, Counter[str]]] = {}
    weights: list[float] = []
    totals: Counter[str] = Counter()
    for part in SPLIT_NAMES:
        for example in atomic_io.read_rows(folder / f"{part}.jsonl", Example):
            totals[part] += 1
            if part == "train":
                weights.append(example.weight)
            for name, value in example.fields.items():
                counts.setdefault(name, {part: Counter() for part in SPLIT_NAMES})[part][value] += 1
    slices = [_slice(name, parts, totals) for name, parts in counts.items()]
    return [entry for entry in slices if 2 <= len(entry.values) <= MAX_SLICE_VALUES], weights if set(weights) != {
        1.0
    } else []


def _slice(name: str, parts: Mapping[str, Counter[str]], totals: Counter[str]) -> FieldShares:
    counts = sum(parts.values(), Counter[str]())
    values = [value for value, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return FieldShares(
        name,
        values,
        {
            part: [parts[part][value] / totals[part] if totals[part] else 0.0 for value in values]
            for part in SPLIT_NAMES
        },
    )


def list_findings(facts: DataFacts) -> list[tuple[str, str]]:
    """Return the main findings of the report as (severity, sentence); the severity is ``bad``, ``warn`` or ``good``."""
    notes = [("bad", problem) for line in facts.accounts for problem in line.problems] or [
        ("good", "Every row is accounted for.")
    ]
    for line in facts.accounts:
        share = sum(line.rejected.values()) / line.rows_in if line.rows_in else 0.0
        if share > 0.2:
            notes.append(("warn", f"{line.stage} rejected {share:.0%} of its {line.rows_in:,} rows."))
    return notes + (_split_notes(facts.split) if facts.split else [])


def _split_notes(report: SplitReport) -> list[tuple[str, str]]:
    notes = []
    records = sum(report.sizes.values())
    if report.largest_group > 0.3 * records:
        notes.append(
            (
                "warn",
                f"One group of {report.largest_group:,} records must stay together, out of {records:,}: the splits hang on where it goes.",
            )
        )
    if report.leaks and report.leaks.found + report.leaks.documents and not report.leaks.removed:
        notes.append(
            (
                "warn",
                f"{report.leaks.found + report.leaks.documents:,} train records and documents hold most of a validation or test text, and were left in.",
            )
        )
    if report.sizes["test"] < 100:
        notes.append(
            ("warn", f"Test has {report.sizes['test']} records: only large differences between models will show.")
        )
    notes.extend(("warn", sentence) for sentence in _list_field_differences(report))
    return notes


def _list_field_differences(report: SplitReport) -> Sequence[str]:
    """Return one sentence for each field whose test is significant and whose distance is not negligible."""
    sentences = []
    for entry in report.balance.get("records", []):
        if entry.test is None or entry.test.p_value >= 0.05 or entry.size == "negligible":
            continue
        oversized = [value.value for value in entry.values if value.out_of_balance and value.share > value.target]
        undersized = [value.value for value in entry.values if value.out_of_balance and value.share < value.target]
        descriptions = [f"too much {', '.join(oversized)}"] if oversized else []
        descriptions += [f"too little {', '.join(undersized)}"] if undersized else []
        sentences.append(
            f"{entry.field} is not that of the population ({entry.size} distance): {'; '.join(descriptions)}."
        )
    return sentences
