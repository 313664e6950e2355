"""What the drift benchmark has measured so far, a line a task: an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drift_corpora import Pair

from tunectl import monitoring
from tunectl.monitoring.power_study import Rate, Rates

MEASURED = ("signals", "features", "two_sample_tests", "text_kernel", "tail_probabilities", "decision", "frozen_tests")
"""Modules of the monitor by whose code figures are told apart."""


@dataclass(frozen=True)
class Task:
    """Some trials of one kind."""

    kind: str
    """A change, or a way to count false verdicts."""
    place: int
    """Of the pair."""
    rows: int
    """Of a window."""
    begin: int
    """Number of the first trial, or of the reference."""
    trials: int


class Journal:
    """Tasks that are done, with their figures, in a file; those of other code or other corpora do not count."""

    def __init__(self, path: Path, about: Sequence[Any]) -> None:
        """``about`` says what was measured, beside the code of the monitor."""
        code = b"".join((Path(monitoring.__path__[0]) / f"{name}.py").read_bytes() for name in MEASURED)
        self._key = hashlib.sha256(code + json.dumps(about).encode()).hexdigest()[:16]
        self._path, self.done, self.seconds = path, dict[Task, dict[str, Any]](), 0.0
        for line in path.read_text().splitlines() if path.is_file() else []:
            entry = json.loads(line)
            if entry["key"] == self._key:
                self.done[Task(**entry["task"])] = entry["figures"]
                self.seconds += entry["seconds"]

    def run_all(
        self,
        tasks: Sequence[Task],
        work: Callable[[Task], tuple[Task, dict[str, Any]]],
        workers: int,
        until: float,
        begin: Callable[[], None],
    ) -> None:
        """Do what is not done, ``workers`` tasks at a time, and keep each at once; none begins after ``until``."""
        todo = [one for one in tasks if one not in self.done]
        print(f"{len(tasks) - len(todo)} of {len(tasks)} tasks are done already", flush=True)
        last, total = time.monotonic(), len(todo)
        with multiprocessing.get_context("fork").Pool(workers, initializer=begin) as pool:
            running: list[Any] = []
            while todo or running:
                while todo and len(running) < workers and time.monotonic() < until:
                    running.append(pool.apply_async(work, (todo.pop(0),)))
                if not running:
                    break
                running[0].wait(0.2)
                for one in [each for each in running if each.ready()]:
                    running.remove(one)
                    task, figures = one.get()
                    now = time.monotonic()
                    self._keep(task, figures, now - last)
                    last = now
                    print(f"{total - len(todo) - len(running)}/{total} {task} {figures}", flush=True)

    def _keep(self, task: Task, figures: dict[str, Any], seconds: float) -> None:
        self.done[task] = figures
        self.seconds += seconds
        line = {"key": self._key, "task": asdict(task), "figures": figures, "seconds": round(seconds, 2)}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def null_figures(self, pairs: Sequence[tuple[Pair, Any]], kinds: Sequence[str]) -> list[dict[str, Any]]:
        """A row a pair and kind: false verdicts and evaluations of each reference."""
        rows = []
        for kind in kinds:
            for place, (pair, _) in enumerate(pairs):
                some = [one for one in self.done if (one.kind, one.place) == (kind, place)]
                if some:
                    rows.append(
                        {
                            "pair": pair.name,
                            "kind": kind,
                            "rows": some[0].rows,
                            "evaluations": [one.trials for one in some],
                            "false": [self.done[one]["false"] for one in some],
                        }
                    )
        return rows

    def power_figures(
        self, pairs: Sequence[tuple[Pair, Any]], changes: Mapping[tuple[str, int], Any]
    ) -> list[dict[str, Any]]:
        """A row a change and pair, and one of all pairs together."""
        result = []
        for change, rows in changes:
            cells = []
            for place, (pair, _) in enumerate(pairs):
                some = [one for one in self.done if (one.kind, one.place, one.rows) == (change, place, rows)]
                if some:
                    cells.append((pair.name, some))
            if len(cells) > 1:
                cells.append(("all pairs", [one for _, some in cells for one in some]))
            result += [self._power_row(name, change, rows, some) for name, some in cells]
        return result

    def _power_row(self, name: str, change: str, rows: int, tasks: Sequence[Task]) -> dict[str, Any]:
        delays = [each for one in tasks for each in self.done[one]["delays"]]
        alone = sum((Counter(self.done[one]["alone"]) for one in tasks), Counter())
        rates = Rates({}, delays)
        median = rates.median_delay
        return {
            "pair": name,
            "change": change,
            "rows": rows,
            "third": rates.by_window(3),
            "ninth": rates.by_window(9),
            "delay_rows": None if median is None else median * rows,
            "in_a_row": Rate(sum(self.done[one]["in_a_row"] for one in tasks), len(delays)),
            "alone": {signal: Rate(count, len(delays)) for signal, count in alone.items()},
        }
