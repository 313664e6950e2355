"""Curation in partitions, with tables in this process: the bytes of the local way, whatever the number of partitions."""

from __future__ import annotations

import itertools
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from curation_corpus import curate_into, document, make_corpus, make_giant_bucket

from tunectl.artifacts import atomic_io
from tunectl.core.errors import DataError, TunectlError
from tunectl.data.dedup.exact import ExactDedup
from tunectl.data.partitioned.curation import PartitionedCuration
from tunectl.data.partitioned.record_steps import list_ranges, read_range, run_block
from tunectl.data.partitioned.tables import Batch, Columns, EventRows, Load, Work, select_rows


class SerialTables:
    """Tables as lists of batches; groups come in the order of their number, batches in a shuffled one."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def start(self, rows: list[dict[str, Any]], columns: Columns) -> list[Batch]:
        return [{name: [row[name]] for name in columns} for row in reversed(rows)]

    def map(self, table: list[Batch], work: Work, columns: Columns) -> list[Batch]:
        return [check_columns(work(batch), columns) for batch in table]

    def group(self, table: list[Batch], work: Work, columns: Columns) -> list[Batch]:
        rows = concatenate(table)
        parts = np.unique(rows.get("part", np.zeros(0, np.int64))).tolist()
        return [check_columns(work(select_rows(rows, rows["part"] == part)), columns) for part in parts]

    def join(self, tables: list[list[Batch]]) -> list[Batch]:
        return [batch for table in reversed(tables) for batch in table]

    def read(self, table: list[Batch], *, sort: Sequence[str] = ()) -> Iterator[Batch]:
        if not sort:
            yield from table
        elif rows := concatenate(table):
            order = np.lexsort([rows[name] for name in reversed(sort)])
            yield {
                name: [values[index] for index in order] if isinstance(values, list) else values[order]
                for name, values in rows.items()
            }

    def share(self, value: Any) -> Load:
        return lambda: value


def check_columns(batch: Batch, columns: Columns) -> Batch:
    assert list(batch) == list(columns)
    assert len({len(values) for values in batch.values()}) == 1
    return batch


def concatenate(table: list[Batch]) -> Batch:
    result: dict[str, list[Any]] = defaultdict(list)
    for batch in table:
        for name, values in batch.items():
            result[name].append(values)
    return {
        name: list(itertools.chain(*parts)) if isinstance(parts[0], list) else np.concatenate(parts)
        for name, parts in result.items()
    }


def engine(partitions: int, **sizes: int) -> Any:
    def run(filters: Any, blocks: Any, build: Any, files: Any, total: Any, after: Any) -> Any:
        how = partial(PartitionedCuration, SerialTables(partitions), filters, blocks, build, uuid.uuid4().hex)
        return how(**sizes).run(files, total, after)

    return run


@pytest.mark.parametrize("partitions", [1, 3, 17])
@pytest.mark.parametrize(
    ("seed", "near", "changes"),
    [
        (0, {}, {}),
        (1, {"action": "cluster"}, {}),
        (2, {"keep": "first", "side": "output"}, {"exact": {"normalize": False}}),
        (3, {"side": "input"}, {"exact": None, "pii": None, "language": None}),
        (4, None, {"repair": None, "quality": None}),
    ],
    ids=str,
)
def test_random_corpora(
    tmp_path: Path, partitions: int, seed: int, near: dict[str, Any] | None, changes: dict[str, Any]
) -> None:
    records = make_corpus(seed)
    local = curate_into(tmp_path / "local", records, near, **changes)
    small = engine(partitions, range_bytes=3000, pairs_a_part=20)
    assert curate_into(tmp_path / "partitioned", records, near, small, **changes) == local


@pytest.mark.parametrize("partitions", [1, 17])
def test_one_giant_bucket(tmp_path: Path, partitions: int) -> None:
    records = make_giant_bucket(150)
    local = curate_into(tmp_path / "local", records, {})
    assert local["documents.jsonl"].count(b"\n") == 1
    assert curate_into(tmp_path / "partitioned", records, {}, engine(partitions, pairs_a_part=100)) == local


@pytest.mark.parametrize(
    "records", [[document(number, "the same text of several words") for number in range(30)], make_giant_bucket(1)]
)
def test_all_equal_and_one_alone(tmp_path: Path, records: Any) -> None:
    for changes in ({}, {"exact": None}):
        name = str(len(changes))
        local = curate_into(tmp_path / f"local{name}", records, {}, **changes)
        assert curate_into(tmp_path / f"partitioned{name}", records, {}, engine(3), **changes) == local


def test_more_data_are_spread_over_more_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunectl.data.partitioned.curation.PARTITION_BYTES", 1000)
    records = make_corpus(5)
    groups: list[int] = []
    group = SerialTables.group

    def count_groups(self: SerialTables, table: list[Batch], work: Work, columns: Columns) -> list[Batch]:
        result = group(self, table, work, columns)
        groups.append(len(result))
        return result

    monkeypatch.setattr(SerialTables, "group", count_groups)
    local = curate_into(tmp_path / "local", records, {})
    assert curate_into(tmp_path / "partitioned", records, {}, engine(1)) == local
    assert min(groups[:2]) > 20


def read_all(path: Path, size: int) -> tuple[list[int], list[Any]]:
    ranges = list_ranges([path, path.with_name("none")], size)
    parts = [read_range(path, item["file"], item["start"], item["stop"]) for item in ranges]
    return [number for part in parts for number in part[0]], [record for part in parts for record in part[1]]


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    atomic_io.write_rows(path, [document(number, "é" * number) for number in range(9)])
    path.write_bytes(path.read_bytes() + b'{"id": 1}\n')
    with pytest.raises(DataError, match=rf"{path}:10 is malformed: "):
        read_all(path, 100)


def test_the_first_line_that_is_no_record_ends_the_run(tmp_path: Path) -> None:
    def spoil(filters: Any, blocks: Any, build: Any, files: Any, total: Any, after: Any) -> Any:
        lines = files[0].read_bytes().splitlines(keepends=True)
        lines[3], lines[7] = b'{"id": 1}\n', b"{\n"
        files[0].write_bytes(b"".join(lines))
        return engine(3, range_bytes=100)(filters, blocks, build, files, total, after)

    with pytest.raises(DataError, match=r"ingest/documents.jsonl:4 is malformed: Expected `str`, got `int`"):
        curate_into(tmp_path, make_giant_bucket(9), None, spoil)


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_ranges_cover_every_line_once(tmp_path: Path, size: int) -> None:
    path = tmp_path / "documents.jsonl"
    rows = [document(number, "é" * number) for number in range(30)]
    atomic_io.write_rows(path, rows)
    numbers, records = read_all(path, size)
    assert records == rows
    assert numbers == sorted(set(numbers))


def test_a_block_that_loses_a_record_is_a_bug(tmp_path: Path) -> None:
    class Lossy(ExactDedup):
        def __call__(self, records: Any) -> Any:
            yield from list(super().__call__(records))[1:]

    rows = [document(1, "one"), document(2, "two")]
    with pytest.raises(TunectlError, match="filter exact duplicates returned 1 outcomes for 2 records"):
        run_block(Lossy(loose=True), 0, [1, 2], rows, EventRows())
