"""pypdf: the text of a PDF, page by page."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from tunectl.artifacts.records import RejectedRow, Source
from tunectl.config.schema.ingest import FileReading
from tunectl.core.distribution import format_install_command
from tunectl.core.errors import MissingExtraError
from tunectl.core.optional import import_optional
from tunectl.data.readers.file_discovery import SourceFile, open_decompressed
from tunectl.data.readers.row import RawRow

HEAD = 1024
"""Bytes at the start in which a PDF identifies itself (ISO 32000, implementation note 13)."""


def read_pdf(file: SourceFile, _reading: FileReading) -> Iterator[RawRow | RejectedRow]:
    """Yield one row per page of a PDF, with ``page``, ``title`` and ``author``; row numbers are page numbers.

    A page without text is rejected as ``image_without_text`` (a scan) or ``no_text``; a file that asks for a password as
    ``encrypted``; one that is no PDF, or a broken one, as ``unreadable``.
    """
    pypdf = import_optional("pypdf", extra="data")
    with open_decompressed(file.path) as stream:
        head = stream.read(HEAD)
    if b"%PDF-" not in head:
        yield RejectedRow(
            Source(file.name),
            "unreadable",
            "it is not a PDF: it does not begin with %PDF-" if head else "the file is empty",
        )
        return
    # an unreadable file becomes a reject, so its warnings are hidden
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        document = pypdf.PdfReader(file.path)
        if document.is_encrypted and not document.decrypt(""):
            yield RejectedRow(Source(file.name), "encrypted", "the file asks for a password")
            return
        metadata_fields = _metadata(document)
        count = len(document.pages)
    except pypdf.errors.DependencyError as error:
        raise MissingExtraError(f"{file.name} is encrypted: {error}", hint=format_install_command("data")) from error
    except Exception as error:  # noqa: BLE001  (broken files fail in pypdf with errors of every kind)
        yield RejectedRow(Source(file.name), "unreadable", _why(error))
        return
    if count == 0:
        yield RejectedRow(Source(file.name), "no_text", "the file has no pages")
    for number in range(1, count + 1):
        yield _page(document, number, count, metadata_fields, file.name)


def _page(document: Any, number: int, count: int, metadata_fields: dict[str, str], name: str) -> RawRow | RejectedRow:
    source = Source(name, number)
    try:
        page = document.pages[number - 1]
        text = page.extract_text().strip()
        if text:
            return RawRow(source, {**metadata_fields, "page": number, "text": text})
        pictures = len(page.images)
    except Exception as error:  # noqa: BLE001  (one broken page must not affect the others)
        return RejectedRow(source, "unreadable", _why(error))
    if pictures:
        detail = f"page {number} of {count} is a picture; run OCR on it first"
        return RejectedRow(source, "image_without_text", detail)
    return RejectedRow(source, "no_text", f"page {number} of {count} holds no text")


def _metadata(document: Any) -> dict[str, str]:
    metadata = document.metadata
    if metadata is None:
        return {}
    fields = {"title": metadata.title, "author": metadata.author}
    return {key: str(value) for key, value in fields.items() if value}


def _why(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
