"""trafilatura: the main text of a web page, its metadata, and its ``<meta>`` tags."""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterator
from typing import Any

from tunectl.artifacts.records import RejectedRow, Source
from tunectl.config.schema.ingest import FileReading
from tunectl.core.optional import import_optional
from tunectl.data.readers.file_discovery import SourceFile, open_decompressed, sniff_binary
from tunectl.data.readers.row import RawRow
from tunectl.data.readers.text_reader import NotTextError, open_text_file, usable_charset

_CHARSET = re.compile(rb"<meta[^>]+charset\s*+=\s*+[\"']?\s*+([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_CHUNK = 1 << 20
"""Characters that are decoded at once to check an encoding."""
_HEAD = 4096
"""Bytes in which a page declares its encoding; the HTML standard asks for the first 1024."""
_XML = re.compile(r"\A\s*<\?xml[^>]*\?>")
_XML_ENCODING = re.compile(rb"\A\s*<\?xml[^>]+encoding\s*+=\s*+[\"']([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_PICTURE = re.compile(r"<(?:img|picture|svg|canvas)\b", re.IGNORECASE)


def read_html(file: SourceFile, reading: FileReading) -> Iterator[RawRow | RejectedRow]:
    """Yield the text of a page as one row, with ``title``, ``date``, ``author``, ``site`` and its named ``<meta>`` tags.

    A page without text is rejected as ``no_text``, or as ``image_without_text`` if it shows pictures.
    Raises  DecodeError where it is not in its encoding, NotTextError where it is binary.
    """
    encoding = _find_encoding(file, reading.encoding)
    with open_text_file(file, encoding, newline=None) as stream:
        html = stream.read()
    text, columns = extract(html, file.name)
    if text:
        yield RawRow(Source(file.name), {**columns, "text": text})
    elif _PICTURE.search(html):
        yield RejectedRow(Source(file.name), "image_without_text", "the page shows pictures, and no text")
    else:
        yield RejectedRow(Source(file.name), "no_text", "the page holds no text")


def check_encoding(file: SourceFile, encoding: str | None) -> str | None:
    """Read a page once to check its encoding, and return it: ``encoding`` if set, else what the server or the page declares.

    None is UTF-8.

    Raises  DecodeError where it is not in that encoding, NotTextError where it is binary, CorruptArchiveError where it cannot be unpacked.
    """
    name = _find_encoding(file, encoding)
    with open_text_file(file, name, newline=None) as stream:
        while stream.read(_CHUNK):
            pass
    return name


def _find_encoding(file: SourceFile, encoding: str | None) -> str | None:
    return encoding or file.columns.get("charset") or _read_declared_encoding(file)


def _read_declared_encoding(file: SourceFile) -> str | None:
    """Return the encoding that the page declares, where it is a known one; else None."""
    with open_decompressed(file.path) as stream:
        head = stream.read(_HEAD)
    what = sniff_binary(head)
    if what is not None:
        raise NotTextError(file, what)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"  # as in browsers, a byte order mark overrides any declared encoding
    result = _XML_ENCODING.search(head) or _CHARSET.search(head)
    return None if result is None else usable_charset(result.group(1).decode("ascii"))


def extract(html: str, name: str) -> tuple[str, dict[str, str]]:
    """Return the main text of a page, one paragraph per line, and its metadata by name (title, date, author, site, ``<meta>`` tags).

    ``name`` is the page's address or file name.
    """
    library = import_optional("trafilatura", extra="data")
    # a page without text becomes a reject, so its warning is hidden
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    html = _XML.sub("", html)  # the parser refuses decoded text with an XML encoding declaration
    tree = library.load_html(html)
    if tree is None and "<" in html:  # a fragment of one element, which the library does not parse as a page
        html = f"<html><body>{html}</body></html>"
        tree = library.load_html(html)
    if tree is None:  # it has no tags: plain text may be called .html
        return ("" if "<" in html else html.strip()), {}
    columns = _meta(tree)
    result = library.bare_extraction(html, url=name if "://" in name else None, favor_recall=True, with_metadata=True)
    if result is not None:
        fields = {"title": result.title, "date": result.date, "author": result.author, "site": result.sitename}
        columns.update({key: value for key, value in fields.items() if isinstance(value, str) and value})
    text = (result.text if result is not None else "") or library.html2txt(html) or ""
    return text.strip(), columns


def _meta(tree: Any) -> dict[str, str]:
    pairs = [(item.get("name"), item.get("content")) for item in tree.iter("meta")]
    return {name: content for name, content in pairs if name and content and name != "text"}
