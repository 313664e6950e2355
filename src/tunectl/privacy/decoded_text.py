r"""Decode escapes, encodings and invisible characters, and map each letter to its position in the original.

Personal data often arrives inside JSON, a URL, HTML or Markdown. ``\\n`` and ``\\u00e9`` of JSON, ``%40`` of URLs, ``&#64;`` of HTML,
full-width and invisible characters and the underscores of Markdown join letters to a value, or are inside it, so that no finder recognizes it.
Finders read the decoded text; what they find is masked in the original, so everything around it is unchanged.
"""

from __future__ import annotations

import base64
import html
import re
import sys
import unicodedata
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

# Tags of HTML that do not end a word.
_TAG: Final = r"</?(?:a|abbr|b|big|code|em|font|i|kbd|mark|s|small|span|strong|tt|u|wbr)(?:\s[^<>]{0,200})?/?>|<!--[^<>]{0,200}-->"
# One tag of emphasis, or one with nothing in it: it stands inside a number, where </b><b> ends one and begins the next.
_EMPHASIS_NAME: Final = r"(?:b|big|em|i|mark|s|small|strong|u|wbr)(?:\s[^<>]{0,200})?/?>"
_TAG_INSIDE: Final = rf"(?:<{_EMPHASIS_NAME}(?:</{_EMPHASIS_NAME})?|</{_EMPHASIS_NAME}|<!--[^<>]{{0,200}}-->)"
# Each alternative is bounded, or begins where no longer run of itself can: the whole pattern is linear.
_WRITTEN = re.compile(
    r"(?P<escape>(?<!\\)\\++(?:u[dD][89abAB][0-9a-fA-F]{2}\\{1,64}u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}"
    r"|u\{[0-9a-fA-F]{1,6}\}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[0-3][0-7]{2}|[\"/bfnrt]))"
    r"|(?P<percent>(?:%[0-9a-fA-F]{2})+)"
    r"|(?P<quoted>(?<=[\w.\-])=40(?=[\w\-]))|(?P<quoted_stop>(?<=[\w\-])=2E(?=[A-Za-z]))"
    r"|(?P<soft_break>(?<=[@.])=\r?\n(?=\w)|(?<=\w)=\r?\n(?=[@.]))"
    r"|(?P<entity>&(?:\#[0-9]{1,16};?|\#[xX][0-9a-fA-F]{1,16};?|[A-Za-z]{2,8}[0-9]{0,2};))"
    r"|(?P<composed>[^\W\d_][\u0300-\u036f]{1,4})"
    r"|(?P<dash>[\u2012\u2013\u2212](?=\d)|(?<=\d)[~\u00b7\u2014\u2015\u2022](?=\d)|(?<=\d{3})_(?=\d{3}))"
    r"|(?P<stop>(?<=\w)[\u2024\u3002\uff61](?=[A-Za-z0-9]))"
    rf"|(?P<tag>(?<=[\w%+\-])(?:{_TAG}){{1,4}}(?=@)|(?<=@)(?:{_TAG}){{1,4}}(?=[^\W_]))"
    rf"|(?P<tagged_stop>(?<=[^\W\d_])(?:{_TAG}){{1,4}}\.(?:{_TAG}){{0,4}}(?=[a-z]))"
    rf"|(?P<host>(?<=@)[\w\-]{{1,63}}(?:(?:{_TAG}){{1,4}}[\w\-]{{1,63}}){{1,3}}(?=(?:{_TAG}){{0,4}}\.))"
    rf"|(?P<tag_inside>(?<=[\d\-]){_TAG_INSIDE}(?=[\d\-]))"
    r"|(?P<gap>(?<=[\w.,])(?:\t|  )(?=\S))"
    r"|(?P<digit>(?![0-9])\d|[\u2460-\u2468\u2776-\u277e\u2780-\u2788\u278a-\u2792\u24ea\u24f5-\u24fd\u24ff])"
    r"|(?P<raised>[\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u2080-\u2089]{2,32})"
    r"|(?P<single>[\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2000-\u2011\u202a-\u202f\u205f-\u206f\u20e3"
    r"\u24b6-\u24e9\u2800\u3000\u3164\ufe00-\ufe0f\ufe50-\ufe6b\ufeff\uff01-\uff5e\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U0001d400-\U0001d7ff\U000e0000-\U000e0fff])"
)
# What depends on the letters beside it, which may be encoded, too: read when all else is decoded.
_MARKED = re.compile(
    r"(?P<emphasis>(?<!\w)_++(?=\w)|(?<=[^\W_])_++(?![\w@]))"
    r"|(?P<form>(?<==)[A-Z][a-z]{1,30}(?:\+[A-Z][a-z]{1,30}){1,3}(?![\w+/=@%.\-]))"  # the blanks of a form's value
)
_TAGS = re.compile(_TAG)
_BASE64 = re.compile(r"(?<![A-Za-z0-9_+/\-])[A-Za-z0-9_+/\-]{16,}+={0,2}(?![A-Za-z0-9_+/=\-])")
# As in mail (RFC 2045), in lines of equal length, the last one shorter.
_BASE64_LINES = re.compile(
    r"(?<![A-Za-z0-9_+/\-])(?:[A-Za-z0-9+/]{16,76}+\r?\n)++(?:[A-Za-z0-9+/]{1,76}+={0,2}(?![A-Za-z0-9_+/=\-]))?+"
)
_CONTROL_SHARE: Final = 10
"""One control letter of so many, as an end of a string in C, is text still."""
_URL_SAFE: Final = str.maketrans("-_", "+/")
_INVISIBLE: Final = (
    *(0xAD, 0x34F, 0x61C, 0x20E3, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0xFFF0, 0xFFF9),
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE1000),
)
"""Default_Ignorable_Code_Point of Unicode, and the empty Braille cell."""
_WIDE: Final = (
    *(0xA0, 0x202F, 0x205F, 0x3000),
    *range(0x2000, 0x200B),
    *range(0x24B6, 0x24EA),
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
_LAYERS: Final = 6
"""Nested encodings that are decoded, as JSON inside a parameter of a URL; layers of JSON alone count as one."""
_SIGNS: Final = (
    ">@",
    "@<",
    ">.",
    "</",
    "<wbr",
    "<!--",
    "\\",
    "%",
    "&",
    "_",
    "~",
    "\t",
    "  ",
    "=40",
    "=2E",
    "=\n",
    "=\r\n",
    "+",
)
"""ASCII text without any of these is its own decoded text."""
_SHOWN: Final = {
    **dict.fromkeys(("tag", "tag_inside", "soft_break"), ""),
    **dict.fromkeys(("stop", "tagged_stop", "quoted_stop"), "."),
    **dict.fromkeys(("gap", "emphasis"), " "),
    "dash": "-",
    "quoted": "@",
}
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "/": "/"}


