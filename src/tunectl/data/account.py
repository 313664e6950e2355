"""Row accounts over the whole pipeline: does each stage's sum hold, and did each get what the one before it wrote?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from tunectl.artifacts import io, tally
from tunectl.artifacts.records import Reject
from tunectl.core.errors import ArtifactError

WRITES: Mapping[str, tuple[str, ...]] = {
    "ingest": ("documents.jsonl", "examples.jsonl"),
    "curate": ("documents.jsonl", "examples.jsonl"),
    "split": ("train.jsonl", "validation.jsonl", "test.jsonl", "documents.jsonl"),
}
"""Stage to the files whose lines are the records that it hands on, in the order of the pipeline."""

READS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "curate": ("ingest", ("documents.jsonl", "examples.jsonl")),
    "split": ("curate", ("documents.jsonl", "examples.jsonl")),
    "adapt": ("split", ("documents.jsonl",)),
    "sft": ("split", ("train.jsonl", "validation.jsonl")),
    "evaluate": ("split", ("test.jsonl",)),
}
"""Stage to the stage and files that it counts as rows in."""


class Line(Struct, frozen=True):
    """The account of one stage, and what is wrong with it."""

    stage: str
    rows_in: int
    kept: int
    rejected: dict[str, int]
    records_out: int | None
    """Records in its files, counted now; None for a stage that hands no records on."""
    problems: list[str]
    """Sentences; none where every sum holds."""


def chain(folders: Mapping[str, Path]) -> list[Line]:
    """One line for each stage of ``folders`` (stage to artifact folder, in pipeline order) that keeps an account.

    Counts the lines of the files themselves, so an account that was changed, or a file that was cut, is found.
    Raises  ArtifactError when no folder holds an account: nothing was built yet.
    """
    lines = [_line(stage, folders) for stage, folder in folders.items() if (folder / tally.ACCOUNT).is_file()]
    if not lines:
        place = next(iter(folders.values())).parent
        raise ArtifactError(f"no stage has left a row account in {place}", hint="run: tunectl repro --to split")
    return lines


def problems(lines: Sequence[Line]) -> list[str]:
    """All that is wrong, in pipeline order."""
    return [problem for line in lines for problem in line.problems]


def _line(stage: str, folders: Mapping[str, Path]) -> Line:
    folder = folders[stage]
    account = tally.load(folder)
    written = count(folder, WRITES[stage]) if stage in WRITES else None
    found = [*_sum(account, folder), *_files(account, folder, written), *_link(account, folders)]
    return Line(stage, account.rows_in, account.kept, account.rejected, written, found)


def _sum(account: tally.Account, folder: Path) -> Iterator[str]:
    rejected = sum(account.rejected.values())
    if account.rows_in != account.kept + rejected:
        yield f"{folder / tally.ACCOUNT}: {account.rows_in} rows in, but {account.kept} kept + {rejected} rejected = {account.kept + rejected}"


def _files(account: tally.Account, folder: Path, written: int | None) -> Iterator[str]:
    listed = Counter(reject.reason for reject in io.read_rows(folder / tally.REJECTS, Reject))
    for reason in sorted(listed.keys() | account.rejected.keys()):
        if listed[reason] != account.rejected.get(reason, 0):
            yield f"{folder / tally.REJECTS}: {listed[reason]} rows of reason {reason}, but the account says {account.rejected.get(reason, 0)}"
    if written is not None and written != account.records_out:
        yield f"{folder}: {written} records in its files, but the account says {account.records_out}"


def _link(account: tally.Account, folders: Mapping[str, Path]) -> Iterator[str]:
    if account.stage not in READS:
        return
    before, names = READS[account.stage]
    if before not in folders:
        return
    given = count(folders[before], names)
    if given != account.rows_in:
        yield f"{folders[account.stage]}: {account.rows_in} rows in, but {before} wrote {given} ({' + '.join(names)} in {folders[before]})"


def count(folder: Path, names: Sequence[str]) -> int:
    """Lines of the files ``names`` in ``folder``; a file that is absent has none."""
    total = 0
    for name in names:
        if (folder / name).is_file():
            with (folder / name).open("rb") as stream:
                total += sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))
    return total
