"""Runs of ``tunectl repro``, newest first: who, what differs from the one before, the metric that decides, verdict, release; and two of them compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import hypot
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from tunectl.artifacts import atomic_io
from tunectl.backends.vcs import dvc_cache
from tunectl.config.loading.provenance import format_value, iter_leaves, to_dotted_key
from tunectl.console.links import link
from tunectl.console.paging import place_page
from tunectl.console.read_context import NotFoundError, ProblemList, stamp_files
from tunectl.evaluation import metrics, results
from tunectl.evaluation.results import AnswerRow, Score
from tunectl.pipeline import run_ledger
from tunectl.pipeline.run_ledger import RunRecord
from tunectl.registry.release_store import ReleaseRegistry

if TYPE_CHECKING:
    from tunectl.console.read_context import ReadContext

PAGE_SIZE: Final = 50
MAX_CHANGES: Final = 4
"""Differences that a row of the list names; the comparison has all."""
MAX_ANSWERS: Final = 20
"""Test inputs that are shown side by side."""
ABSENT: Final = "not there"
JUDGED: Final = ("aligned", "tuned")
"""The systems that a run is about, the last one first."""


class ChangedSetting(Struct, frozen=True):
    """One setting that two runs have differently."""

    what: str
    """STAGE: key."""
    old: str
    new: str


class RunRow(Struct, frozen=True):
    """One run in the list."""

    id: str
    started_at: datetime
    seconds: float
    author: str
    reason: str
    """Why, where it was started from the console."""
    unattended: bool
    """The retrain controller or a sweep started it."""
    commit: str
    changes: list[ChangedSetting]
    """The first of what differs from the run before."""
    more_changes: int
    executed: list[str]
    """Stages that it built."""
    system: str
    """The system that ``score`` is of."""
    metric: str
    score: Score | None
    verdict: str
    passed: bool | None
    failure: str
    release: str


class RunsScreen(Struct, frozen=True):
    """One page of runs."""

    rows: list[RunRow] = field(default_factory=list)
    total: int = 0
    at: int = 0
    size: int = PAGE_SIZE
    releases: list[str] = field(default_factory=list)
    """Those of the rows that the registry still has."""
    problems: dict[str, str] = field(default_factory=dict)


class MetricPair(Struct, frozen=True):
    """One metric of one system in both runs."""

    system: str
    metric: str
    unit: str
    old: Score | None
    new: Score | None
    difference: float | None
    """The second run minus the first."""
    low: float | None
    high: float | None
    """Ends of its interval, as if the test inputs of the two runs were drawn apart."""
    tone: str
    """``good`` or ``bad`` where the interval excludes 0 and more is better or worse; else empty."""


class AnswerWord(Struct, frozen=True):
    """A piece of an answer, and whether only this run has it."""

    text: str
    differs: bool


class AnswerPair(Struct, frozen=True):
    """One test input with the answers of both runs."""

    id: str
    input: str
    reference: str
    old: list[AnswerWord]
    new: list[AnswerWord]


class CurveLink(Struct, frozen=True):
    """One curve that both runs, or one of them, have."""

    stage: str
    figure: str
    link: str
    old_last: float | None
    new_last: float | None


class CompareScreen(Struct, frozen=True):
    """Two runs: only what differs."""

    old: RunRow | None = None
    new: RunRow | None = None
    settings: list[ChangedSetting] = field(default_factory=list)
    same_settings: int = 0
    stages: list[str] = field(default_factory=list)
    """Stages whose artifact differs."""
    same_test_set: bool | None = None
    """Whether both were measured on the same test rows; None where one was not measured."""
    metrics: list[MetricPair] = field(default_factory=list)
    curves: list[CurveLink] = field(default_factory=list)
    answers: list[AnswerPair] = field(default_factory=list)
    answers_reason: str = ""
    """Why there are no answers side by side."""
    choices: list[RunRow] = field(default_factory=list)
    """Newest runs, to choose from."""
    problems: dict[str, str] = field(default_factory=dict)


class CurveAxis(Struct, frozen=True):
    """Steps."""

    label: str
    values: list[float]


class CurveSeries(Struct, frozen=True):
    """Values at the steps; None where this run has none."""

    label: str
    values: list[float | None]


class CurveScreen(Struct, frozen=True):
    """One curve of two runs over the same steps."""

    title: str
    x: CurveAxis
    series: list[CurveSeries]
    problems: dict[str, str] = field(default_factory=dict)


def read_runs(context: ReadContext, query: Mapping[str, str]) -> RunsScreen:
    """Read one page of the ledger."""
    problems = ProblemList()
    names: list[str] = problems.attempt("runs", lambda: run_ledger.list_runs(context.layout), [])
    at = place_page(query.get("at", ""), PAGE_SIZE, len(names))
    wanted = names[at : at + PAGE_SIZE + 1]
    records = {name: _try_load(context, problems, name) for name in wanted}
    readable = [record for record in records.values() if record is not None]
    rows = [
        _build_row(record, readable[place + 1] if place + 1 < len(readable) else None)
        for place, record in enumerate(readable[:PAGE_SIZE])
    ]
    known: list[str] = problems.attempt("releases", ReleaseRegistry(context.layout.releases).ids, [])
    releases = sorted({row.release for row in rows} & set(known))
    return RunsScreen(rows, len(names), at, PAGE_SIZE, releases, problems.problems)


def _try_load(context: ReadContext, problems: ProblemList, name: str) -> RunRecord | None:
    return problems.attempt(f"run {name}", lambda: _load(context, name), None)


def _load(context: ReadContext, name: str) -> RunRecord:
    stamp = stamp_files([context.layout.runs / f"{name}.json"])
    return context.cache.get(f"run {name}", stamp, lambda: run_ledger.read_run(context.layout, name))


def _build_row(record: RunRecord, before: RunRecord | None) -> RunRow:
    changes = list(_list_changes(before, record)) if before is not None else []
    system = next((name for name in JUDGED if name in record.primary_scores), next(iter(record.primary_scores), ""))
    verdict = record.verdicts.get("evaluate") or next(iter(record.verdicts.values()), None)
    return RunRow(
        record.id,
        datetime.fromtimestamp(record.started_at, UTC),
        record.seconds,
        record.author,
        record.reason,
        record.unattended,
        record.commit or "",
        changes[:MAX_CHANGES],
        max(0, len(changes) - MAX_CHANGES),
        [stage.name for stage in record.stages if stage.executed],
        system,
        _title(record.primary) if record.primary else "",
        record.primary_scores.get(system),
        verdict.reason or verdict.verdict if verdict else "",
        verdict.passed if verdict else None,
        record.failure.message if record.failure else "",
        record.release or "",
    )


def _list_changes(old: RunRecord, new: RunRecord) -> Iterator[ChangedSetting]:
    before, after = _flatten(old.settings), _flatten(new.settings)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield ChangedSetting(key, before.get(key, ABSENT), after.get(key, ABSENT))


def _flatten(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return setting to value: several stages read some sections, and each of these stands once."""
    sections = {name: section for view in settings.values() for name, section in view.items()}
    return {to_dotted_key(path): format_value(value) for path, value in iter_leaves(sections) if path}


