"""pyarrow: Parquet and Arrow files (also streams, and Feather version 2), batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from msgspec import msgpack

from tunectl.core.errors import DataError
from tunectl.core.optional import import_optional
from tunectl.data.readers.file_discovery import SourceFile

_NOT_IN_PYTHON = (ValueError, OverflowError, LookupError, NotImplementedError)
"""Errors of pyarrow and Python for a value of Arrow that Python has no value for."""
BATCH = 1024
"""Rows per batch, for files that do not declare it."""
EXTENSIONS: dict[int, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    1: (datetime, datetime.isoformat, datetime.fromisoformat),
    2: (date, date.isoformat, date.fromisoformat),
    3: (time, time.isoformat, time.fromisoformat),
    4: (
        timedelta,
        lambda value: str(value // timedelta(microseconds=1)),
        lambda text: timedelta(microseconds=int(text)),
    ),
    5: (Decimal, str, Decimal),
}
"""Types that MessagePack does not have: extension code, encoder and decoder; order matters, because a datetime is a date, too."""
INSPECTED_TYPES = ("date", "time", "duration", "decimal", "dictionary", "run_end", "view")
"""Words in the names of Arrow's types for these (time is in timestamp), and for values that may be more than the bytes that hold them."""


def read_batches(file: SourceFile) -> Iterator[Any]:
    """Yield the contents of a Parquet or Arrow file as pyarrow record batches.

    Raises  DataError when the file cannot be read.
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
        raise _build_read_error(file, "Parquet" if file.type == "parquet" else "Arrow", error) from error


def _batches(source: Any) -> Iterator[Any]:
    ipc = import_optional("pyarrow.ipc", extra="data")
    if source.read(6) == b"ARROW1":
        source.seek(0)
        reader = ipc.open_file(source)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        source.seek(0)
        yield from ipc.open_stream(source)


def _build_read_error(file: SourceFile, description: str, error: Exception) -> DataError:
    return DataError(
        f"{file.name} cannot be read as {description}: {' '.join(str(error).split())}",
        hint="write the file again, or set type of its source in ingest.sources to what it is",
    )


def list_columns(batch: Any, max_characters: int) -> list[list[Any]]:
    """Return the columns of a pyarrow batch as lists of plain Python values: dictionary, run-length and view encodings are resolved.

    A text longer than ``max_characters`` is cut to one character more than that, so that it is still rejected as too long. What Python
    cannot hold, such as a date in the year 300,000 or a text that is not UTF-8, is None: one value must not end the file.
    """
    columns = []
    for column in batch.columns:
        try:
            values = column.to_pylist()
        except _NOT_IN_PYTHON:
            values = [_read_value(value) for value in column]
        # Most columns are used as they are: MessagePack has all their types, and together they are below the limit.
        if column.nbytes > max_characters or any(type_name in str(column.type) for type_name in INSPECTED_TYPES):
            values = [_simplify(value, max_characters) for value in values]
        columns.append(values)
    return columns


def _read_value(value: Any) -> Any:
    try:
        return value.as_py()
    except _NOT_IN_PYTHON:
        return None


def _simplify(value: Any, max_characters: int) -> Any:
    """Return a value as MessagePack has it; see ``EXTENSIONS`` for what it lacks."""
    if isinstance(value, str | bytes):
        return value if len(value) <= max_characters else value[: max_characters + 1]
    if isinstance(value, dict):
        return {name: _simplify(item, max_characters) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_simplify(item, max_characters) for item in value]
    for code, (kind, write, _) in EXTENSIONS.items():
        if isinstance(value, kind):
            return msgpack.Ext(code, write(value).encode())
    return value


def restore_extension(code: int, data: memoryview) -> Any:
    """Return the value (such as a date or a decimal) that ``_simplify`` encoded as MessagePack extension ``code``."""
    return EXTENSIONS[code][2](str(data, "ascii"))
