"""charset-normalizer: guess the encoding of bytes."""

from __future__ import annotations

import codecs
from typing import Any

from tunectl.core.optional import import_optional
from tunectl.data.readers.file_discovery import SourceFile, open_decompressed

SAMPLE = 262_144
"""Bytes that are examined, around the first one that is not UTF-8."""
FEW = 0.15
"""Share of bytes beyond ASCII up to which a text may be Western European: such texts have accents on some letters only."""
SHORT = 20
"""Bytes beyond ASCII that a statistical guess needs."""
WESTERN = "cp1252"


def detect_encoding(file: SourceFile, offset: int) -> str | None:
    """Return the likeliest encoding of a text file, judged by the bytes around ``offset``; None if none fits."""
    library = import_optional("charset_normalizer", extra="data")
    with open_decompressed(file.path) as stream:
        stream.seek(max(0, offset - SAMPLE // 2))
        sample = stream.read(SAMPLE)
    best = library.from_bytes(sample).best()
    if not sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and _is_western(sample, best):
        return WESTERN
    return None if best is None else str(best.encoding)


def _is_western(sample: bytes, best: Any) -> bool:
    """Return whether Windows-1252 gives the same text as the best guess, or there is too little text to guess from."""
    try:
        text = sample.decode(WESTERN)
    except UnicodeDecodeError:
        return False
    beyond = sum(byte > 0x7F for byte in sample)
    return (best is not None and str(best) == text) or (
        beyond < SHORT and beyond < FEW * len(sample) + 1 and b"\0" not in sample
    )
