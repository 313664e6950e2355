"""Text files: opened strictly in one encoding, read whole or by line, Markdown with its front matter."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

from tunectl.artifacts.records import Reject, Source
from tunectl.config.ingest import Reading
from tunectl.data.reading.files import SourceFile, binary, opened
from tunectl.data.reading.rows import Row

UTF8 = "utf-8-sig"
"""UTF-8, with or without a byte order mark."""
_CHUNK = 1 << 20
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_PAIR = re.compile(r"([A-Za-z_][\w.-]*)[ \t]*:[ \t]*(.*?)[ \t]*\Z")


class Undecodable(Exception):
    """A file that is not in the encoding it is read in."""

    def __init__(self, file: SourceFile, encoding: str, offset: int, byte: int) -> None:
        super().__init__(file.name)
        self.file = file
        self.encoding = "UTF-8" if encoding == UTF8 else encoding
        self.offset = offset
        self.byte = byte

    @property
    def what(self) -> str:
        """The mistake in words."""
        return f"byte {self.offset} (0x{self.byte:02x}) is not {self.encoding}"


class NotText(Exception):
    """A file that is of another kind than its name or pin says."""

    def __init__(self, file: SourceFile, what: str) -> None:
        super().__init__(f"{file.name} is {what}")
        self.file = file
        self.what = what


@contextmanager
def text_of_file(file: SourceFile, encoding: str | None, *, newline: str | None) -> Iterator[io.TextIOWrapper]:
    """Open a text file; ``encoding`` None is UTF-8.

    Raises  Undecodable, with the offset of the first byte that does not fit; NotText for a binary file.
    """
    with opened(file.path) as stream:
        what = binary(stream.read(8192))
    if what is not None:
        raise NotText(file, what)
    name = encoding or UTF8
    with opened(file.path) as stream, io.TextIOWrapper(stream, encoding=name, errors="strict", newline=newline) as text:
        try:
            yield text
        except UnicodeError as error:
            raise _located(file, name) from error


def _located(file: SourceFile, encoding: str) -> Undecodable:
    """Where the first byte stands that does not fit; decoders only tell the place inside their last chunk."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    passed = 0
    with opened(file.path) as stream:
        while True:
            chunk = stream.read(_CHUNK)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                kept = len(error.object) - len(chunk)  # bytes of a character that began in the chunk before
                return Undecodable(file, encoding, passed - kept + error.start, error.object[error.start])
            except UnicodeError:  # UTF-16 without a byte order mark
                return Undecodable(file, encoding, 0, chunk[0] if chunk else 0)
            if not chunk:
                return Undecodable(file, encoding, passed, 0)
            passed += len(chunk)


def read_text(file: SourceFile, reading: Reading) -> Iterator[Row | Reject]:
    """A text file as one row."""
    with text_of_file(file, reading.encoding, newline=None) as stream:
        text = stream.read()
    yield page(file, text, {})


def read_lines(file: SourceFile, reading: Reading) -> Iterator[Row | Reject]:
    """A text file with a document a line, as one row a line; blank lines are not rows."""
    with text_of_file(file, reading.encoding, newline=None) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield Row(Source(file.name, number), {"text": line.rstrip("\n")})


def read_markdown(file: SourceFile, reading: Reading) -> Iterator[Row | Reject]:
    """A Markdown file as one row; plain values of its front matter become columns."""
    with text_of_file(file, reading.encoding, newline=None) as stream:
        body, columns = front_matter(stream.read())
    yield page(file, body, columns)


def front_matter(text: str) -> tuple[str, dict[str, str]]:
    """A Markdown text without its front matter, and the plain ``key: value`` lines of that."""
    found = _FRONT.match(text)
    if found is None:
        return text, {}
    pairs = [_PAIR.match(line) for line in found.group(1).splitlines()]
    columns = {pair.group(1): pair.group(2).strip("\"'") for pair in pairs if pair is not None and pair.group(2)}
    return text[found.end() :], columns


def page(file: SourceFile, text: str, columns: dict[str, str]) -> Row | Reject:
    """A whole file as one row, or a reject ``no_text``."""
    if not text.strip():
        return Reject(Source(file.name), "no_text", "there is no text in it")
    return Row(Source(file.name), {**columns, "text": text})
