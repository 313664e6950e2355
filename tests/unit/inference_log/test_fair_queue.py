"""Keys take turns by the bytes that they were served; the rows of one key keep their order."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tunectl.inference_log.fair_queue import FairQueue


@dataclass(frozen=True)
class Row:
    key: str
    number: int
    size: int


def queue(*rows: Row) -> FairQueue[Row]:
    made: FairQueue[Row] = FairQueue()
    for row in rows:
        made.append(row.key, row)
    return made


def test_a_key_with_large_rows_is_behind_one_that_comes_later() -> None:
    line = queue(*[Row("hostile", number, 1000) for number in range(20)])
    assert line.take(256, 100) == [Row("hostile", 0, 1000)]
    line.append("honest", Row("honest", 0, 10))
    assert line.take(256, 100) == [Row("honest", 0, 10)]
    assert line.take(256, 100) == [Row("hostile", 1, 1000)]


def test_a_key_that_was_idle_has_saved_nothing_up() -> None:
    line = queue(*[Row("busy", number, 100) for number in range(3)])
    assert [line.take(1, 0)[0].number for _ in range(2)] == [0, 1]
    for number in range(3):
        line.append("new", Row("new", number, 100))
    assert [(row.key, row.number) for row in line.take(9, 9999)] == [("new", 0), ("busy", 2), ("new", 1), ("new", 2)]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=40), st.integers(1, 5), st.integers(0, 99)
)
def test_all_come_out_once_in_the_order_of_their_key_and_within_the_bounds(given_rows, most, most_bytes) -> None:
    rows = [Row(key, number, size) for number, (key, size) in enumerate(given_rows)]
    line, found = queue(*rows), []
    assert len(line) == len(list(line)) == len(rows)
    while line:
        batch = line.take(most, most_bytes)
        assert 0 < len(batch) <= most
        assert len(batch) == 1 or sum(row.size for row in batch) <= most_bytes
        found += batch
    for key in "abc":
        assert [row for row in found if row.key == key] == [row for row in rows if row.key == key]
    assert len(found) == len(rows)
