"""Stage ingest: declared sources -> documents and examples, with an account of every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tunectl.artifacts import io, tally
from tunectl.artifacts.layout import Layout
from tunectl.artifacts.records import Document, Example, Reject
from tunectl.backends import source_files
from tunectl.backends.fetch_pages import Fetcher
from tunectl.backends.read_docx import read_docx
from tunectl.backends.read_html import read_html
from tunectl.backends.read_hub import read_hub
from tunectl.backends.read_pdf import read_pdf
from tunectl.config.ingest import FileReading, Files, Hub, IngestStage, Urls
from tunectl.config.ingest import Source as Declared
from tunectl.core import progress
from tunectl.data.reading.collect import Collector, SourceReport
from tunectl.data.reading.files import SourceFile
from tunectl.data.reading.plain import read_lines, read_markdown, read_text
from tunectl.data.reading.rows import Row

Reader = Callable[[SourceFile, FileReading], Iterator[Row | Reject]]
READERS: Mapping[str, Reader] = {
    "html": read_html,
    "pdf": read_pdf,
    "docx": read_docx,
    "markdown": read_markdown,
    "text": read_text,
    "lines": read_lines,
    **source_files.TABLE_READERS,
}
"""Kind of file to what reads it."""
DECISIONS = "decisions.json"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Nothing: the sources are declared in the configuration."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the stage fills."""

    artifact: Path
    """documents.jsonl, examples.jsonl, decisions.json, account.json, rejects.jsonl."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Counts of the whole stage."""

    sources: int
    files: int
    rows_in: int
    kept: int
    rejected: dict[str, int]
    """Reason to rows."""
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
    """Read every declared source.

    Reads    the sources, relative to the current folder; pages through the cache
    Writes   Document and Example rows, the decision made for each source, the row account
    Returns  Metrics, counts of files, rows and records
    Raises   DataError when a source is missing, empty, of another kind or format than it was taken for, all rejected, or
             when more than ingest.max_rejected_share of all rows were rejected; EnvironmentFailure for a Hub out of reach
    """
    total = tally.Tally("ingest")
    reports: dict[str, SourceReport] = {}
    with _Writer(outputs.artifact) as writer:
        for kind, declared in cfg.ingest.sources.items():
            collector = Collector(
                kind,
                declared,
                _words(declared),
                folder=outputs.artifact,
                tally=total,
                emit=writer.write,
                max_rejected_share=cfg.ingest.max_rejected_share,
            )
            _read(declared, f"ingest.sources.{kind}", collector, READERS if readers is None else readers)
            reports[kind] = collector.finish()
    records = sum(item.documents + item.examples for item in reports.values())
    io.write_json(outputs.artifact / DECISIONS, reports)
    account = tally.save(
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
    """Both files of records, open while the sources are read; they appear when all went well."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._encoder = msgspec.json.Encoder()

    def __enter__(self) -> _Writer:
        self._documents = self._stack.enter_context(io.writing(self._folder / "documents.jsonl"))
        self._examples = self._stack.enter_context(io.writing(self._folder / "examples.jsonl"))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def write(self, record: Document | Example) -> None:
        """Write one record into its file."""
        stream = self._documents if isinstance(record, Document) else self._examples
        stream.write(self._encoder.encode(record) + b"\n")


def _words(declared: Declared) -> str:
    if isinstance(declared, Files):
        return declared.path
    if isinstance(declared, Hub):
        return f"{declared.id} at {declared.revision}"
    return f"{declared.urls[0]}" + (f" and {len(declared.urls) - 1} more" if len(declared.urls) > 1 else "")


def _read(declared: Declared, key: str, collector: Collector, readers: Mapping[str, Reader]) -> None:
    label = key.rpartition(".")[2]
    if isinstance(declared, Hub):
        collector.take(
            SourceFile(Path(), f"hf://datasets/{declared.id}", None), source_files.counted(read_hub(declared), label)
        )
    elif isinstance(declared, Urls):
        with Fetcher(declared.fetch, Layout().cache / "pages", declared.limits.file_bytes) as fetcher:
            for url in progress.track(declared.urls, label):
                found = fetcher.get(url)
                if isinstance(found, Reject):
                    collector.take(SourceFile(Path(), url, "html"), [found])
                else:
                    collector.take(
                        found, source_files.rows(source_files.typed(found, declared), declared, key, readers)
                    )
    elif len(files := source_files.files(declared.path, declared, declared.limits.files, key)) == 1:
        collector.take(files[0], source_files.counted(source_files.rows(files[0], declared, key, readers), label))
    else:
        for file in progress.track(files, label):
            collector.take(file, source_files.rows(file, declared, key, readers))
