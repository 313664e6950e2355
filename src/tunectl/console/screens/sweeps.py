"""Screens of sweeps: trials with the best ones first, the best against the current settings, which setting matters; read from their storage."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import Struct, field

from tunectl.backends.sweeps import sweep_reader
from tunectl.config.schema.sweep import Sweep
from tunectl.console.paging import find_page_start
from tunectl.console.read_context import NotFoundError, ProblemList, stamp_files
from tunectl.console.screens.run_curve import CurveAxis, CurveSeries
from tunectl.core.url_credentials import hide_credentials
from tunectl.sweeps import sweep_report
from tunectl.sweeps.trial_records import SweepSummary

if TYPE_CHECKING:
    from tunectl.console.read_context import ReadContext

T = TypeVar("T")
PAGE_SIZE: Final = 50
MAX_SWEEPS: Final = 50
"""Number of newest sweeps in the list."""
SERVER_SECONDS: Final = 10
"""Seconds for which the answer of a database server is reused."""


class SweepRow(Struct, frozen=True):
    """One sweep in a list: trials by state, and the best one."""

    name: str
    counts: str = field(name="words")
    """Number of trials by state."""
    result: str
    """The best trial, or why there is none yet."""
    running: int
    stopped: bool


class SweepsScreen(Struct, frozen=True):
    """Content of the screen Sweeps: all sweeps of the storage that ``sweep.storage`` names."""

    rows: list[SweepRow] = field(default_factory=list)
    total: int = 0
    storage: str = ""
    """Address of the storage without the password."""
    problems: dict[str, str] = field(default_factory=dict)


class SweepScreen(Struct, frozen=True):
    """Content of the screen of one sweep: its trials, the best one, and its progress."""

    name: str
    summary: SweepSummary | None = None
    """Summary, as ``tunectl sweep show --json`` prints it."""
    lines: list[str] = field(default_factory=list)
    """Notes, as ``tunectl sweep show`` prints them below the table."""
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    """One page of trials, the best first."""
    at: int = 0
    size: int = PAGE_SIZE
    x: CurveAxis | None = None
    series: list[CurveSeries] = field(default_factory=list)
    """The first objective of each ended trial, and the best so far."""
    problems: dict[str, str] = field(default_factory=dict)


def read_sweeps(context: ReadContext, query: Mapping[str, str]) -> SweepsScreen:  # noqa: ARG001 - every screen is read alike
    """Return every sweep of the storage; an error becomes a problem on the page."""
    problems = ProblemList()
    url: str = problems.attempt("settings", lambda: _find_storage(context), "")
    if not url:
        return SweepsScreen(problems=problems.problems)
    nothing: list[str] = []
    names = problems.attempt(
        "sweeps",
        lambda: _ask(context, url, "names", lambda: sweep_reader.list_sweeps(url, context.layout.root)),
        nothing,
    )
    rows = []
    for name in names[:MAX_SWEEPS]:
        summary = problems.attempt(f"sweep {name}", partial(_read, context, url, name), None)
        if summary is not None:
            rows.append(_build_row(summary))
    return SweepsScreen(rows, len(names), hide_credentials(url), problems.problems)


def read_sweep(context: ReadContext, query: Mapping[str, str]) -> SweepScreen:
    """Return the sweep with the name ``query["sweep"]``; ``at`` chooses the page of trials.

    Raises  NotFoundError where there is none of that name.
    """
    problems = ProblemList()
    name = query.get("sweep", "")
    url: str = problems.attempt("settings", lambda: _find_storage(context), "")
    summary = problems.attempt("sweep", lambda: _read(context, url, name), None) if url else None
    if summary is None:
        if not problems.problems:
            raise NotFoundError(name)
        return SweepScreen(name, problems=problems.problems)
    section = Sweep.model_validate(summary.definition.section)
    columns, rows = sweep_report.table(summary, section)
    at = find_page_start(query.get("at", ""), PAGE_SIZE, len(rows))
    x, series = _draw_progress(summary, section)
    return SweepScreen(
        name,
        summary,
        sweep_report.summary_lines(summary, section),
        columns,
        rows[at : at + PAGE_SIZE],
        at,
        PAGE_SIZE,
        x,
        series,
        problems.problems,
    )


def _find_storage(context: ReadContext) -> str:
    section = context.load_settings().sweep
    return os.environ.get(section.storage_env) or section.storage


def _read(context: ReadContext, url: str, name: str) -> SweepSummary | None:
    now = context.now.timestamp()
    return _ask(context, url, name, lambda: sweep_reader.read_sweep(url, context.layout.root, name, now))


def _ask(context: ReadContext, url: str, what: str, read: Callable[[], T]) -> T:
    """Read from the storage, again only where its file has changed, or after some time for a server."""
    file = sweep_reader.find_file(url, context.layout.root)
    stamp: Any = int(context.now.timestamp()) // SERVER_SECONDS
    if file is not None:
        stamp = stamp_files([file, file.with_name(f"{file.name}-wal")])
    return context.cache.get(f"sweep {what} {url}", stamp, read)


def _build_row(summary: SweepSummary) -> SweepRow:
    section = Sweep.model_validate(summary.definition.section)
    first, *rest = sweep_report.summary_lines(summary, section)
    result = next((line for line in rest if line.startswith(("best", "front"))), "no trial has ended well yet")
    return SweepRow(
        summary.name, first.partition(": ")[2], result, running=summary.count("running"), stopped=summary.stopped
    )


def _draw_progress(summary: SweepSummary, section: Sweep) -> tuple[CurveAxis | None, list[CurveSeries]]:
    """Return the values of the first objective by trial, and the best so far; with several objectives there is no best."""
    goal = section.objective[0]
    ended = [(trial.number, trial.values[0]) for trial in summary.trials if trial.values]
    if len(ended) < 2:
        return None, []
    series = [CurveSeries(goal.metric, [value for _, value in ended])]
    if len(section.objective) == 1:
        choose = max if goal.direction == "maximize" else min
        best = [ended[0][1]]
        for _, value in ended[1:]:
            best.append(choose(best[-1], value))
        series.append(CurveSeries("best so far", list(best)))
    return CurveAxis("trial", [float(number) for number, _ in ended]), series
