"""Stage ingest: declared sources -> documents and examples, with counts of every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from tunectl.artifacts import atomic_io, row_counts
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Document, Example, RejectedRow, Source
from tunectl.backends.readers import source_rows
from tunectl.backends.readers.reader_process import keep_child, make_child_reader, read_html_in_child, read_hub_in_child
from tunectl.backends.readers.web_fetch import Fetcher
from tunectl.config.schema.ingest import DataSource as Declared
from tunectl.config.schema.ingest import FileReading, FileSource, HubDataset, IngestStage, UrlSource
from tunectl.core import progress
from tunectl.data.readers.example_collector import ExampleReader, SourceReport
from tunectl.data.readers.file_discovery import TABLES, SourceFile, file_type
from tunectl.data.readers.row import RawRow
from tunectl.data.readers.text_reader import read_lines, read_markdown, read_text

Reader = Callable[[SourceFile, FileReading], Iterator[RawRow | RejectedRow]]
READERS: Mapping[str, Reader] = {
    "html": read_html_in_child,
    "pdf": make_child_reader("pdf"),
    "docx": make_child_reader("docx"),
    "markdown": read_markdown,
    "text": read_text,
    "lines": read_lines,
    **source_rows.TABLE_READERS,
}
"""Reader of each type of file."""
DECISIONS = "decisions.json"


@dataclass(frozen=True, slots=True)
class Inputs:
    """No fields: ingest reads the sources that ``ingest.sources`` declares."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folder that ingest fills with documents, examples, the format decided for each source, row counts and rejects."""

    artifact: Path
    """documents.jsonl, examples.jsonl, decisions.json, row_counts.json, rejects.jsonl."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers of files, rows and records of all sources together."""

    sources: int
    files: int
    rows_in: int
    kept: int
    rejected: dict[str, int]
    """Rows by reject reason."""
    documents: int
    examples: int
    answers: int
    """Reference answers; more than examples where several rows had the same input."""


def run(
    cfg: IngestStage,
    inputs: Inputs,  # noqa: ARG001  (every stage is called with the same three)
    outputs: Outputs,
    *,
    readers: Mapping[str, Reader] | None = None,
) -> Metrics:
    """Read every declared source into documents and examples.

    Reads    the sources, relative to the current folder; pages through the cache
    Writes   Document and Example rows, the decision made for each source, row_counts.json
    Returns  Metrics, counts of files, rows and records
    Raises   DataError when a source is missing, empty, of another kind or format than it was taken for, all rejected, or
             when more than ingest.max_rejected_share of all rows were rejected; InfrastructureError for a Hub out of reach
    """
    total = row_counts.RowCounter("ingest")
    reports: dict[str, SourceReport] = {}
    with _Writer(outputs.artifact) as writer, keep_child():
        for kind, source in cfg.ingest.sources.items():
            collector = ExampleReader(
                kind,
                source,
                _describe_source(source),
                folder=outputs.artifact,
                tally=total,
                emit=writer.write,
                max_rejected_share=cfg.ingest.max_rejected_share,
            )
            _read(source, f"ingest.sources.{kind}", collector, READERS if readers is None else readers)
            reports[kind] = collector.finish()
    records = sum(item.documents + item.examples for item in reports.values())
    atomic_io.write_json(outputs.artifact / DECISIONS, reports)
    account = row_counts.save(
        total,
        outputs.artifact,
        records_out=records,
        max_rejected_share=cfg.ingest.max_rejected_share,
        setting="ingest.max_rejected_share",
    )
    return Metrics(
        sources=len(reports),
        files=sum(item.files for item in reports.values()),
        rows_in=account.rows_in,
        kept=account.kept,
        rejected=account.rejected,
        documents=sum(item.documents for item in reports.values()),
        examples=sum(item.examples for item in reports.values()),
        answers=sum(item.answers for item in reports.values()),
    )


class _Writer:
    """Both files of records, open while the sources are read; they appear when all succeeded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._encoder = msgspec.json.Encoder()

    def __enter__(self) -> _Writer:
        self._documents = self._stack.enter_context(atomic_io.atomic_open(self._folder / "documents.jsonl"))
        self._examples = self._stack.enter_context(atomic_io.atomic_open(self._folder / "examples.jsonl"))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def write(self, record: Document | Example) -> None:
        """Write one record into its file."""
        stream = self._documents if isinstance(record, Document) else self._examples
        stream.write(self._encoder.encode(record) + b"\n")


def _describe_source(source: Declared) -> str:
    if isinstance(source, FileSource):
        return source.path
    if isinstance(source, HubDataset):
        return f"{source.id} at {source.revision}"
    return f"{source.urls[0]}" + (f" and {len(source.urls) - 1} more" if len(source.urls) > 1 else "")


def _leave_out_split(rows: Iterator[RawRow | RejectedRow]) -> Iterator[RawRow | RejectedRow]:
    """Yield the rows of a fetched page without the split that its front matter or its ``<meta>`` names: it is not the page's to choose."""
    for row in rows:
        if isinstance(row, RawRow):
            columns = {name: value for name, value in row.columns.items() if name.strip().lower() != "split"}
            yield msgspec.structs.replace(row, columns=columns)
        else:
            yield row


def _refuse_undeclared_table(
    page: SourceFile, url: str, source: UrlSource, key: str
) -> Iterator[RawRow | RejectedRow] | None:
    """Return a reject in place of the rows of a page that is a table only by its server's label, or by where it redirects to; else None.

    A table that cannot be read ends the stage, and its rows may name their split: its author does not decide that it is one.
    """
    if page.type not in TABLES or source.type == page.type or file_type(Path(urlsplit(url).path)) in TABLES:
        return None
    detail = f"the page is sent as {page.type}, a table; read tables of the web from a source that says so: {key}.type={page.type}"
    return iter([RejectedRow(Source(url), "undeclared_table", detail)])


def _read(source: Declared, key: str, collector: ExampleReader, readers: Mapping[str, Reader]) -> None:
    label = key.rpartition(".")[2]
    if isinstance(source, HubDataset):
        collector.read_file(
            SourceFile(Path(), f"hf://datasets/{source.id}", None),
            source_rows.with_progress(read_hub_in_child(source), label),
        )
    elif isinstance(source, UrlSource):
        with Fetcher(source.fetch, ProjectPaths().cache / "pages", source.limits.max_file_bytes) as fetcher:
            for url in progress.track(source.urls, label):
                result = fetcher.get(url)
                if isinstance(result, RejectedRow):
                    collector.read_file(SourceFile(Path(), url, "html"), [result])
                else:
                    page = source_rows.with_type(result, source)
                    rows = _refuse_undeclared_table(page, url, source, key) or source_rows.rows(
                        page, source, key, readers
                    )
                    keeps_split = page.type in TABLES or source.columns.split is not None
                    collector.read_file(result, rows if keeps_split else _leave_out_split(rows))
    elif len(files := source_rows.files(source.path, source, source.limits.max_files, key)) == 1:
        collector.read_file(
            files[0], source_rows.with_progress(source_rows.rows(files[0], source, key, readers), label)
        )
    else:
        for file in progress.track(files, label):
            collector.read_file(file, source_rows.rows(file, source, key, readers))
