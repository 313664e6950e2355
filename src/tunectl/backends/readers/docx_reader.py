"""python-docx: the text of a Word document."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunectl.artifacts.records import RejectedRow, Source
from tunectl.config.schema.ingest import FileReading
from tunectl.core.optional import import_optional
from tunectl.data.readers.file_discovery import MAX_UNPACK_RATIO, SourceFile, sniff_binary
from tunectl.data.readers.row import RawRow

SMALL = 1 << 20
"""Bytes of a document, or of one part of its XML, that may be more times its size: a page of nothing but blanks, a white picture."""


def read_docx(file: SourceFile, reading: FileReading) -> Iterator[RawRow | RejectedRow]:
    """Yield a Word document as one row, with ``title``, ``author`` and ``date``: paragraphs and tables in their order.

    A file that is no Word document is rejected as ``unreadable``, one without text as ``image_without_text`` or ``no_text``, one
    that unpacks to more than ``limits.max_file_bytes``, or ``MAX_UNPACK_RATIO`` times its size, as ``file_too_big``.
    """
    docx = import_optional("docx", extra="data")
    with file.path.open("rb") as stream:
        head = stream.read(8)
    if not head.startswith(b"PK"):
        yield RejectedRow(Source(file.name), "unreadable", _suggest_reader(head))
        return
    try:
        too_big = _explain_size(file.path, reading.limits.max_file_bytes)
        if too_big is not None:
            yield RejectedRow(Source(file.name), "file_too_big", too_big)
            return
        document = docx.Document(str(file.path))
        text = "\n\n".join(part for item in document.iter_inner_content() if (part := _text(item)).strip())
        columns = _metadata(document.core_properties)
        pictures = len(document.inline_shapes)
    except Exception as error:  # noqa: BLE001  (broken archives fail with errors of every kind)
        yield RejectedRow(Source(file.name), "unreadable", " ".join(str(error).split()) or type(error).__name__)
        return
    if text.strip():
        yield RawRow(Source(file.name), {**columns, "text": text})
    elif pictures:
        yield RejectedRow(Source(file.name), "image_without_text", "the document holds pictures, and no text")
    else:
        yield RejectedRow(Source(file.name), "no_text", "the document holds no text")


def _explain_size(path: Path, limit: int) -> str | None:
    """Return why a document is not unpacked, from the directory of its archive; None where it may be. ``zipfile`` never unpacks more than that directory says."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    unpacked = sum(item.file_size for item in members)
    if unpacked > limit:
        return f"it unpacks to {unpacked} bytes; limits.max_file_bytes is {limit}"
    xml = (item for item in members if item.filename.lower().endswith((".xml", ".rels")))
    sizes = [(unpacked, path.stat().st_size), *((item.file_size, item.compress_size) for item in xml)]
    for size, packed in sizes:
        if size > max(SMALL, MAX_UNPACK_RATIO * packed):
            return f"{packed} bytes of it unpack to {size}, more than {MAX_UNPACK_RATIO} times as much"
    return None


def _suggest_reader(head: bytes) -> str:
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        return "it is an old or a protected Office file; save it as DOCX without a password"
    return f"it is not a Word document (DOCX) but {sniff_binary(head) or 'text'}" if head else "the file is empty"


def _text(item: Any) -> str:
    if not hasattr(item, "rows"):
        return str(item.text)
    return "\n".join(" | ".join(" ".join(cell.text.split()) for cell in _cells(row)) for row in item.rows)


def _cells(row: Any) -> list[Any]:
    """Return the cells of a table row; python-docx repeats a merged cell for each column that it spans, here it comes once."""
    result: list[Any] = []
    for cell in row.cells:
        if not result or cell._tc is not result[-1]._tc:  # noqa: SLF001  (python-docx has no public identity of a cell)
            result.append(cell)
    return result


def _metadata(properties: Any) -> dict[str, str]:
    fields = {"title": properties.title, "author": properties.author}
    if properties.created is not None:
        fields["date"] = properties.created.date().isoformat()
    return {key: value for key, value in fields.items() if value}
