"""Read text files strictly in one encoding, whole or by line; Markdown with its front matter."""

from __future__ import annotations

import codecs
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tunectl.artifacts.records import RejectedRow, Source, truncate
from tunectl.config.schema.ingest import FileReading
from tunectl.core.errors import DataError
from tunectl.data.readers.file_discovery import SourceFile, open_decompressed, sniff_binary
from tunectl.data.readers.row import RawRow

UTF8 = "utf-8-sig"
"""UTF-8, with or without a byte order mark."""
NOT_TEXT = "export it as text, give it its right extension, or take it out of the source"
"""What to do about a table that is not text."""
_CHUNK = 1 << 20
_WEB_CODECS: Final = {
    codec: codec
    for codec in (
        *(f"iso8859-{part}" for part in (*range(2, 9), 10, *range(13, 17))),
        *(f"cp{page}" for page in (866, 874, 932, 949, *range(1250, 1259))),
        *("koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "gb18030", "big5hkscs", "euc_jp", "iso2022_jp"),
    )
} | {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
"""By Python's name of an encoding of the Web (WHATWG Encoding), except Unicode: how browsers read it."""
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_PAIR = re.compile(r"([A-Za-z_][\w.-]*)[ \t]*:(.*)\Z")
_KEY = re.compile(r"""(?:[^\W\d][\w.-]*|"[^"]{1,64}"|'[^']{1,64}')[ \t]*:(?=[ \t]|\Z)""")


class DecodeError(DataError):
    """Raised for a file that is not in the encoding with which it is read."""

    def __init__(self, file: SourceFile, encoding: str, offset: int, byte: int) -> None:
        encoding_name = "UTF-8" if encoding == UTF8 else encoding
        self.what = f"byte {offset} (0x{byte:02x}) is not {encoding_name}"
        super().__init__(
            f"{file.name}: {self.what}",
            hint="declare its encoding, for example encoding: cp1252 in the settings of this source, or save the file as UTF-8",
        )
        self.file = file
        self.offset = offset


class NotTextError(DataError):
    """Raised for a file that is of another type than its name or the settings declare."""

    def __init__(self, file: SourceFile, description: str) -> None:
        super().__init__(f"{file.name} is read as {file.type}, but it is {description}", hint=NOT_TEXT)
        self.file = file
        self.what = description


class CorruptArchiveError(DataError):
    """Raised for a compressed file that cannot be unpacked to its end."""

    def __init__(self, file: SourceFile, reason: str) -> None:
        super().__init__(
            f"{file.name} cannot be unpacked: {reason}", hint="it was cut off, or has a wrong name; copy it again"
        )
        self.file = file
        self.what = f"it cannot be unpacked: {reason}"


def usable_charset(label: str) -> str | None:
    """Return the encoding that a page or its server means by ``label``; None where it is UTF-8 or unknown.

    As in browsers (WHATWG Encoding), Latin-1 and ASCII are read as Windows-1252, and UTF-16 is ignored: the label itself could not
    be read then. Python codecs that browsers lack count as unknown: some take quadratic time, or raise errors of their own.
    """
    try:
        codec_name = codecs.lookup(label.strip().strip("\"'").lower()).name
    except (LookupError, ValueError):  # ValueError: it has a zero letter
        return None
    return _WEB_CODECS.get(codec_name)


@contextmanager
def open_text_file(file: SourceFile, encoding: str | None, *, newline: str | None) -> Iterator[io.TextIOWrapper]:
    """Open a text file for the block and yield its stream; ``encoding`` None is UTF-8, ``newline`` as in ``open``.

    Raises  DecodeError, with the offset of the first byte that does not fit; NotTextError for a binary file; CorruptArchiveError for a
            compressed one that cannot be unpacked.
    """
    try:
        with open_decompressed(file.path) as stream:
            description = sniff_binary(stream.read(8192), zeros=encoding is not None)
        if description is not None:
            raise NotTextError(file, description)
        name = encoding or file.columns.get("charset") or UTF8
        with (
            open_decompressed(file.path) as stream,
            io.TextIOWrapper(stream, name, errors="strict", newline=newline) as text,
        ):
            yield text
    except UnicodeError as error:
        raise _locate_decode_error(file, name) from error
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise CorruptArchiveError(file, str(error)) from error
    except OSError as error:
        if error.errno is not None:  # the machine's refusal, not the file's content
            raise
        raise CorruptArchiveError(file, str(error)) from error


def _locate_decode_error(file: SourceFile, encoding: str) -> DecodeError:
    """Return the position of the first byte that does not fit; decoders only give the position inside their last chunk."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    passed = 0
    with open_decompressed(file.path) as stream:
        while True:
            chunk = stream.read(_CHUNK)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                carried_bytes = len(error.object) - len(chunk)  # bytes of a character that began in the chunk before
                return DecodeError(file, encoding, passed - carried_bytes + error.start, error.object[error.start])
            except UnicodeError:  # UTF-16 without a byte order mark
                return DecodeError(file, encoding, 0, chunk[0] if chunk else 0)
            if not chunk:
                return DecodeError(file, encoding, passed, 0)
            passed += len(chunk)


def read_text(file: SourceFile, options: FileReading) -> Iterator[RawRow | RejectedRow]:
    """Yield a text file as one row with a ``text`` column; of a longer one than ``limits.max_characters`` the rest is not read."""
    most = options.limits.max_characters
    with open_text_file(file, options.encoding, newline=None) as stream:
        text = stream.read(most + 1)
    yield whole_file_row(file, text, {}, most)


def read_lines(file: SourceFile, options: FileReading) -> Iterator[RawRow | RejectedRow]:
    """Yield a text file with one document per line, as one row per line; blank lines are not rows."""
    with open_text_file(file, options.encoding, newline=None) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield RawRow(Source(file.name, number), {"text": line.rstrip("\n")})


def read_markdown(file: SourceFile, options: FileReading) -> Iterator[RawRow | RejectedRow]:
    """Yield a Markdown file as one row; plain values of its front matter become columns. A front matter, too, has ``limits.max_characters`` at most."""
    most = options.limits.max_characters
    with open_text_file(file, options.encoding, newline=None) as stream:
        text = stream.read(2 * most + 1)
    body, columns = front_matter(text) if len(text) <= 2 * most else (text, {})
    yield whole_file_row(file, body, columns, most)


def front_matter(text: str) -> tuple[str, dict[str, str]]:
    """Return (a Markdown text without its front matter, the plain ``key: value`` lines of that)."""
    match = _FRONT.match(text)
    if match is None or not _is_yaml(match.group(1).splitlines()):
        return text, {}
    pairs = [_PAIR.match(line) for line in match.group(1).splitlines()]
    values = [(pair.group(1), pair.group(2).strip(" \t")) for pair in pairs if pair is not None]
    columns = {name: value.strip("\"'") for name, value in values if value}
    return text[match.end() :], columns


def _is_yaml(lines: list[str]) -> bool:
    """Return whether lines between two rules are YAML: one has a key, and at least half of those with letters look like it.

    Rules also stand around a paragraph or a heading of Markdown, which is text.
    """
    content = [line.rstrip() for line in lines if line.strip()]
    keys = sum(_KEY.match(line) is not None for line in content)
    others = sum(_KEY.match(line) is None and _looks_like_yaml(line) for line in content)
    return not content or (keys > 0 and 2 * (keys + others) >= len(content))


def _looks_like_yaml(line: str) -> bool:
    """Return whether a line without a key may stand in YAML: it is indented, an item, a comment, or ends in a colon."""
    return line.startswith((" ", "\t", "- ", "#")) or line.endswith(":")


def whole_file_row(file: SourceFile, text: str, columns: dict[str, str], most: int) -> RawRow | RejectedRow:
    """Return a text as one row with ``columns`` beside it, or rejected: ``too_long`` with more than ``most`` characters, ``no_text`` where it is blank."""
    if len(text) > most:
        detail = f"the file has more than {most} characters of text; raise limits.max_characters"
        return RejectedRow(Source(file.name), "too_long", detail, truncate(text))
    if not text.strip():
        return RejectedRow(Source(file.name), "no_text", "the file has no text")
    return RawRow(Source(file.name), {**columns, "text": text})
