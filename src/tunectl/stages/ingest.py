"""Stage ingest: declared sources -> documents and examples, with an account of every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tunectl.artifacts import io, tally
from tunectl.artifacts.layout import Layout
from tunectl.artifacts.records import Document, Example, Reject, Source
from tunectl.backends.fetch_pages import Fetcher
from tunectl.backends.guess_encoding import guess_encoding
from tunectl.backends.read_docx import read_docx
from tunectl.backends.read_html import read_html
from tunectl.backends.read_hub import read_hub
from tunectl.backends.read_parquet import read_arrow, read_parquet
from tunectl.backends.read_pdf import read_pdf
from tunectl.config.ingest import FileReading, Files, Hub, IngestStage, Urls
from tunectl.config.ingest import Source as Declared
from tunectl.core import progress
from tunectl.core.errors import DataError
from tunectl.data.reading.collect import Collector, SourceReport
from tunectl.data.reading.files import IMAGES, TABLES, SourceFile, matching, plain_suffix, require_known, type_of
from tunectl.data.reading.jsons import read_json, read_json_lines
from tunectl.data.reading.plain import Damaged, NotText, Undecodable, read_lines, read_markdown, read_text
from tunectl.data.reading.rows import Row
from tunectl.data.reading.tables import read_table

Reader = Callable[[SourceFile, FileReading], Iterator[Row | Reject]]
READERS: Mapping[str, Reader] = {
    "html": read_html,
    "pdf": read_pdf,
    "docx": read_docx,
    "markdown": read_markdown,
    "text": read_text,
    "lines": read_lines,
    "csv": read_table,
    "tsv": read_table,
    "json": read_json,
    "jsonl": read_json_lines,
    "parquet": read_parquet,
    "arrow": read_arrow,
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
        collector.take(SourceFile(Path(), f"hf://datasets/{declared.id}", None), _counted(read_hub(declared), label))
    elif isinstance(declared, Urls):
        with Fetcher(declared.fetch, Layout().cache / "pages", declared.limits.file_bytes) as fetcher:
            for url in progress.track(declared.urls, label):
                found = fetcher.get(url)
                if isinstance(found, Reject):
                    collector.take(SourceFile(Path(), url, "html"), [found])
                else:
                    collector.take(found, _rows(_typed(found, declared), declared, key, readers))
    elif len(files := _files(declared, key)) == 1:
        collector.take(files[0], _counted(_rows(files[0], declared, key, readers), label))
    else:
        for file in progress.track(files, label):
            collector.take(file, _rows(file, declared, key, readers))


def _counted(rows: Iterator[Row | Reject], label: str) -> Iterator[Row | Reject]:
    """The rows, with a bar that moves by a thousand: one a row would cost more than reading it."""
    with progress.bar(label) as shown:
        for number, row in enumerate(rows, 1):
            yield row
            if number % 1000 == 0:
                shown.advance(1000)


def _files(declared: Files, key: str) -> list[SourceFile]:
    """The files of a source, none opened yet.

    Raises  DataError when there are none, too many, or none of a known kind.
    """
    paths = matching(declared.path, Layout().root, f"{key}.path")
    limit = declared.limits.files
    if len(paths) > limit:
        raise DataError(
            f"{key}.limits.files = {limit}: {declared.path} holds {len(paths)} files",
            hint="raise the limit, or name a smaller part",
        )
    files = [
        _typed(
            SourceFile(path, path.as_posix(), type_of(path), {"file": path.stem, "folder": path.parent.name}), declared
        )
        for path in paths
    ]
    require_known(files, declared.path, f"{key}.path")
    return files


def _typed(file: SourceFile, declared: Files | Urls) -> SourceFile:
    kind = file.type if declared.type == "auto" else declared.type
    return SourceFile(file.path, file.name, kind, file.columns)


def _rows(file: SourceFile, declared: Files | Urls, key: str, readers: Mapping[str, Reader]) -> Iterator[Row | Reject]:
    """The rows of a file. A page that cannot be read is a reject; a table that cannot be read is an error."""
    if file.type is None:
        is_image = plain_suffix(file.path) in IMAGES
        reason = "image_without_text" if is_image else "unknown_type"
        detail = (
            "a picture; run OCR on it first"
            if is_image
            else f"{file.path.suffix or 'no extension'} is not a known kind"
        )
        yield Reject(Source(file.name), reason, detail)
        return
    size = file.path.stat().st_size
    if size > declared.limits.file_bytes:
        detail = f"{size} bytes; limits.file_bytes is {declared.limits.file_bytes}"
        yield Reject(Source(file.name), "file_too_big", detail)
        return
    try:
        yield from readers[file.type](file, declared)
    except Undecodable as error:
        yield _wrong_encoding(error, key)
    except NotText as error:
        if file.type in TABLES:
            raise DataError(f"{key}: {error.message}", hint=error.hint) from error
        yield Reject(Source(file.name), "binary_file", f"it is {error.what}")
    except Damaged as error:
        if file.type in TABLES:
            raise DataError(f"{key}: {error.message}", hint=error.hint) from error
        yield Reject(Source(file.name), "unreadable", error.what)


def _wrong_encoding(error: Undecodable, key: str) -> Reject:
    guess = guess_encoding(error.file, error.offset)
    seems = f"; it seems to be {guess}" if guess else ""
    if error.file.type in TABLES:
        hint = f"set {key}.encoding={guess or '<its encoding>'}, or write the file as UTF-8"
        raise DataError(f"{key}: {error.file.name}: {error.what}{seems}", hint=hint) from error
    return Reject(Source(error.file.name), "wrong_encoding", f"{error.what}{seems}")
