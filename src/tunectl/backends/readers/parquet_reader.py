"""pyarrow: Parquet and Arrow files (also streams, and Feather version 2), batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunectl.core.errors import DataError
from tunectl.core.optional import import_optional
from tunectl.data.readers.file_discovery import SourceFile

BATCH = 1024
"""Rows per batch, for files that do not declare it."""


def read_batches(file: SourceFile) -> Iterator[Any]:
    """Yield the batches of a Parquet or Arrow file, as pyarrow has them.

    Raises  DataError when it cannot be read.
    """
    arrow = import_optional("pyarrow", extra="data")
    parquet = import_optional("pyarrow.parquet", extra="data")
    try:
        if file.type == "parquet":
            with parquet.ParquetFile(file.path) as table:
                yield from table.iter_batches(batch_size=BATCH)
        else:
            with arrow.memory_map(str(file.path)) as source:
                yield from _batches(source)
    except (arrow.ArrowException, OSError) as error:
        raise _broken(file, "Parquet" if file.type == "parquet" else "Arrow", error) from error


def _batches(source: Any) -> Iterator[Any]:
    ipc = import_optional("pyarrow.ipc", extra="data")
    if source.read(6) == b"ARROW1":
        source.seek(0)
        reader = ipc.open_file(source)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        source.seek(0)
        yield from ipc.open_stream(source)


def _broken(file: SourceFile, description: str, error: Exception) -> DataError:
    return DataError(
        f"{file.name} cannot be read as {description}: {' '.join(str(error).split())}",
        hint="write the file again, or pin its kind with the source's type",
    )


def require_pyarrow() -> None:
    """Check that pyarrow is installed. Raises  MissingExtraError."""
    import_optional("pyarrow", extra="data")


def pack_batch(batch: Any) -> bytes:
    """Return a batch of pyarrow as a stream of Arrow."""
    arrow = import_optional("pyarrow", extra="data")
    ipc = import_optional("pyarrow.ipc", extra="data")
    sink = arrow.BufferOutputStream()
    with ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpack_batch(data: bytes) -> list[dict[str, Any]]:
    """Return the rows of a batch that ``pack_batch`` made."""
    ipc = import_optional("pyarrow.ipc", extra="data")
    with ipc.open_stream(data) as stream:
        result: list[dict[str, Any]] = stream.read_all().to_pylist()
    return result
