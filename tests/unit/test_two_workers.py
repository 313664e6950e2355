"""How tests are shared out over two workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from two_workers import LONGEST_FIRST, ONE_WORKER, place, rank

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/unit/test_version.py::test_a", "unit/test_version.py"),
        ("tests/serving/test_http_io.py::test_b[x::y/z@w]", "serving"),
        ("tests/e2e/test_loop.py::test_c", "e2e/test_loop.py"),
    ],
)
def test_the_tests_of_a_file_or_folder_go_to_one_worker(nodeid: str, expected: str) -> None:
    assert place(nodeid) == expected


def test_the_longest_begins_first() -> None:
    ids = ["tests/unit/test_version.py::a", "tests/serving/test_http_io.py::b", "tests/e2e/test_loop.py::c"]
    assert sorted(ids, key=rank) == ids[::-1]


def test_every_name_is_there() -> None:
    assert [name for name in (*ONE_WORKER, *LONGEST_FIRST) if not (TESTS / name).exists()] == []