def _title(metric: str) -> str:
    try:
        return metrics.get_metric(metric).title
    except KeyError:
        return metric


def read_compare(context: ReadContext, query: Mapping[str, str]) -> CompareScreen:
    """Compare the runs ``old`` and ``new``; without them the two newest.

    Raises  NotFoundError for a run that is not in the ledger.
    """
    problems = ProblemList()
    names: list[str] = problems.attempt("runs", lambda: run_ledger.list_runs(context.layout), [])
    choices = [
        _build_row(record, None)
        for name in names[:PAGE_SIZE]
        if (record := _try_load(context, problems, name)) is not None
    ]
    known = [row.id for row in choices]
    new_name = query.get("new") or (known[0] if known else "")
    old_name = query.get("old") or (known[1] if len(known) > 1 else "")
    for name in (old_name, new_name):
        if name and name not in names:
            raise NotFoundError(name)
    old, new = (_try_load(context, problems, name) if name else None for name in (old_name, new_name))
    if old is None or new is None:
        return CompareScreen(choices=choices, problems=problems.problems)
    changes = list(_list_changes(old, new))
    nothing: tuple[list[AnswerPair], str] = ([], "They cannot be read.")
    answers, reason = problems.attempt("answers", lambda: _compare_answers(context, old, new), nothing)
    same = len(_flatten(old.settings).keys() | _flatten(new.settings).keys()) - len(changes)
    return CompareScreen(
        old=_build_row(old, None),
        new=_build_row(new, None),
        settings=changes,
        same_settings=same,
        stages=_list_changed_stages(old, new),
        same_test_set=None if old.test_set is None or new.test_set is None else old.test_set == new.test_set,
        metrics=list(_compare_metrics(old, new)),
        curves=list(_list_curves(old, new)),
        answers=answers,
        answers_reason=reason,
        choices=choices,
        problems=problems.problems,
    )


def _list_changed_stages(old: RunRecord, new: RunRecord) -> list[str]:
    before = {stage.name: stage.manifest for stage in old.stages}
    after = {stage.name: stage.manifest for stage in new.stages}
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def _compare_metrics(old: RunRecord, new: RunRecord) -> Iterator[MetricPair]:
    for system in dict.fromkeys((*new.scores, *old.scores)):
        before, after = old.scores.get(system, {}), new.scores.get(system, {})
        for name in metrics.sort_metrics({*before, *after}):
            yield _pair(system, name, before.get(name), after.get(name))


