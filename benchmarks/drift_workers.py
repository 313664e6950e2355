"""Trials of the drift benchmark, shared out over processes, with a line a minute."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tunectl.monitoring.power_study import Rate

PART = 20
"""Trials that a process makes at a time."""
SECONDS = 60
"""Between two lines that say how far a figure is."""
Told = dict[str, Rate]
"""By the name of a signal or rule: how often it alarmed."""
Figures = dict[str, Told]
"""By "change, rows"."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One change at one size of window, and how often it is tried under which rules."""

    block: str
    change: str
    rows: int
    trials: int


Work = Callable[[Cell, int, int], Told]
"""A part of a cell's trials: the number of the first one, and how many. A function of a module: processes find it by its name."""


class Crew:
    """Processes that are forked off with all that was read, one thread of linear algebra each."""

    def __init__(self, work: Work, workers: int) -> None:
        self._work, self._began = work, time.monotonic()
        self._pool = multiprocessing.get_context("fork").Pool(workers, initializer=_single)

    def close(self) -> None:
        """Let them go."""
        self._pool.close()
        self._pool.join()

    def block(self, name: str, cells: Sequence[Cell]) -> Figures:
        """All cells of a block, printed as they come."""
        print(f"{name} ({(time.monotonic() - self._began) / 60:.0f} minutes so far)", flush=True)
        figures: Figures = {}
        for cell in cells:
            told = figures[f"{cell.change}, {cell.rows}"] = self._run(cell)
            words = "  ".join(f"{one} {rate}" for one, rate in told.items())
            print(f"  {cell.change:<14} {cell.rows:>4} rows  {words}", flush=True)
        return figures

    def _run(self, cell: Cell) -> Told:
        parts = [(self._work, cell, begin, min(PART, cell.trials - begin)) for begin in range(0, cell.trials, PART)]
        began = said = time.monotonic()
        found: list[Told] = []
        for told in self._pool.imap_unordered(_done, parts):
            found.append(told)
            now = time.monotonic()
            if now - said > SECONDS and len(found) < len(parts):
                said, left = now, (now - began) / len(found) * (len(parts) - len(found))
                share = f"{len(found) * PART:,} of {cell.trials:,} trials"
                print(f"  ... {cell.change}, {cell.rows} rows: {share}, {left / 60:.0f} minutes left", flush=True)
        return added(found)


def _single() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


def _done(part: tuple[Work, Cell, int, int]) -> Told:
    work, cell, begin, count = part
    return work(cell, begin, count)


def added(parts: Iterable[Told]) -> Told:
    """The rates of trials that were made in parts; a signal that a part could not tell has fewer trials."""
    counts, trials = Counter[str](), Counter[str]()
    for part in parts:
        for name, rate in part.items():
            counts[name] += rate.count
            trials[name] += rate.trials
    return {name: Rate(counts[name], trials[name]) for name in sorted(trials)}
