"""Read declared files as rows: which files a path means, which reader each type has, and what happens to a file that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import RejectedRow, Source
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.backends.readers.reader_process import make_child_reader
from tunectl.backends.text.encoding_detection import detect_encoding
from tunectl.config.schema.ingest import FileOptions
from tunectl.core import progress
from tunectl.core.errors import DataError
from tunectl.data.readers.csv_reader import read_table
from tunectl.data.readers.file_discovery import (
    IMAGES,
    MAX_UNPACK_RATIO,
    ROWS,
    SMALL_UNPACKED,
    SourceFile,
    file_type,
    find_outside,
    glob_files,
    is_dead_link,
    plain_suffix,
    require_known,
    unpacks_beyond,
)
from tunectl.data.readers.json_reader import read_json, read_json_lines
from tunectl.data.readers.row import RawRow
from tunectl.data.readers.text_reader import CorruptArchiveError, DecodeError, NotTextError

Declared = TypeVar("Declared", bound=FileOptions)
TABLE_READERS: Mapping[str, Callable[[SourceFile, FileOptions], Iterator[RawRow | RejectedRow]]] = {
    "csv": read_table,
    "tsv": read_table,
    "json": read_json,
    "jsonl": read_json_lines,
    "parquet": make_child_reader("parquet"),
    "arrow": make_child_reader("arrow"),
}
"""Reader of each file type that holds rows."""


def with_progress(rows: Iterator[RawRow | RejectedRow], label: str) -> Iterator[RawRow | RejectedRow]:
    """Yield the rows, with a progress bar that moves once per thousand: one move per row would cost more than reading it."""
    with progress.bar(label) as bar:
        for number, row in enumerate(rows, 1):
            yield row
            if number % 1000 == 0:
                bar.advance(1000)


def files(path: str, options: FileOptions, limit: int, key: str) -> list[SourceFile]:
    """Return the files that a source's ``path`` (file, folder or pattern) names, none opened yet.

    ``limit``: the largest number of files allowed; ``key``: the source's dotted key, for messages.
    Raises  DataError when there are none, too many, or none of a known kind.
    """
    root = ProjectPaths().root
    paths = glob_files(path, root, f"{key}.path")
    if len(paths) > limit:
        raise DataError(
            f"{key}.limits.max_files = {limit}: {path} holds {len(paths)} files",
            hint=f"raise {key}.limits.max_files, or name fewer files in {key}.path",
        )
    result = [
        with_type(
            SourceFile(
                at,
                at.as_posix(),
                file_type(at),
                {"file": at.stem, "folder": at.parent.name},
                find_outside(at, path, root),
            ),
            options,
        )
        for at in paths
    ]
    require_known(result, path, f"{key}.path")
    return result


def with_type(file: SourceFile, options: FileOptions) -> SourceFile:
    """Return the file with the type that its source declares, or unchanged if it declares none."""
    kind = file.type if options.type == "auto" else options.type
    return replace(file, type=kind)


def rows(
    file: SourceFile,
    source_config: Declared,
    key: str,
    readers: Mapping[str, Callable[[SourceFile, Declared], Iterator[RawRow | RejectedRow]]],
) -> Iterator[RawRow | RejectedRow]:
    """Yield the rows of a file with the reader of its type in ``readers``.

    A document that cannot be read becomes a RejectedRow; a file of rows that cannot be read is an error: one reject would stand for
    all rows behind the fault. ``key``: the source's dotted key.
    """
    reject = _explain_unread(file)
    if reject is not None:
        yield RejectedRow(Source(file.name), *reject)
        return
    kind = file.type or ""
    if kind not in readers:
        yield RejectedRow(
            Source(file.name), "not_a_table", f"a {kind} file holds no rows; known are {', '.join(readers)}"
        )
        return
    too_big = _explain_size(file.path, source_config.limits.max_file_bytes)
    if too_big is not None:
        yield RejectedRow(Source(file.name), "file_too_big", too_big)
        return
    try:
        yield from readers[kind](file, source_config)
    except DecodeError as error:
        yield _wrong_encoding(error, key)
    except NotTextError as error:
        if file.type in ROWS:
            raise DataError(f"{key}: {error.message}", hint=error.hint) from error
        yield RejectedRow(Source(file.name), "binary_file", f"it is {error.what}")
    except CorruptArchiveError as error:
        if file.type in ROWS:
            raise DataError(f"{key}: {error.message}", hint=error.hint) from error
        yield RejectedRow(Source(file.name), "unreadable", error.what)


def _explain_unread(file: SourceFile) -> tuple[RejectReason, str] | None:
    """Return why a file is not opened; None where it is."""
    if is_dead_link(file.path):
        return "unreadable", "it is a link to a file that is not there"
    if file.outside is not None:
        return "link_outside", f"it is a link to {file.outside}"
    if file.type is not None:
        return None
    if plain_suffix(file.path) in IMAGES:
        return "image_without_text", "a picture; run OCR on it first"
    return "unknown_type", f"{file.path.suffix or 'no extension'} is not a known kind"


def _explain_size(path: Path, limit: int) -> str | None:
    """Return why a file is not opened, packed or unpacked; None where it is small enough."""
    size = path.stat().st_size
    if size > limit:
        return f"{size} bytes; limits.max_file_bytes is {limit}"
    most = max(SMALL_UNPACKED, MAX_UNPACK_RATIO * size)
    if unpacks_beyond(path, min(limit, most)):
        if limit <= most:
            return f"{size} bytes hold more than limits.max_file_bytes, {limit}"
        return f"{size} bytes of it unpack to more than {MAX_UNPACK_RATIO} times as much; if it is yours, unpack it yourself"
    return None


def _wrong_encoding(error: DecodeError, key: str) -> RejectedRow:
    guess = detect_encoding(error.file, error.offset)
    seems = f"; it seems to be {guess}" if guess else ""
    if error.file.type in ROWS:
        hint = f"set {key}.encoding={guess or '<its encoding>'}, or write the file as UTF-8"
        raise DataError(f"{key}: {error.file.name}: {error.what}{seems}", hint=hint) from error
    return RejectedRow(Source(error.file.name), "wrong_encoding", f"{error.what}{seems}")