@dataclass(frozen=True, slots=True)
class DecodedText:
    """The decoded text, and the offset map to the original text."""

    text: str
    starts: array[int] | None = None
    """Start of each character in the original; None where the two texts are equal."""
    ends: array[int] | None = None
    """End of each character in the original."""

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in the original of ``text[start:end]``, which must not be empty."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


def decode_text(text: str) -> DecodedText:
    """Decode the escapes of JSON, URLs, HTML and Markdown, all layers of JSON at once.

    Decoded are escapes of JSON and programs, percent-encoding in UTF-8, entities of HTML, full-width, circled and mathematical
    letters, digits of every script, letters with combining accents, spaces and hyphens of typography; left out are invisible signs.
    Underscores around a word become spaces, several spaces one.
    """
    decoded = DecodedText(text)
    for _ in range(_LAYERS):
        inner = _decode_layer(decoded.text, _WRITTEN)
        if inner.starts is None:
            break
        decoded = _join(decoded, inner)
    return _join(decoded, _decode_layer(decoded.text, _MARKED))


def _join(outer: DecodedText, inner: DecodedText) -> DecodedText:
    """Return ``inner``, the decoded text of ``outer.text``, with offsets into the original of ``outer``."""
    if inner.starts is None or inner.ends is None:
        return outer
    if outer.starts is None or outer.ends is None:
        return inner
    starts = array("l", map(outer.starts.__getitem__, inner.starts))
    ends = array("l", (outer.ends[end - 1] for end in inner.ends))
    return DecodedText(inner.text, starts, ends)


def find_base64_texts(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, decoded text) of each Base64 string (RFC 4648) in ``text`` that encodes text.

    Strings that are broken over several lines come first.
    """
    for match in chain(_BASE64_LINES.finditer(text), _BASE64.finditer(text)):
        raw = "".join(match[0].split()).rstrip("=").translate(_URL_SAFE)
        try:
            plain = base64.b64decode(raw + "=" * (-len(raw) % 4)).decode()
        except ValueError:
            continue
        if sum(not (letter.isprintable() or letter.isspace()) for letter in plain) * _CONTROL_SHARE <= len(plain):
            yield *match.span(), plain


def _decode_layer(text: str, pattern: re.Pattern[str]) -> DecodedText:
    if text.isascii() and not any(sign in text for sign in _SIGNS):
        return DecodedText(text)
    pieces: list[str] = []
    starts, ends = array("l"), array("l")
    end = 0
    for match in pattern.finditer(text):
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
    encoded, (start, end) = match[0], match.span()
    match match.lastgroup:
        case "escape":
            yield _decode_escape(encoded.lstrip("\\")), start, end
        case "percent":
            yield from _decode_percent(encoded, start)
        case "entity":
            yield html.unescape(encoded), start, end
        case "host":
            tags = (each.span() for each in _TAGS.finditer(encoded))
            hidden = {index for begin, stop in tags for index in range(begin, stop)}
            yield from (
                (letter, start + index, start + index + 1)
                for index, letter in enumerate(encoded)
                if index not in hidden
            )
        case "digit":
            yield str(unicodedata.digit(encoded)), start, end
        case "raised" | "form":
            for index, letter in enumerate(encoded, start):
                yield unicodedata.normalize("NFKC", letter.replace("+", " ")), index, index + 1
        case "composed" | "single":
            yield unicodedata.normalize("NFC", encoded), start, end
        case name:
            yield _SHOWN[name or ""], start, end


def _decode_escape(sign: str) -> str:
    """Return the letter of an escape, given without its backslashes."""
    if sign in _ESCAPES:
        return _ESCAPES[sign]
    if sign.isdigit():
        return chr(int(sign, 8))
    first, _, second = sign.partition("\\")
    if second:
        pair = (int(part.lstrip("\\")[1:], 16) for part in (first, second))
        return b"".join(code.to_bytes(2, "big") for code in pair).decode("utf-16-be")
    code = int(sign[1:].strip("{}"), 16)
    return chr(code) if code <= sys.maxunicode else "\ufffd"


def _decode_percent(encoded: str, start: int) -> Iterator[tuple[str, int, int]]:
    """Yield the letters of a run of encoded bytes; bytes that are no UTF-8 are left encoded."""
    raw = bytes.fromhex(encoded.replace("%", ""))
    try:
        letters = raw.decode()
    except UnicodeDecodeError:
        for number, letter in enumerate(encoded, start):
            yield letter, number, number + 1
        return
    for letter in letters:
        length = 3 * len(letter.encode())
        yield letter, start, start + length
        start += length
