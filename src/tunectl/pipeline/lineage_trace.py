"""Trace rows: from a release back to the raw rows of its training, and from a row forward to the releases that were trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from tunectl.artifacts import atomic_io, manifest, row_counts
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import SPLIT_NAMES, Example, RejectedRow
from tunectl.core.errors import DataError
from tunectl.registry.release_manifest import ReleaseManifest
from tunectl.registry.release_store import ReleaseRegistry

FILES: Final = {
    "ingest": ("documents.jsonl", "examples.jsonl"),
    "feedback": ("examples.jsonl", "slice.jsonl"),
    "curate": ("documents.jsonl", "examples.jsonl"),
    "split": ("train.jsonl", "validation.jsonl", "test.jsonl"),
}
"""Files of rows by stage, in the order of the stages."""
BLOCK: Final = 1 << 20
"""Bytes that are searched at once; what fits the processor's cache is searched fastest."""
TRAIN: Final = "train.jsonl"


class RowStep(Struct, frozen=True):
    """One stage in which a row was found: kept, or rejected with a reason."""

    stage: str
    file: str
    what: str
    """``kept``, or the reject reason."""
    id: str
    """Id of the record of the row in that stage; empty for a reject."""
    source: str
    """FILE:ROW of the raw data."""
    detail: str = ""
    """What was wrong with a reject."""


def trace_row(layout: ProjectPaths, row_name: str) -> Iterator[RowStep]:
    """Yield one step per stage for the row ``row_name``: a record's id, or its source (FILE or FILE:ROW, where FILE may be the end of a path).

    Lines that cannot contain the name are not decoded, so that a large artifact is read at the speed of the disk.
    Raises  DataError for a line that is not a JSON object.
    """
    row_name = row_name.removeprefix("./")
    needles = _encode_needles(row_name)
    for stage, names in FILES.items():
        folder = layout.artifact(stage)
        for name in names:
            for row in _read_matching_rows(folder / name, needles):
                sources = [row.get("source"), *(answer.get("source") for answer in row.get("answers") or ())]
                if row.get("id") == row_name or any(_matches_source(source, row_name) for source in sources):
                    yield RowStep(stage, name, "kept", str(row.get("id", "")), format_source(sources[0]))
        for row in _read_matching_rows(folder / row_counts.REJECTS, needles):
            reject = msgspec.convert(row, RejectedRow)
            source_row = {"file": reject.source.file, "row": reject.source.row}
            if _matches_source(source_row, row_name):
                yield RowStep(stage, row_counts.REJECTS, reject.reason, "", format_source(source_row), reject.detail)


def _encode_needles(row_name: str) -> list[bytes]:
    """Return what a line must contain one of, as ``atomic_io`` writes it: the whole name, or the number of the raw row, a field of its own.

    None for a name that no record has: an empty one, and one with bytes that are no text, as a terminal may pass them.
    """
    if not row_name or any("\ud800" <= sign <= "\udfff" for sign in row_name):
        return []
    head, _, tail = row_name.rpartition(":")
    number = [b'"row":' + tail.encode() + end for end in (b"}", b",")] if head and tail.isdecimal() else []
    return [msgspec.json.encode(row_name)[1:-1], *number]


def _read_matching_rows(path: Path, needles: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    for offset, line in find_lines(path, needles):
        try:
            row: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        except atomic_io.NOT_JSON as error:
            with path.open("rb") as stream:
                number = stream.read(offset).count(b"\n") + 1
            raise DataError(
                f"{path}:{number} is not a JSON object: {error}",
                hint=f"build that file again: tunectl repro --force --to {path.parent.name}",
            ) from error
        yield row


def find_lines(path: Path, needles: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield offset (bytes) and text of the lines that contain one of ``needles``, in their order; nothing where there is no such file.

    Blocks of the file are searched, not single lines, and no line is counted: a page of one row among 100,000 costs little.
    """
    if not path.is_file():
        return
    offset = 0
    with path.open("rb") as stream:
        while block := stream.read(BLOCK) + stream.readline():
            starts = set()
            for needle in filter(None, needles):  # an empty one is found everywhere, for ever
                at = block.find(needle)
                while at >= 0:
                    starts.add(block.rfind(b"\n", 0, at) + 1)
                    end = block.find(b"\n", at)
                    at = block.find(needle, end) if end >= 0 else -1
            for start in sorted(starts):
                end = block.find(b"\n", start)
                yield offset + start, block[start : end if end >= 0 else len(block)]
            offset += len(block)


def _matches_source(source: Any, row_name: str) -> bool:
    if not isinstance(source, dict):
        return False
    names = (str(source.get("file", "")), format_source(source))
    return any(name == row_name or name.endswith(f"/{row_name}") for name in names)


def format_source(source: Any) -> str:
    """Return FILE:ROW, or FILE where the whole file is meant."""
    if not isinstance(source, dict):
        return ""
    return f"{source['file']}:{source['row']}" if source.get("row") else str(source["file"])


def is_in_train_split(steps: Sequence[RowStep]) -> bool:
    """Return whether the row traced by ``steps`` is in train.jsonl of the current split."""
    return any((step.stage, step.file) == ("split", TRAIN) for step in steps)


def is_split_of_release(layout: ProjectPaths, release: ReleaseManifest) -> bool:
    """Return whether the project's current split is the one that the release was trained on."""
    expected = release.lineage.stages.get("split") if release.lineage else None
    folder = layout.artifact("split")
    if expected is None or not (folder / manifest.NAME).is_file():
        return False
    return atomic_io.sha256_json(manifest.read(folder)) == expected


def list_learning_releases(store: ReleaseRegistry, layout: ProjectPaths, steps: Sequence[RowStep]) -> list[str]:
    """Return the ids of releases that were trained on the row traced by ``steps``: those of the current split, if its train.jsonl has the row."""
    if not is_in_train_split(steps):
        return []
    return [name for name in store.ids() if is_split_of_release(layout, store.manifest(name))]


def count_rows_by_file(layout: ProjectPaths) -> dict[str, dict[str, int]]:
    """Return by raw file the number of its answers in train, validation and test: ``{file: {"train": 12}}``."""
    result: dict[str, Counter[str]] = {}
    for part in SPLIT_NAMES:
        for source in _read_answer_sources(layout.artifact("split") / f"{part}.jsonl"):
            file = source.file if not source.file.startswith("inference_log/") else source.file.rpartition("/")[0]
            result.setdefault(file, Counter())[part] += 1
    return {name: dict(counts) for name, counts in sorted(result.items())}


def list_raw_rows(layout: ProjectPaths) -> list[str]:
    """Return every raw row of the current split's train.jsonl, as FILE:ROW, sorted."""
    sources = _read_answer_sources(layout.artifact("split") / TRAIN)
    return sorted({source.location for source in sources})


def _read_answer_sources(path: Path) -> Iterator[Any]:
    for row in atomic_io.read_rows(path, Example) if path.is_file() else ():
        yield from [answer.source for answer in row.answers] or [row.source]
