"""Read binary formats, web pages and data sets of the Hub in a subprocess with limits of memory, CPU time and wall time.

A PDF, a Word document, a Parquet file or a page can be crafted to take gigabytes or hours, or to crash the library that reads it. Here that ends
the child process, not ``ingest``: the file, or the page at which it happened, is a reject ``unreadable``, and the next file gets a new child. A
data set of the Hub is the whole source, so there it is a DataError. One child reads one file after another; it ends with its parent, whatever
ends that.

Frames on its pipes: four bytes of length (big endian), then msgpack; requests are ``ReadRequest``, answers ``RowFrame``.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Final

import msgspec
from msgspec import Struct

from tunectl.artifacts.records import RejectedRow, Source
from tunectl.backends.readers import html_reader, hub_dataset, parquet_reader
from tunectl.config.schema.ingest import FileOptions, HubDataset
from tunectl.core.errors import DataError, InfrastructureError, MissingExtraError, TunectlError
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.row import RawRow

ReaderRows = Iterator[RawRow | RejectedRow]
MAX_MEMORY_BYTES: Final = 4 << 30
"""Address space of the child. Libraries reserve more than they use: an idle one has about 1 GiB."""
MAX_CPU_SECONDS: Final = 600
"""Processor time for one file, or for a data set of the Hub without ``HUB_CPU_SECONDS``."""
HUB_CPU_SECONDS: Final = 1
"""Processor time that each batch of a data set of the Hub adds: it may have any number of rows, and a batch takes a tenth of this."""
MAX_SILENT_SECONDS: Final = 60.0
"""Time for one row, page or batch; the first waits for the libraries, too."""
MAX_HUB_SILENT_SECONDS: Final = 900.0
"""The same for a data set of the Hub: before its rows come, a row group of some 100 MB is fetched, and lost connections are made again."""
MAX_ROW_TEXTS: Final = 8
"""Texts of ``limits.max_characters`` that a row may have, four bytes a letter; a larger row of a table is a reject ``too_long``."""
TABLES: Final = ("parquet", "arrow")
BATCH_ROWS: Final = 256
"""Rows of a table that the child sends at once, unless they are more than BATCH_BYTES."""
BATCH_BYTES: Final = 4 << 20
_SMALLER: Final = "raise limits.max_characters of the source, or split the file"
_HEAD = struct.Struct(">I")
_PACKAGES = Path(__file__).parents[3]


class ReadRequest(Struct):
    """Request to the child process: the file to read, its format, and the limits of its size."""

    kind: str
    path: str
    name: str
    columns: dict[str, str]
    max_file_bytes: int
    max_characters: int
    encoding: str | None = None
    """Encoding of a text file, which the parent has checked."""
    hub: hub_dataset.HubRequest | None = None
    """Data set of the Hub to read in place of a file."""


class RowFrame(Struct, omit_defaults=True):
    """Message of the child process: some rows and rejects of the current file, or an error; ``done`` marks the file's last one."""

    rows: list[dict[str, Any]] = []
    """Rows with their row number, as ``RawRow`` in plain values."""
    rejects: list[RejectedRow] = []
    names: list[str] = []
    columns: list[list[Any]] = []
    """Rows of a table, column by column, numbered on from the last."""
    split: str = ""
    """Split of a data set of the Hub that the rows are from; each counts its rows anew."""
    skipped_bytes: int = 0
    """Size of a row of a table that is not sent, because it is larger than a frame may be."""
    error: str = ""
    hint: str = ""
    error_class: str = ""
    """Name of the error's class in ``_ERRORS``."""
    done: bool = False


@contextmanager
def keep_child() -> Iterator[None]:
    """Use one child process for all files that are read while the block runs, and end it afterwards."""
    try:
        yield
    finally:
        end_children()


def make_child_reader(kind: str) -> Callable[[SourceFile, FileOptions], ReaderRows]:
    """Return a reader of the format ``kind`` (``pdf``, ``docx``, ``parquet`` or ``arrow``) that runs in the child process."""

    def read(file: SourceFile, reading: FileOptions) -> ReaderRows:
        yield from _read(kind, file, reading, None)

    return read


def read_html_in_child(file: SourceFile, reading: FileOptions) -> ReaderRows:
    """Yield the text of a page as one row, as ``html_reader.read_html``; its encoding is detected in this process.

    Raises  DecodeError where it is not in its encoding, NotTextError where it is binary, CorruptArchiveError where it cannot be unpacked.
    """
    yield from _read("html", file, reading, html_reader.check_encoding(file, reading.encoding))


def read_hub_in_child(hub: HubDataset) -> ReaderRows:
    """Yield the rows of the declared split, or of all splits if none is declared; row numbers count from 1 in each split.

    Where all splits are read, each row gets a ``split`` column with its split's name, unless it has one.
    Raises  InfrastructureError when the Hub cannot be reached, DataError when the data set, subset or split is not there, or when
            reading it takes more memory or time than allowed.
    """
    data_set = hub_dataset.HubRequest(hub.id, hub.revision, hub.subset, hub.split)
    yield from _send(ReadRequest("hub", hub.id, data_set.address, {}, 0, hub.limits.max_characters, hub=data_set))


