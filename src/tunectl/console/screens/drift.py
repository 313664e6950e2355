"""Screens of the drift of live traffic: the windows that the monitor closed, with their verdicts; and one window, signal by signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from tunectl.artifacts.records import DriftWindow, truncate
from tunectl.backends.storage import open_inference_log
from tunectl.console.read_context import NotFoundError, ProblemList
from tunectl.monitoring import reference_data, report_files
from tunectl.monitoring import window as windows

if TYPE_CHECKING:
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.config.schema.monitor import MonitorSettings
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.console.read_context import ReadContext
    from tunectl.inference_log.log_store import InferenceLog
    from tunectl.monitoring.signals import MonitoredInference

SHOWN: Final = 100
"""Number of newest windows that the screen shows."""
PREVIEW: Final = 400
"""Characters of a text that are shown."""
MAX_EXAMPLES: Final = 8


class DriftExample(Struct, frozen=True):
    """Prompt and answer of one inference, shown as an example of drift."""

    id: str
    question: str
    answer: str


class DriftSegment(Struct, frozen=True):
    """A segment of prompts whose share in the window differs from that in the reference, with examples."""

    name: str
    window: float
    """Share of the window's rows, 0 to 1."""
    reference: float
    examples: list[DriftExample] = field(default_factory=list)


class DriftScreen(Struct, frozen=True):
    """Content of the screen Drift: the newest windows, and the reference for prompts."""

    exists: bool = False
    """Whether anything was logged in this project."""
    running: str = "never"
    """State of the monitor: runs, stopped, never."""
    windows: list[DriftWindow] = field(default_factory=list)
    total: int = 0
    reference: list[str] = field(default_factory=list)
    """Ids of the accepted windows; empty: none, or the training prompts."""
    compared_with: str = ""
    """Reference of prompts in the settings: ``live`` or ``training``."""
    min_rows: int = 0
    """Rows that a window needs for a verdict."""
    problems: dict[str, str] = field(default_factory=dict)


class DriftWindowScreen(Struct, frozen=True):
    """Content of the screen of one window: its verdict, every signal, and examples beside those of the reference."""

    window: DriftWindow | None = None
    before: str = ""
    """Id of the previous window."""
    after: str = ""
    examples: list[DriftExample] = field(default_factory=list)
    """Inferences that differ most from the reference."""
    reference_examples: list[DriftExample] = field(default_factory=list)
    segments: list[DriftSegment] = field(default_factory=list)
    is_reference: bool = False
    can_be_reference: bool = False
    """Whether it has enough rows."""
    has_report: bool = False
    """Whether Evidently's report of it is still there."""
    problems: dict[str, str] = field(default_factory=dict)


def read_drift(context: ReadContext, query: Mapping[str, str]) -> DriftScreen:
    """Return the newest closed windows, at most ``query["number"]`` (100)."""
    problems = ProblemList()
    settings = problems.attempt("settings", context.load_settings, None)
    empty = DriftScreen(problems=problems.problems)
    if settings is None:
        return empty
    text = query.get("number", "")
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else SHOWN
    return problems.attempt("inference log", lambda: describe_drift(settings, context.layout, problems, number), empty)


def describe_drift(
    settings: MonitorSettings | TunectlConfig, layout: ProjectPaths, problems: ProblemList, number: int
) -> DriftScreen:
    """Return the newest ``number`` windows and the reference from the inference log.

    Raises  InfrastructureError where the inference log cannot be opened.
    """
    with open_inference_log.open_if_exists(settings.inference_log, layout) as log:
        if log is None:
            return DriftScreen(problems=problems.problems)
        closed = reference_data.list_closed_windows(log)
        named = windows.find_accepted_windows([one.body for one in log.events(kind=windows.REFERENCE_SET)])
    newest = closed[::-1][:number]
    return DriftScreen(
        exists=True,
        running=_describe_monitor(layout),
        windows=newest,
        total=len(closed),
        reference=named,
        compared_with=settings.monitor.prompts.reference,
        min_rows=settings.monitor.window.min_rows,
        problems=problems.problems,
    )


def _describe_monitor(layout: ProjectPaths) -> str:
    from tunectl.status.collect import process_state

    return process_state(layout.monitor_lock)


def read_drift_window(context: ReadContext, query: Mapping[str, str]) -> DriftWindowScreen:
    """Return one closed window, given by its id or the beginning of it.

    Raises  NotFoundError where there is none.
    """
    problems = ProblemList()
    name = query.get("window", "")
    settings = problems.attempt("settings", context.load_settings, None)
    empty = DriftWindowScreen(problems=problems.problems)
    if settings is None:
        return empty
    otherwise: DriftWindowScreen | None = empty
    screen = problems.attempt(
        "inference log", lambda: describe_window(settings, context.layout, problems, name), otherwise
    )
    if screen is None:
        raise NotFoundError(name)
    return screen


def read_report(context: ReadContext, name: str) -> bytes:
    """Return Evidently's report of the window ``name``, a page with scripts of its own.

    Raises  NotFoundError where there is none.
    """
    folder = context.layout.root / context.load_settings().monitor.reports
    path = next((path for path in report_files.list_reports(folder) if path.stem == name), None)
    if path is None:
        raise NotFoundError(name)
    return path.read_bytes()


def describe_window(
    settings: MonitorSettings | TunectlConfig, layout: ProjectPaths, problems: ProblemList, name: str
) -> DriftWindowScreen | None:
    """Return the window whose id begins with ``name``, with examples; None where there is none.

    Raises  InfrastructureError where the inference log cannot be opened.
    """
    with open_inference_log.open_if_exists(settings.inference_log, layout) as log:
        closed = [] if log is None else reference_data.list_closed_windows(log)
        index = next((index for index, one in enumerate(closed) if name and one.id.startswith(name)), None)
        if log is None or index is None:
            return None
        one = closed[index]
        named = windows.find_accepted_windows([event.body for event in log.events(kind=windows.REFERENCE_SET)])
        rows = _load_rows(problems, "examples", log, one.id)
        compared = [
            row for other in one.reference.split("+") for row in _load_rows(problems, "reference", log, other).values()
        ]
    return DriftWindowScreen(
        window=one,
        before=closed[index - 1].id if index else "",
        has_report=(layout.root / settings.monitor.reports / f"{one.id}.html").is_file(),
        after=closed[index + 1].id if index + 1 < len(closed) else "",
        examples=_pick_examples(one.exemplars, rows),
        reference_examples=[_build_example(row) for row in compared[:MAX_EXAMPLES]],
        segments=[
            DriftSegment(part.name, part.window, part.reference, _pick_examples(part.exemplars, rows)[:3])
            for part in one.segments
        ],
        is_reference=one.id in named,
        can_be_reference=one.rows >= settings.monitor.window.min_rows,
        problems=problems.problems,
    )


def _load_rows(problems: ProblemList, part: str, log: InferenceLog, name: str) -> dict[str, MonitoredInference]:
    return problems.attempt(part, lambda: reference_data.load_rows_by_id(log, name), {})


def _pick_examples(names: Sequence[str], rows: Mapping[str, MonitoredInference]) -> list[DriftExample]:
    return [_build_example(rows[name]) for name in names if name in rows][:MAX_EXAMPLES]


def _build_example(row: MonitoredInference) -> DriftExample:
    return DriftExample(row.id, truncate(row.prompt or "", PREVIEW), truncate(row.answer or "", PREVIEW))