def _pair(system: str, name: str, old: Score | None, new: Score | None) -> MetricPair:
    known = metrics.get_metric(name)
    if old is None or new is None:
        return MetricPair(system, known.title, known.unit, old, new, None, None, None, "")
    difference = new.value - old.value
    low = high = None
    tone = ""
    if None not in (old.low, old.high, new.low, new.high):
        low = difference - hypot(new.value - (new.low or 0.0), (old.high or 0.0) - old.value)
        high = difference + hypot((new.high or 0.0) - new.value, old.value - (old.low or 0.0))
        if known.better != "neither" and (low > 0 or high < 0):
            tone = "good" if (low > 0) == (known.better == "higher") else "bad"
    return MetricPair(system, known.title, known.unit, old, new, difference, low, high, tone)


def _list_curves(old: RunRecord, new: RunRecord) -> Iterator[CurveLink]:
    for stage in dict.fromkeys((*new.curves, *old.curves)):
        before, after = old.curves.get(stage, {}), new.curves.get(stage, {})
        for figure in dict.fromkeys((*after, *before)):
            address = link("/runs/curve/{}/{}", stage, figure, old=old.id, new=new.id)
            yield CurveLink(stage, figure, address, _get_last(before.get(figure)), _get_last(after.get(figure)))


def _get_last(points: Sequence[tuple[int, float]] | None) -> float | None:
    return points[-1][1] if points else None


def read_run_curve(context: ReadContext, query: Mapping[str, str]) -> CurveScreen:
    """Read one curve of two runs, at all steps that either has.

    Raises  NotFoundError where neither has it.
    """
    problems = ProblemList()
    names: list[str] = problems.attempt("runs", lambda: run_ledger.list_runs(context.layout), [])
    stage, figure = query.get("stage", ""), query.get("figure", "")
    found: dict[str, dict[int, float]] = {}
    for name in dict.fromkeys(query.get(part, "") for part in ("old", "new")):
        record = _try_load(context, problems, name) if name in names else None
        points = record.curves.get(stage, {}).get(figure) if record else None
        if points:
            found[name] = dict(points)
    if not found and not problems.problems:
        raise NotFoundError(figure)
    steps = sorted({step for points in found.values() for step in points})
    return CurveScreen(
        f"{stage}: {figure.replace('_', ' ')}",
        CurveAxis("step", [float(step) for step in steps]),
        [CurveSeries(name, [points.get(step) for step in steps]) for name, points in found.items()],
        problems.problems,
    )


def _compare_answers(context: ReadContext, old: RunRecord, new: RunRecord) -> tuple[list[AnswerPair], str]:
    before, after = (_load_answers(context, record) for record in (old, new))
    if before is None or after is None:
        return [], (
            "The answers of one of these runs are no longer in the cache of DVC; only what the ledger keeps can be compared."
        )
    pairs = []
    for name, row in after.items():
        other = before.get(name)
        system = next((one for one in JUDGED if one in row.answers and other and one in other.answers), None)
        if other is not None and system is not None and other.answers[system] != row.answers[system]:
            first, second = _mark_words(other.answers[system], row.answers[system])
            pairs.append(AnswerPair(name, row.input, row.references[0] if row.references else "", first, second))
    if not pairs:
        return [], "Both runs gave the same answers, or were asked different questions."
    return pairs[:MAX_ANSWERS], ""


def _load_answers(context: ReadContext, record: RunRecord) -> dict[str, AnswerRow] | None:
    output = next((stage.output for stage in record.stages if stage.name == "evaluate"), None)
    path = None if output is None else dvc_cache.find_cached_file(context.layout.root, output, results.ANSWERS)
    if path is None:
        return None
    rows: dict[str, AnswerRow] = context.cache.get(
        f"answers {path}", stamp_files([path]), lambda: {row.id: row for row in atomic_io.read_rows(path, AnswerRow)}
    )
    return rows


def _mark_words(old: str, new: str) -> tuple[list[AnswerWord], list[AnswerWord]]:
    """Both texts in pieces; a piece that only one of them has is marked."""
    from difflib import SequenceMatcher

    first, second = old.split(" "), new.split(" ")
    left: list[AnswerWord] = []
    right: list[AnswerWord] = []
    for kind, a, b, c, d in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if first[a:b]:
            left.append(AnswerWord(" ".join(first[a:b]), kind != "equal"))
        if second[c:d]:
            right.append(AnswerWord(" ".join(second[c:d]), kind != "equal"))
    return left, right
