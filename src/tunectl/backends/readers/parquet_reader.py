"""pyarrow: Parquet and Arrow files, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunectl.artifacts.records import RejectedRow, Source
from tunectl.config.schema.ingest import FileOptions
from tunectl.core.errors import DataError
from tunectl.core.optional import import_optional
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.row import RawRow

BATCH = 1024
"""Rows held in memory at once, for files that do not say."""


def read_parquet(file: SourceFile, _reading: FileOptions) -> Iterator[RawRow | RejectedRow]:
    """The rows of a Parquet file, numbered from 1.

    Raises  DataError when it cannot be read.
    """
    parquet = import_optional("pyarrow.parquet", extra="data")
    arrow = import_optional("pyarrow", extra="data")
    try:
        with parquet.ParquetFile(file.path) as table:
            yield from _rows(table.iter_batches(batch_size=BATCH), file.name)
    except (arrow.ArrowException, OSError) as error:
        raise _broken(file, "Parquet", error) from error


def read_arrow(file: SourceFile, _reading: FileOptions) -> Iterator[RawRow | RejectedRow]:
    """The rows of an Arrow file or stream (also Feather version 2), numbered from 1.

    Raises  DataError when it cannot be read.
    """
    arrow = import_optional("pyarrow", extra="data")
    try:
        with arrow.memory_map(str(file.path)) as source:
            yield from _rows(_batches(source), file.name)
    except (arrow.ArrowException, OSError) as error:
        raise _broken(file, "Arrow", error) from error


def _batches(source: Any) -> Iterator[Any]:
    ipc = import_optional("pyarrow.ipc", extra="data")
    if source.read(6) == b"ARROW1":
        source.seek(0)
        reader = ipc.open_file(source)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        source.seek(0)
        yield from ipc.open_stream(source)


def _rows(batches: Iterator[Any], name: str) -> Iterator[RawRow]:
    number = 0
    for batch in batches:
        for columns in batch.to_pylist():
            number += 1
            yield RawRow(Source(name, number), columns)


def _broken(file: SourceFile, what: str, error: Exception) -> DataError:
    return DataError(
        f"{file.name} cannot be read as {what}: {' '.join(str(error).split())}",
        hint="write the file again, or pin its kind with the source's type",
    )
