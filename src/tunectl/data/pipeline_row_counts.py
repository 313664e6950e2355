"""Row counts over the whole pipeline: check each stage's sum, and that each stage read what the one before it wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec import Struct

from tunectl.artifacts import atomic_io, row_counts
from tunectl.artifacts.records import Example, RejectedRow
from tunectl.core.errors import ArtifactError

WRITES: Mapping[str, tuple[str, ...]] = {
    "ingest": ("documents.jsonl", "examples.jsonl"),
    "feedback": ("examples.jsonl",),
    "curate": ("documents.jsonl", "examples.jsonl"),
    "split": ("train.jsonl", "validation.jsonl", "test.jsonl", "documents.jsonl"),
    "preferences": ("train.jsonl", "validation.jsonl", "test.jsonl", "labeled_completions.jsonl"),
}
"""Files of each stage whose lines are its output records, in the order of the pipeline."""


class Reads(NamedTuple):
    """Files of an earlier stage whose rows a stage reads, and the unit in which it counts them."""

    stage: str
    """Stage that wrote them."""
    files: tuple[str, ...]
    unit: Literal["record", "answer"]
    """answer: each reference answer of a record is a row; a record without separate answers is one."""


READS: Mapping[str, tuple[Reads, ...]] = {
    "curate": (
        Reads("ingest", ("documents.jsonl", "examples.jsonl"), "record"),
        Reads("feedback", ("examples.jsonl",), "record"),
    ),
    "split": (Reads("curate", ("documents.jsonl", "examples.jsonl"), "record"),),
    "sft": (Reads("split", ("train.jsonl", "validation.jsonl"), "answer"),),
}
"""Stage that keeps an account to its rows in, which add up. Stage feedback leaves no file where there was no live traffic."""


class StageRowCounts(Struct, frozen=True):
    """Row counts of one stage, and the problems found in them."""

    stage: str
    rows_in: int
    kept: int
    rejected: dict[str, int]
    records_out: int | None
    """Records in its files, counted now; None for a stage without output records."""
    problems: list[str]
    """Problems, one sentence each; none where every sum holds."""


def stage_row_counts(folders: Mapping[str, Path]) -> list[StageRowCounts]:
    """Return the row counts of each stage of ``folders`` (artifact folder by stage, in pipeline order) that records them.

    Counts the lines of the files themselves, so that changed counts or a truncated file are found.
    Raises  ArtifactError when no folder has row counts: nothing was built yet.
    """
    lines = [_line(stage, folders) for stage, folder in folders.items() if (folder / row_counts.ROW_COUNTS).is_file()]
    if not lines:
        artifacts = next(iter(folders.values())).parent
        raise ArtifactError(
            f"no row_counts.json in {artifacts}/*: no stage has run yet", hint="run: tunectl repro --to split"
        )
    return lines


def problems(lines: Sequence[StageRowCounts]) -> list[str]:
    """Return the problems of all stages as sentences, in pipeline order."""
    return [problem for line in lines for problem in line.problems]


def _line(stage: str, folders: Mapping[str, Path]) -> StageRowCounts:
    folder = folders[stage]
    account = row_counts.load(folder)
    records = count_rows(folder, WRITES[stage]) if stage in WRITES else None
    result = [*_sum(account, folder), *_files(account, folder, records), *_link(account, folders)]
    return StageRowCounts(stage, account.rows_in, account.kept, account.rejected, records, result)


def _sum(account: row_counts.RowCounts, folder: Path) -> Iterator[str]:
    rejected = sum(account.rejected.values())
    if account.rows_in != account.kept + rejected:
        yield f"{folder / row_counts.ROW_COUNTS}: {account.rows_in} rows in, but {account.kept} kept + {rejected} rejected = {account.kept + rejected}"


def _files(account: row_counts.RowCounts, folder: Path, records: int | None) -> Iterator[str]:
    listed: Counter[str] = Counter(
        reject.reason for reject in atomic_io.read_rows(folder / row_counts.REJECTS, RejectedRow)
    )
    for reason in sorted(listed.keys() | account.rejected.keys()):
        if listed[reason] != account.rejected.get(reason, 0):
            yield f"{folder / row_counts.REJECTS}: {listed[reason]} rows of reason {reason}, but row_counts.json says {account.rejected.get(reason, 0)}"
    if records is not None and records != account.records_out:
        yield f"{folder}: {records} records in its files, but row_counts.json says {account.records_out}"


def _link(account: row_counts.RowCounts, folders: Mapping[str, Path]) -> Iterator[str]:
    reads = [source for source in READS.get(account.stage, ()) if source.stage in folders]
    if not reads:
        return
    counts = [
        count_rows(folders[source.stage], source.files)
        if source.unit == "record"
        else count_answers(folders[source.stage], source.files)
        for source in reads
    ]
    if sum(counts) != account.rows_in:
        wrote = [
            f"{source.stage} wrote {rows} {'' if source.unit == 'record' else 'answers '}({' + '.join(source.files)} in {folders[source.stage]})"
            for source, rows in zip(reads, counts, strict=True)
            if rows or source is reads[0]
        ]
        yield f"{folders[account.stage]}: {account.rows_in} rows in, but {' and '.join(wrote)}"


def count_rows(folder: Path, names: Sequence[str]) -> int:
    """Return the number of lines of the files ``names`` in ``folder``; an absent file has none."""
    total = 0
    for name in names:
        if (folder / name).is_file():
            with (folder / name).open("rb") as stream:
                total += sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))
    return total


def count_answers(folder: Path, names: Sequence[str]) -> int:
    """Return the number of reference answers in the files ``names``; an example without separate answers counts as one."""
    return sum(
        max(1, len(example.answers)) for name in names for example in atomic_io.read_rows(folder / name, Example)
    )
