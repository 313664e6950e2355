"""Find the files that a declared path means, and the type of each."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import IO, Any, Final, cast

from tunectl.core.errors import DataError

TYPES: dict[str, str] = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""Type of file, by extension."""
TABLES = frozenset({"csv", "tsv", "json", "jsonl", "parquet", "arrow"})
"""Types of file that hold rows with columns; a file of another type is one row, one per page, or one per line."""
ROWS = TABLES | {"lines"}
TEXTS = frozenset({"csv", "tsv", "json", "jsonl", "text", "lines", "markdown", "html"})
"""Types of file that hold text."""
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".heic"})
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""Compressed text files are decompressed while they are read."""
MAX_UNPACK_RATIO: Final = 200
"""Largest ratio of the content of a compressed file to its size: texts have 3 to 30, Word's files 5 to 40."""
SMALL_UNPACKED: Final = 32 << 20
"""Bytes of content up to which the ratio of a text may be larger: a table of equal rows."""
MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a ZIP, XLSX or DOCX file"),
    (b"%PDF-", "a PDF file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x1f\x8b", "a gzip file"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"SQLite format 3", "an SQLite database"),
)
"""First bytes that no text file has."""
_CHUNK = 1 << 20
_CACHED = re.compile(r"md5/[0-9a-f]{2}/[0-9a-f]{30}")
"""The end of the path of a file in DVC's cache, to which a file of the project may be a link."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source, with its type and columns as known before it is opened."""

    path: Path
    name: str
    """Name of the file in records: the path as declared, or the address it came from."""
    type: str | None
    """Kind of file; None where the extension is unknown."""
    columns: dict[str, str] = field(default_factory=dict)
    """Values that all its rows get."""
    outside: Path | None = None
    """Real path of the file, where it is a link that leads out of the declared path and the project; such a file is not read."""


def glob_files(path: str, root: Path, key: str) -> list[Path]:
    """Return the files that a declared path means, sorted; without files and folders whose names begin with a dot.

    ``path`` is a file, a folder or a glob relative to ``root``; ``key`` is the dotted key of this setting, for messages.
    Raises  DataError when there is no such file or folder, or nothing in it, or a name is not UTF-8.
    """
    pattern = root / Path(path).expanduser()
    if has_magic(path) and not pattern.exists():
        hits = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
        plain = next(above for above in pattern.parents if not has_magic(str(above)))
        files = sorted({item for hit in hits for item in _below(hit) if not _is_hidden(item.relative_to(plain))})
        if not files:
            raise DataError(
                f"{key} = {path}: no file matches", hint="a glob is relative to the project; ** goes into folders"
            )
        return _refuse_names(files)
    if not pattern.exists():
        raise DataError(
            f"{key} = {path}: there is no such file or folder",
            hint="paths are relative to the project, where dvc.yaml is",
        )
    files = _below(pattern)
    if not files:
        raise DataError(f"{key} = {path}: the folder is empty", hint="put the raw files there")
    return _refuse_names(files)


def _refuse_names(files: list[Path]) -> list[Path]:
    """Return ``files``; raise where the name of one is not UTF-8, since every row of it names it."""
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{str(file)!a}: the name of this file or folder is not UTF-8", hint="rename it, then run again"
            ) from error
    return files


def _below(path: Path) -> list[Path]:
    """Return a file itself, or all files below a folder, including those behind links to folders.

    A folder is entered once, by its own path rather than by a link, so that circular links end. A dead link counts
    as a file: opening it gives the error.
    """
    if not path.is_dir():
        return [path]
    files: list[Path] = []
    entered: set[Path] = set()
    folders: list[Path] = [path]
    links: list[Path] = []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        if folder.resolve() in entered:
            continue
        entered.add(folder.resolve())
        for item in sorted(folder.iterdir()):
            if item.name.startswith("."):
                continue
            if item.is_dir():
                (links if item.is_symlink() else folders).append(item)
            elif item.is_file() or is_dead_link(item):
                files.append(item)
    return sorted(files)


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def is_dead_link(path: Path) -> bool:
    """Return whether a path is a link to a missing target, or to itself."""
    return path.is_symlink() and not path.exists()


def find_outside(file: Path, declared: str, root: Path) -> Path | None:
    """Return the real path of a link that leads out of the declared path and the project; None for any other file.

    Such links are not followed: in data from others they may point to any file of this machine. Hidden files and folders of the
    project (``.env``, ``.git``) count as outside, since they hold keys; files of DVC's cache, which ``dvc add`` links to, do not.
    """
    target, base = file.resolve(), root / Path(declared).expanduser()
    if has_magic(declared) and not base.exists():
        base = next(above for above in base.parents if not has_magic(str(above)))
    for folder in (base.resolve(), root.resolve()):
        if target.is_relative_to(folder) and not _is_hidden(target.relative_to(folder)):
            return None
    return None if _CACHED.fullmatch("/".join(target.parts[-3:])) else target


def file_type(path: Path) -> str | None:
    """Return the type of a file (csv, json, ...) by its extension, without a compression one; None where it is unknown."""
    return TYPES.get(plain_suffix(path))


def plain_suffix(path: Path) -> str:
    """Return the extension in lower case, ``.csv`` for ``a.CSV.gz``: without a compression one."""
    suffixes = [item.lower() for item in path.suffixes]
    if suffixes and suffixes[-1] in OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_decompressed(path: Path) -> IO[bytes]:
    """Open a file for reading and return the stream of its bytes, decompressed where its extension is that of a compressed file."""
    opener = OPENERS.get(path.suffix.lower())
    return path.open("rb") if opener is None else cast("IO[bytes]", opener(path, "rb"))


def unpacks_beyond(path: Path, limit: int) -> bool:
    """Return whether a compressed file holds more than ``limit`` bytes; only that many are unpacked to find out.

    Checked before the first row is read: a file is read completely or not at all.
    """
    if path.suffix.lower() not in OPENERS:
        return False
    remaining = limit
    try:
        with open_decompressed(path) as stream:
            while remaining >= 0 and (chunk := stream.read(min(_CHUNK, remaining + 1))):
                remaining -= len(chunk)
    except (EOFError, OSError, lzma.LZMAError, zlib.error):  # who reads it says so
        return False
    return remaining < 0


def require_known(files: list[SourceFile], path: str, key: str) -> None:
    """Check that the source ``path``, declared at the dotted ``key``, has at least one readable file.

    Raises  DataError naming the extensions found and those that are known.
    """
    if any(item.type is not None for item in files):
        return
    extensions = ", ".join(sorted({item.path.suffix or "no extension" for item in files}))
    if len(files) == 1:
        problem = f"{key} = {path}: the kind of this file is not known ({extensions})"
    else:
        problem = f"{key} = {path}: none of its {len(files)} files is of a known kind ({extensions})"
    raise DataError(
        problem, hint=f"known are {' '.join(TYPES)}; for a file of another name, set {key.rpartition('.')[0]}.type"
    )


def sniff_binary(head: bytes, *, zeros: bool = False) -> str | None:
    """Return the type of a file that is not text, from its first bytes; None where it may be text. ``zeros``: text may hold zero bytes.

    UTF-16 and UTF-32 hold zero bytes: such files begin with a byte order mark, or the user has declared the encoding (``zeros``).
    """
    for magic, what in MAGIC:
        if head.startswith(magic):
            return what
    if zeros or head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    return "a binary file (it holds zero bytes)" if b"\0" in head else None
