"""Where nobody looks at a terminal, long work says in the log where it is, and short work says nothing."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.core import progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def said() -> list[str]:
    """What the log of progress has said."""
    return []


@pytest.fixture(autouse=True)
def listened(said: list[str]) -> object:
    logger = logging.getLogger("tunectl.core.progress")
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_short_work_is_silent(said: list[str]) -> None:
    clock = Clock()
    with progress.LogProgress(30, clock).bar("reading", 100) as shown:
        for _ in range(100):
            clock.now += 0.29
            shown.advance()
    assert said == []


def test_long_work_says_where_it_is(said: list[str]) -> None:
    clock = Clock()
    with progress.LogProgress(30, clock).bar("fine-tuning", 8) as shown:
        for step in range(1, 9):
            clock.now += 20
            shown.advance(loss=f"{2 / step:.1f}")
    assert said == [
        "fine-tuning: 2 of 8 (25%) after 40 s, loss 1.0",
        "fine-tuning: 4 of 8 (50%) after 80 s, loss 0.5",
        "fine-tuning: 6 of 8 (75%) after 120 s, loss 0.3",
        "fine-tuning: 8 of 8 (100%) after 160 s, loss 0.2",
    ]


def test_work_of_unknown_length(said: list[str]) -> None:
    clock = Clock()
    with progress.LogProgress(30, clock).bar("documents", None) as shown:
        clock.now += 31
        shown.advance(1200)
    assert said == ["documents: 1,200 after 31 s"]


def test_bars_inside_bars_share_their_silence(said: list[str]) -> None:
    clock = Clock()
    lines = progress.LogProgress(30, clock)
    with lines.bar("rounds", 3) as outer:
        for _ in range(3):
            with lines.bar("answers", 4) as inner:
                for _ in range(4):
                    clock.now += 4
                    inner.advance()
            outer.advance()
    assert said == ["answers: 4 of 4 (100%) after 16 s"]


@given(st.lists(st.floats(0, 90), max_size=40))
def test_never_more_than_one_line_in_that_time(gaps: list[float]) -> None:
    clock, told = Clock(), []
    lines = progress.LogProgress(30, clock)
    with lines.bar("work", len(gaps)):
        for gap in gaps:
            clock.now += gap
            if lines.due() is not None:
                told.append(clock.now)
    assert all(later - sooner >= 30 for sooner, later in zip([100.0, *told], told, strict=False))
