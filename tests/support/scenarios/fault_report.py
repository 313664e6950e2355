"""What a run of fault tests prints and keeps: a line each, and a table."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from scenarios.fault_result import Found
from tunectl.core import progress

G = TypeVar("G")


def judged(numbers: tuple[int, ...], row: Iterator[Found]) -> Iterator[Found]:
    """What a row finds; one that breaks off is a missed target, not the end of the others."""
    try:
        yield from row
    except Exception as error:  # whatever it is, the other rows are still worth their time
        traceback.print_exc()
        wrong = [f"broke off: {type(error).__name__}: {str(error)[:500]}"]
        yield Found(numbers[0], "/".join(map(str, numbers)), "runs to its end", wrong=wrong)


def run(rows: Sequence[tuple[tuple[int, ...], Callable[[G], Iterator[Found]]]], ground: G) -> list[Found]:
    """Every row on its ground, told as it ends; in the order of their numbers."""
    found: list[Found] = []
    with progress.bar("fault tests", len(rows)) as shown:
        for numbers, row in rows:
            for each in judged(numbers, row(ground)):
                found.append(each)
                print(line(each), flush=True)
            shown.advance(1)
    return sorted(found, key=lambda each: each.number)


def line(found: Found) -> str:
    """One scenario for the terminal."""
    state = "held" if found.held else "MISSED: " + "; ".join([*found.wrong, *found.slow])
    return f"{found.number:>2} {found.name}: {state}  {json.dumps(found.figures)}"


def table(found: list[Found]) -> Iterator[str]:
    """All of them as Markdown."""
    yield "| | fault | target | found |"
    yield "|---|---|---|---|"
    for each in found:
        figures = ", ".join(f"{name} {value}" for name, value in each.figures.items())
        state = "" if each.held else "**missed**: " + "; ".join([*each.wrong, *each.slow]) + " "
        cells = (str(each.number), each.name, each.target, f"{state}{figures}")
        yield f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in cells)} |"


def kept(found: Found) -> None:
    """For the suite: no promise was broken. Times are judged on a quiet machine."""
    assert not found.wrong, found
