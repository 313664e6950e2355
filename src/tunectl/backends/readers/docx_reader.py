"""python-docx: the text of a Word document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunectl.artifacts.records import RejectedRow, Source
from tunectl.config.schema.ingest import FileReading
from tunectl.core.optional import import_optional
from tunectl.data.readers.file_discovery import SourceFile, sniff_binary
from tunectl.data.readers.row import RawRow


def read_docx(file: SourceFile, _reading: FileReading) -> Iterator[RawRow | RejectedRow]:
    """A document as one row, with ``title``, ``author`` and ``date``: paragraphs and tables in their order.

    A file that is no Word document is a reject ``unreadable``; one without text, ``image_without_text`` or ``no_text``.
    """
    docx = import_optional("docx", extra="data")
    with file.path.open("rb") as stream:
        head = stream.read(8)
    if not head.startswith(b"PK"):
        yield RejectedRow(Source(file.name), "unreadable", _instead(head))
        return
    try:
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


def _instead(head: bytes) -> str:
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        return "it is an old or a protected Office file; save it as DOCX without a password"
    return f"it is no Word document but {sniff_binary(head) or 'text'}" if head else "the file is empty"


def _text(item: Any) -> str:
    if not hasattr(item, "rows"):
        return str(item.text)
    return "\n".join(" | ".join(" ".join(cell.text.split()) for cell in _cells(row)) for row in item.rows)


def _cells(row: Any) -> list[Any]:
    """The cells of a table row; a merged cell is given once a column it spans, and wanted once."""
    found: list[Any] = []
    for cell in row.cells:
        if not found or cell._tc is not found[-1]._tc:  # noqa: SLF001  (python-docx has no public identity of a cell)
            found.append(cell)
    return found


def _metadata(properties: Any) -> dict[str, str]:
    known = {"title": properties.title, "author": properties.author}
    if properties.created is not None:
        known["date"] = properties.created.date().isoformat()
    return {key: value for key, value in known.items() if value}
