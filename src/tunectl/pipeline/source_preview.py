"""Preview raw data before a project is created: how it is read, which rows are kept, and what curation would find.

The readers, the detection of formats and the filters are those of the stages ingest and curate; nothing is stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from tunectl.artifacts import atomic_io, manifest, row_counts
from tunectl.artifacts.records import Document, Example, RejectedRow
from tunectl.backends.readers import source_rows
from tunectl.backends.readers.reader_process import keep_child, read_hub_in_child
from tunectl.backends.text import language_id
from tunectl.config.schema.curate import CurateStage
from tunectl.config.schema.ingest import FileSource, HubDataset
from tunectl.config.schema.root import TunectlConfig
from tunectl.core import logging_setup, progress
from tunectl.data.curation_report import CurationReport
from tunectl.data.filters.language import UNKNOWN, LanguageFilter
from tunectl.data.readers.example_collector import ExampleReader
from tunectl.data.readers.file_discovery import TABLES, SourceFile
from tunectl.data.readers.row import RawRow
from tunectl.data.readers.source_reader import FormatDecision
from tunectl.pipeline.resolved_config import stage_view
from tunectl.pipeline.stages import curate
from tunectl.pipeline.stages.ingest import READERS

MAX_ROWS: Final = 20_000
"""Most rows of one file, or of a data set of the Hub, that are read."""
MAX_RECORDS: Final = 2_000
"""Most records that are curated: languages, duplicates, personal data."""
MAX_VALUES: Final = 30
"""Most different values of a column that is useful for slices."""
MAX_FIELDS: Final = 5
ENGLISH: Final = "en"
"""Language that ``conf/curate`` keeps by default."""
ENOUGH_SHARE: Final = 0.05
"""Share of the texts with a certain language from which a language counts: a smaller one is taken for detection errors."""
ROWS_A_VALUE: Final = 3
"""Fewest rows per value of such a column, on average."""


class SourcePreview(msgspec.Struct, frozen=True):
    """Counts of one source before a project exists: how it is read, what is kept, and what curate would find."""

    files: int
    rows: int
    kept: int
    rejected: dict[str, int]
    """Rows that ingest would reject, by reason."""
    cut: bool
    """Whether there may be more rows than were read."""
    read_as: list[FormatDecision]
    documents: int
    examples: int
    answers: int
    """Number of answers; more than examples where several rows have the same input."""
    fields: list[str]
    """Columns with few values, useful for slices."""
    unused: list[str]
    """Other columns that are not read."""
    curated: int
    """Number of records that were curated for the facts below."""
    languages: dict[str, int]
    """Number of texts by ISO code; ``unknown`` are short or uncertain ones."""
    main_languages: list[str]
    """Languages with a relevant share; English where none is certain."""
    exact_duplicates: int
    near_duplicates: int | None
    """None where curate does not search for them."""
    personal: dict[str, int]
    """Places that curate would mask, by kind of personal data."""
    turned_away: dict[str, int]
    """Records that curate would reject, by reason."""


def preview_source(root: TunectlConfig, name: str, declared: FileSource | HubDataset, scratch: Path) -> SourcePreview:
    """Return what ingest and curate would make of the ``declared`` source, with the filters of ``root``; ``scratch`` is an empty folder.

    Raises  DataError where the source is missing, empty, or of an unknown type or format; InfrastructureError for a Hub that cannot be reached.
    """
    records: list[Document | Example] = []
    flags = {"cut": False}
    collector = ExampleReader(
        name,
        declared,
        declared.path if isinstance(declared, FileSource) else declared.id,
        folder=scratch,
        tally=row_counts.RowCounter("ingest"),
        emit=records.append,
        max_rejected_share=1.0,
    )

    def limit(rows: Iterable[RawRow | RejectedRow]) -> Iterator[RawRow | RejectedRow]:
        stream = iter(rows)
        yield from islice(stream, MAX_ROWS)
        flags["cut"] = flags["cut"] or next(stream, None) is not None

    key = f"ingest.sources.{name}"
    with keep_child(), logging_setup.mute("tunectl.data"):  # the preview has what the readers say
        for file, rows in _open(declared, key):
            collector.read_file(file, limit(rows))
        report = collector.finish()
        unused = [column for item in report.read_as for column in item.unused]
        fields = _find_fields(declared, key, unused)
    languages = _count_languages(root, records[:MAX_RECORDS])
    main_languages = _choose_languages(languages)
    result = _curate(root, records[:MAX_RECORDS], main_languages, scratch)
    return SourcePreview(
        files=report.files,
        rows=report.rows,
        kept=report.kept,
        rejected=report.rejected,
        cut=flags["cut"],
        read_as=report.read_as,
        documents=report.documents,
        examples=report.examples,
        answers=report.answers,
        fields=fields,
        unused=[column for column in unused if column not in fields],
        curated=min(len(records), MAX_RECORDS),
        languages=languages,
        main_languages=main_languages,
        exact_duplicates=result.duplicates.exact or 0,
        near_duplicates=None if root.curate.near is None else result.duplicates.near or 0,
        personal=result.personal or {},
        turned_away=result.rejected,
    )


def _open(declared: FileSource | HubDataset, key: str) -> Iterator[tuple[SourceFile, Iterator[RawRow | RejectedRow]]]:
    if isinstance(declared, HubDataset):
        yield SourceFile(Path(), f"hf://datasets/{declared.id}", None), read_hub_in_child(declared)
        return
    files = source_rows.files(declared.path, declared, declared.limits.max_files, key)
    for file in progress.track(files, "looking at files"):
        yield file, source_rows.rows(file, declared, key, READERS)


def _find_fields(declared: FileSource | HubDataset, key: str, unused: list[str]) -> list[str]:
    """Return the columns, of those that nothing reads, with few different texts in the first table."""
    if not unused:
        return []
    tables = (rows for file, rows in _open(declared, key) if isinstance(declared, HubDataset) or file.type in TABLES)
    values: dict[str, set[str]] = defaultdict(set)
    rows_seen = 0
    for row in islice(next(tables, iter(())), MAX_RECORDS):
        if isinstance(row, RawRow):
            rows_seen += 1
            for column in unused:
                value = row.columns.get(column)
                if isinstance(value, str) and value.strip():
                    values[column].add(value)
    most = min(MAX_VALUES, rows_seen // ROWS_A_VALUE)
    return [column for column in unused if 2 <= len(values[column]) <= most][:MAX_FIELDS]


def _count_languages(root: TunectlConfig, records: list[Document | Example]) -> dict[str, int]:
    """Return the number of texts by language, detected as in curate."""
    rule = root.curate.language
    if rule is None:
        return {}
    judge = LanguageFilter(rule, language_id.make_detector(list(rule.allowed)))
    for _ in judge(records):
        pass
    return dict(judge.counts)


def _choose_languages(counts: dict[str, int]) -> list[str]:
    """Return the languages that are no accident, English first where it is among them."""
    identified = {code: count for code, count in counts.items() if code != UNKNOWN}
    least = sum(identified.values()) * ENOUGH_SHARE
    result = [code for code, count in identified.items() if count >= least]
    return sorted(result, key=lambda code: (code != ENGLISH, code)) or [ENGLISH]


def _curate(
    root: TunectlConfig, records: list[Document | Example], languages: list[str], scratch: Path
) -> CurationReport:
    """Run the stage curate on a sample, with the languages that are in it."""
    view = stage_view("curate", root)
    view["curate"] = {**view["curate"], "max_rejected_share": 1.0}
    if view["curate"]["language"] is not None:
        view["curate"]["language"] = {**view["curate"]["language"], "allowed": languages}
    folders = {name: scratch / name for name in ("ingest", "feedback", "curate")}
    for folder in folders.values():
        folder.mkdir()
    atomic_io.write_rows(
        folders["ingest"] / "documents.jsonl", (record for record in records if isinstance(record, Document))
    )
    atomic_io.write_rows(
        folders["ingest"] / "examples.jsonl", (record for record in records if isinstance(record, Example))
    )
    atomic_io.write_json(folders["feedback"] / manifest.PASSED_THROUGH, {})
    inputs = curate.Inputs(folders["ingest"], folders["feedback"])
    curate.run(CurateStage.model_validate(view), inputs, curate.Outputs(folders["curate"]))
    curation_report: CurationReport = atomic_io.read_json(folders["curate"] / "report.json", CurationReport)
    return curation_report
