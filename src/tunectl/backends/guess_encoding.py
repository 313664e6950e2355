"""charset-normalizer: which encoding do these bytes seem to have?"""

from __future__ import annotations

from tunectl.core.lazy import need
from tunectl.data.reading.files import SourceFile, opened

SAMPLE = 262_144
"""Bytes looked at, around the first one that is not UTF-8."""


def guess_encoding(file: SourceFile, offset: int) -> str | None:
    """The name of the likeliest encoding of a text file around a byte, or None where nothing fits."""
    library = need("charset_normalizer", extra="data")
    with opened(file.path) as stream:
        stream.seek(max(0, offset - SAMPLE // 2))
        best = library.from_bytes(stream.read(SAMPLE)).best()
    return None if best is None else str(best.encoding)
