r"""Decode escapes, encodings and invisible characters, and map each letter to its position in the original.

Personal data often arrives inside JSON, a URL, HTML or Markdown. ``\\n`` and ``\\u00e9`` of JSON, ``%40`` of URLs, ``&#64;`` of HTML,
full-width and invisible characters and the underscores of Markdown join letters to a value, or are inside it, so that no finder recognizes it.
Finders read the decoded text; what they find is masked in the original, so everything around it is unchanged.
"""

from __future__ import annotations

import html
import re
import unicodedata
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# Each alternative is bounded, or begins where no longer run of itself can: the whole pattern is linear.
_WRITTEN = re.compile(
    r"(?P<escape>(?<!\\)\\++(?:u[0-9a-fA-F]{4}|[\"/bfnrt]))"
    r"|(?P<percent>(?:%[0-9a-fA-F]{2})+)"
    r"|(?P<entity>&(?:\#[0-9]{1,7};?|\#[xX][0-9a-fA-F]{1,6};?|[A-Za-z]{2,8}[0-9]{0,2};))"
    r"|(?P<emphasis>(?<!\w)_++(?=\w)|(?<=[^\W_])_++(?![\w@]))"
    r"|(?P<composed>[^\W\d_][\u0300-\u036f]{1,4})"
    r"|(?P<dash>[\u2012\u2013\u2212](?=\d))"
    r"|(?P<single>[\u00a0\u00ad\u034f\u061c\u180e\u2000-\u2011\u202a-\u202f\u205f-\u2064\u2066-\u2069\u3000"
    r"\ufe00-\ufe0f\ufe50-\ufe6b\ufeff\uff01-\uff5e\U0001d400-\U0001d7ff])"
)
_INVISIBLE: Final = (
    *(0xAD, 0x34F, 0x61C, 0x180E, 0xFEFF),
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2065),
    *range(0x2066, 0x206A),
    *range(0xFE00, 0xFE10),
)
_WIDE: Final = (
    *(0xA0, 0x202F, 0x205F, 0x3000),
    *range(0x2000, 0x200B),
    *range(0xFE50, 0xFE6C),
    *range(0xFF01, 0xFF5F),
    *range(0x1D400, 0x1D800),
)
_FOLDED: Final = {
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in _WIDE},
    **dict.fromkeys(_INVISIBLE, ""),
    **dict.fromkeys((0x2010, 0x2011), "-"),
}
"""Letters in other typographic forms and what they stand for, and invisible characters."""
_LAYERS: Final = 3
"""Nested encodings that are decoded, as JSON inside a parameter of a URL; layers of JSON alone count as one."""
_SIGNS: Final = "\\%&_"
"""ASCII text without any of these is its own decoded text."""
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "/": "/"}


@dataclass(frozen=True, slots=True)
class DecodedText:
    """The decoded text, and the offset map to the original text."""

    text: str
    starts: array[int] | None = None
    """Begin of each letter in the original; None where the two texts are equal."""
    ends: array[int] | None = None
    """End of each letter in the original."""

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in the original of ``text[start:end]``; the span is not empty."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


def decode_text(text: str) -> DecodedText:
    """Decode the escapes of JSON, URLs, HTML and Markdown, all layers of JSON at once.

    Decoded are escapes of JSON, percent-encoding in UTF-8, entities of HTML, full-width and mathematical letters, letters with
    combining accents, spaces and hyphens of typography; left out are invisible signs. Underscores around a word become spaces.
    """
    decoded = DecodedText(text)
    for _ in range(_LAYERS):
        inner = _decode_layer(decoded.text)
        if inner.starts is None or inner.ends is None:
            break
        if decoded.starts is None or decoded.ends is None:
            decoded = inner
        else:
            starts = array("l", map(decoded.starts.__getitem__, inner.starts))
            ends = array("l", (decoded.ends[end - 1] for end in inner.ends))
            decoded = DecodedText(inner.text, starts, ends)
    return decoded


def _decode_layer(text: str) -> DecodedText:
    if text.isascii() and not any(sign in text for sign in _SIGNS):
        return DecodedText(text)
    pieces: list[str] = []
    starts, ends = array("l"), array("l")
    end = 0
    for match in _WRITTEN.finditer(text):
        pieces.append(text[end : match.start()])
        starts.extend(range(end, match.start()))
        ends.extend(range(end + 1, match.start() + 1))
        end = match.end()
        for raw, begin, stop in _decode_match(match):
            letters = raw.translate(_FOLDED)
            pieces.append(letters)
            starts.extend([begin] * len(letters))
            ends.extend([stop] * len(letters))
    if end == 0:
        return DecodedText(text)
    pieces.append(text[end:])
    starts.extend(range(end, len(text)))
    ends.extend(range(end + 1, len(text) + 1))
    return DecodedText("".join(pieces), starts, ends)


def _decode_match(match: re.Match[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the decoded text of one encoded span, and begin and end of each group of its letters in the original."""
    written, (start, end) = match[0], match.span()
    match match.lastgroup:
        case "escape":
            sign = written.lstrip("\\")
            yield chr(int(sign[1:], 16)) if len(sign) == 5 else _ESCAPES[sign], start, end
        case "percent":
            yield from _decode_percent(written, start)
        case "entity":
            yield html.unescape(written), start, end
        case "emphasis":
            yield " ", start, end
        case "dash":
            yield "-", start, end
        case "composed" | "single":
            yield unicodedata.normalize("NFC", written), start, end


def _decode_percent(written: str, start: int) -> Iterator[tuple[str, int, int]]:
    """Yield the letters of a run of encoded bytes; bytes that are no UTF-8 are left encoded."""
    raw = bytes.fromhex(written.replace("%", ""))
    try:
        letters = raw.decode()
    except UnicodeDecodeError:
        for number, letter in enumerate(written, start):
            yield letter, number, number + 1
        return
    for letter in letters:
        length = 3 * len(letter.encode())
        yield letter, start, start + length
        start += length