def _read(kind: str, file: SourceFile, reading: FileOptions, encoding: str | None) -> ReaderRows:
    limits = reading.limits
    yield from _send(
        ReadRequest(
            kind, str(file.path), file.name, file.columns, limits.max_file_bytes, limits.max_characters, encoding
        )
    )


def _send(request: ReadRequest) -> ReaderRows:
    child = _take_child()
    try:
        yield from child.read(request)
    finally:
        _give_back(child)


def limit_frame(max_characters: int) -> int:
    """Return the largest message (frame) in bytes that the reader process may send.

    It has room for a batch of rows and one row of ``MAX_ROW_TEXTS`` texts of ``max_characters`` letters with four bytes each.
    """
    return BATCH_BYTES + MAX_ROW_TEXTS * 4 * max_characters


_DECODER = msgspec.msgpack.Decoder(RowFrame, ext_hook=parquet_reader.restore_extension)
_ERRORS: Final[dict[str, type[TunectlError]]] = {
    kind.__name__: kind for kind in (DataError, InfrastructureError, MissingExtraError)
}
"""Errors that a reader raises in the child, and that are raised again here."""


class ReaderProcess:
    """Handle of the child process that reads binary files for ``ingest``, one at a time."""

    def __init__(self) -> None:
        """Start the child."""
        paths = [str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(MAX_MEMORY_BYTES), str(MAX_CPU_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
            env={**os.environ, **hub_dataset.ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.idle = True
        """Whether it waits for a file."""

    def read(self, request: ReadRequest) -> ReaderRows:
        """Yield the rows and rejects of one file, read in the child process.

        Raises  the errors of the reader: DataError, InfrastructureError, MissingExtraError.
        """
        self.idle = False
        name, number, limit = request.name, 0, limit_frame(request.max_characters)
        seconds = MAX_SILENT_SECONDS if request.hub is None else MAX_HUB_SILENT_SECONDS
        try:
            _write_frame(self._process.stdin, msgspec.msgpack.encode(request))
            while not (frame := self._next(limit, seconds)).done:
                if frame.split and name != f"{request.name}/{frame.split}":
                    name, number = f"{request.name}/{frame.split}", 0
                for row in frame.rows:
                    number = row["number"] or 0
                    yield RawRow(Source(request.name, row["number"]), row["columns"])
                yield from frame.rejects
                if frame.skipped_bytes:
                    number += 1
                    detail = f"the row has {frame.skipped_bytes} bytes, the most is {limit}; {_SMALLER}"
                    yield RejectedRow(Source(name, number), "too_long", detail)
                for values in zip(*frame.columns, strict=True):
                    number += 1
                    yield RawRow(Source(name, number), dict(zip(frame.names, values, strict=True)))
        except (_ReaderGoneError, OSError, msgspec.DecodeError) as error:
            self.close()
            reason = (
                error.args[0]
                if isinstance(error, _ReaderGoneError)
                else "the process that reads it sent data that cannot be decoded"
            )
            if request.hub is not None:
                position = f"after row {number} of {name}: " if number else ""
                hub_dataset.raise_read_error(request.hub, f"{position}{reason}", error)
            yield RejectedRow(Source(request.name, number + 1 if number else 0), "unreadable", reason)
            return
        self.idle = True
        if frame.error:
            raise _ERRORS.get(frame.error_class, DataError)(frame.error, hint=frame.hint)

    def _next(self, limit: int, seconds: float) -> RowFrame:
        """Return the next message: at most ``limit`` bytes, within ``seconds``."""
        output = self._process.stdout
        end = time.monotonic() + seconds
        head = self._receive(output, _HEAD.size, end, seconds)
        (size,) = _HEAD.unpack(head)
        if size > limit:
            raise _ReaderGoneError(f"a part of it has {size} bytes, the most is {limit}; {_SMALLER}")
        return _DECODER.decode(self._receive(output, size, end, seconds))

    def _receive(self, output: IO[bytes] | None, size: int, end: float, seconds: float) -> bytes:
        assert output is not None
        data = bytearray()
        while len(data) < size:
            ready, _, _ = select.select([output], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise _ReaderGoneError(f"reading its next rows took more than {seconds:.0f} s")
            part = os.read(output.fileno(), min(size - len(data), 1 << 20))
            if not part:
                raise _ReaderGoneError(self._why_it_ended())
            data += part
        return bytes(data)

    def _why_it_ended(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGXCPU:
            return f"reading it took more than {MAX_CPU_SECONDS} s of processor time"
        if code == MEMORY_EXIT:
            return f"reading it took more than {MAX_MEMORY_BYTES >> 20} MiB of memory"
        return f"the process that reads it crashed (exit status {code})"

    def close(self) -> None:
        """End the child process."""
        self.idle = False
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


class _ReaderGoneError(Exception):
    """Raised where the child process has ended or takes too long; the text is the reason."""


MEMORY_EXIT: Final = 77
_idle: list[ReaderProcess] = []
_lock = threading.Lock()


def _take_child() -> ReaderProcess:
    with _lock:
        return _idle.pop() if _idle else ReaderProcess()


def _give_back(child: ReaderProcess) -> None:
    """Keep an idle child for the next file; end one that was stopped in the middle of a file."""
    with _lock:
        if child.idle and not _idle:
            _idle.append(child)
            return
    child.close()


@atexit.register
def end_children() -> None:
    """End the child process that is kept for further files, if there is one."""
    with _lock:
        while _idle:
            _idle.pop().close()


def _write_frame(stream: IO[bytes] | None, data: bytes) -> None:
    assert stream is not None
    stream.write(_HEAD.pack(len(data)) + data)
    stream.flush()


def serve(requests: IO[bytes], answers: IO[bytes], *, memory: int, cpu: int) -> None:
    """Read one file per request until there are no more; runs in the child, with at most ``memory`` bytes, and ``cpu`` seconds of CPU time per file."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    decoder = msgspec.msgpack.Decoder(ReadRequest)
    while head := requests.read(_HEAD.size):
        request = decoder.decode(requests.read(_HEAD.unpack(head)[0]))
        cpu_limit = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + cpu
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_limit, resource.RLIM_INFINITY))
        last = RowFrame(done=True)
        try:
            for frame in _read_frames(request):
                for data in _encode(frame, limit_frame(request.max_characters)):
                    _write_frame(answers, data)
                    if request.hub is not None:
                        cpu_limit += HUB_CPU_SECONDS
                        resource.setrlimit(resource.RLIMIT_CPU, (cpu_limit, resource.RLIM_INFINITY))
        except MemoryError:
            os._exit(MEMORY_EXIT)
        except tuple(_ERRORS.values()) as error:
            last = RowFrame(error=error.message, hint=error.hint or "", error_class=_name_error(error), done=True)
        _write_frame(answers, msgspec.msgpack.encode(last))


def _name_error(error: TunectlError) -> str:
    return next(name for name, kind in _ERRORS.items() if isinstance(error, kind))


def _encode(frame: RowFrame, limit: int) -> Iterator[bytes]:
    """Yield a frame as it is sent; the rows of a table in several ones where they are many bytes, and none of one that is more than ``limit``."""
    data = msgspec.msgpack.encode(frame, enc_hook=str)
    rows = len(frame.columns[0]) if frame.columns else 0
    if rows == 1 and len(data) > limit:
        yield msgspec.msgpack.encode(RowFrame(skipped_bytes=len(data), split=frame.split))
    elif len(data) <= BATCH_BYTES or rows < 2:
        yield data
    else:
        for part in (slice(rows // 2), slice(rows // 2, None)):
            columns = [values[part] for values in frame.columns]
            yield from _encode(RowFrame(names=frame.names, columns=columns, split=frame.split), limit)


def _read_frames(request: ReadRequest) -> Iterator[RowFrame]:
    from tunectl.backends.readers.docx_reader import read_docx
    from tunectl.backends.readers.pdf_reader import read_pdf

    if request.hub is not None:
        for split, names, columns in hub_dataset.read_columns(request.hub, BATCH_ROWS, request.max_characters):
            yield RowFrame(names=names, columns=columns, split=split)
        return
    readers: dict[str, Any] = {"pdf": read_pdf, "docx": read_docx, "html": html_reader.read_html}
    file = SourceFile(Path(request.path), request.name, request.kind, request.columns)
    if request.kind in TABLES:
        for batch in parquet_reader.read_batches(file):
            for start in range(0, batch.num_rows, BATCH_ROWS):
                columns = parquet_reader.list_columns(batch.slice(start, BATCH_ROWS), request.max_characters)
                yield RowFrame(names=batch.schema.names, columns=columns)
        return
    # all attributes that the readers use
    limits = SimpleNamespace(max_file_bytes=request.max_file_bytes)
    for row in readers[request.kind](file, SimpleNamespace(limits=limits, encoding=request.encoding)):
        if isinstance(row, RejectedRow):
            yield RowFrame(rejects=[row])
        else:
            # A text is cut one character behind the limit, as those of a table: it is too long all the same.
            values = {
                name: value[: request.max_characters + 1] if isinstance(value, str) else value
                for name, value in row.columns.items()
            }
            yield RowFrame(rows=[{"number": row.source.row, "columns": values}])


if __name__ == "__main__":
    answers_stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of the libraries must not be mixed with frames
    serve(sys.stdin.buffer, answers_stream, memory=int(sys.argv[1]), cpu=int(sys.argv[2]))
