"""Screen that compares two runs: settings that differ, metrics with paired intervals, curves, and differing answers side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from tunectl.artifacts import atomic_io, manifest
from tunectl.backends.vcs import dvc_cache
from tunectl.console import paired_scores
from tunectl.console.links import link
from tunectl.console.paging import find_page_start
from tunectl.console.paired_scores import PairedRuns
from tunectl.console.read_context import NotFoundError, ProblemList, stamp_files
from tunectl.console.screens.runs import (
    JUDGED,
    ChangedSetting,
    RunRow,
    build_row,
    flatten_settings,
    list_changes,
    try_load,
)
from tunectl.console.word_alignment import align_words
from tunectl.core.errors import TunectlError
from tunectl.evaluation import metrics, results
from tunectl.evaluation.results import AnswerRow, MetricDifference, Score
from tunectl.pipeline import run_ledger
from tunectl.pipeline.run_ledger import RunRecord

if TYPE_CHECKING:
    from tunectl.console.read_context import ReadContext

CHOICES: Final = 50
"""Number of newest runs to choose from."""
PAGE_SIZE: Final = 20
"""Test inputs per page, side by side."""
SORTS: Final = {"loss": "largest loss first", "gain": "largest gain first", "file": "as in the file"}
NOTHING_PAIRED: Final = PairedRuns([], {}, {})
_Answers = Mapping[str, AnswerRow]


class MetricPair(Struct, frozen=True):
    """One metric of one system in both runs, with the difference and its interval."""

    system: str
    name: str
    metric: str
    """Title of the metric."""
    unit: str
    old: Score | None
    new: Score | None
    difference: float | None
    """The second run minus the first."""
    low: float | None
    high: float | None
    paired: bool
    """Whether the interval is paired: both runs are resampled together, on the same inputs; else each by itself."""
    tone: str
    """``good`` or ``bad`` where the interval excludes 0 and the metric has a direction; else empty."""


class AnswerWord(Struct, frozen=True):
    """A piece of an answer's text, and whether only this run's answer has it."""

    text: str
    differs: bool


class AnswerPair(Struct, frozen=True):
    """One test input with the answers of both runs and their scores."""

    id: str
    input: str
    reference: str
    old: list[AnswerWord]
    new: list[AnswerWord]
    old_score: float | None = None
    """Score of this input alone, in the chosen metric; None where the run kept no scores of inputs."""
    new_score: float | None = None


class CurveLink(Struct, frozen=True):
    """One training curve that either run has: its last value in each, and the address of its page."""

    stage: str
    figure: str
    link: str
    old_last: float | None
    new_last: float | None


class CompareScreen(Struct, frozen=True):
    """Differences of two runs: settings, stages, metrics, curves and answers."""

    old: RunRow | None = None
    new: RunRow | None = None
    settings: list[ChangedSetting] = field(default_factory=list)
    same_settings: int = 0
    stages: list[str] = field(default_factory=list)
    """Stages with different artifacts."""
    same_test_set: bool | None = None
    """Whether both were measured on the same test rows; None where one was not measured."""
    metrics: list[MetricPair] = field(default_factory=list)
    curves: list[CurveLink] = field(default_factory=list)
    system: str = ""
    """The system whose answers are shown."""
    metric: str = ""
    """The metric that they are sorted by."""
    sort: str = "loss"
    answers: list[AnswerPair] = field(default_factory=list)
    different: int = 0
    """Number of inputs that the two runs answered differently."""
    asked: int = 0
    """Number of inputs that both answered."""
    at: int = 0
    size: int = PAGE_SIZE
    answers_reason: str = ""
    """Why answers cannot be compared side by side."""
    choices: list[RunRow] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


def read_compare(context: ReadContext, query: Mapping[str, str]) -> CompareScreen:
    """Return the differences between the runs ``old`` and ``new``; without ``new`` the newest, without ``old`` the one before it.

    ``system``, ``metric``, ``sort`` (see ``SORTS``) and ``at`` choose the answers.
    Raises  NotFoundError for a run that is not in the ledger.
    """
    problems = ProblemList()
    names: list[str] = problems.attempt("runs", lambda: run_ledger.list_runs(context.layout), [])
    choices = [
        build_row(record, None) for name in names[:CHOICES] if (record := try_load(context, problems, name)) is not None
    ]
    run_ids = [row.id for row in choices]
    new_name = query.get("new") or (run_ids[0] if run_ids else "")
    before = names[names.index(new_name) + 1 :] if new_name in names else []
    old_name = query.get("old") or next(iter(before), "")
    for name in (old_name, new_name):
        if name and name not in names:
            raise NotFoundError(name)
    old, new = (try_load(context, problems, name) if name else None for name in (old_name, new_name))
    choices += [build_row(run, None) for run in (new, old) if run is not None and run.id not in run_ids]
    if old is None or new is None:
        return CompareScreen(choices=choices, problems=problems.problems)
    nothing: tuple[_Answers | None, _Answers | None] = (None, None)
    stored = problems.attempt("answers", lambda: (_load_answers(context, old), _load_answers(context, new)), nothing)
    paired = problems.attempt("scores of inputs", lambda: _pair_scores(context, old, new), NOTHING_PAIRED)
    changes = list(list_changes(old, new))
    same = len(flatten_settings(old.settings).keys() | flatten_settings(new.settings).keys()) - len(changes)
    return CompareScreen(
        old=build_row(old, None),
        new=build_row(new, None),
        settings=changes,
        same_settings=same,
        stages=_list_changed_stages(old, new),
        same_test_set=None if old.test_set is None or new.test_set is None else old.test_set == new.test_set,
        metrics=list(_compare_metrics(old, new, {(item.system, item.measure): item for item in paired.differences})),
        curves=list(_list_curves(old, new)),
        choices=choices,
        problems=problems.problems,
        **_compare_answers(new, stored, paired, query),
    )


def _list_changed_stages(old: RunRecord, new: RunRecord) -> list[str]:
    before = {stage.name: stage.manifest for stage in old.stages}
    after = {stage.name: stage.manifest for stage in new.stages}
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def _compare_metrics(
    old: RunRecord, new: RunRecord, paired: Mapping[tuple[str, str], MetricDifference]
) -> Iterator[MetricPair]:
    for system in dict.fromkeys((*new.scores, *old.scores)):
        before, after = old.scores.get(system, {}), new.scores.get(system, {})
        for name in metrics.sort_metrics({*before, *after}):
            yield _pair(system, name, before.get(name), after.get(name), paired.get((system, name)))


def _pair(system: str, name: str, old: Score | None, new: Score | None, paired: MetricDifference | None) -> MetricPair:
    metric = metrics.get_metric(name)
    if old is None or new is None:
        return MetricPair(system, name, metric.title, metric.unit, old, new, None, None, None, paired=False, tone="")
    difference, low, high = new.value - old.value, None, None
    if paired is not None:
        difference, low, high = paired.value, paired.low, paired.high
    elif None not in (old.low, old.high, new.low, new.high):
        low = difference - hypot(new.value - (new.low or 0.0), (old.high or 0.0) - old.value)
        high = difference + hypot((new.high or 0.0) - new.value, old.value - (old.low or 0.0))
    tone = ""
    if low is not None and high is not None and metric.better != "neither" and (low > 0 or high < 0):
        tone = "good" if (low > 0) == (metric.better == "higher") else "bad"
    return MetricPair(
        system, name, metric.title, metric.unit, old, new, difference, low, high, paired=paired is not None, tone=tone
    )


def _pair_scores(context: ReadContext, old: RunRecord, new: RunRecord) -> PairedRuns:
    """Pair the runs by their inputs; nothing where one of them kept no scores of inputs."""
    paths = [path for run in (old, new) if (path := _find_file(context, run, results.INPUT_SCORES)) is not None]
    if len(paths) < 2:
        return NOTHING_PAIRED
    gate = new.settings.get("evaluate", {}).get("evaluate", {}).get("gate", {})
    confidence = float(gate.get("confidence", 0.95))
    key = f"paired {paths[0]} {paths[1]} {confidence}"
    return context.cache.get(key, stamp_files(paths), lambda: paired_scores.pair_runs(paths[0], paths[1], confidence))


def _list_curves(old: RunRecord, new: RunRecord) -> Iterator[CurveLink]:
    for stage in dict.fromkeys((*new.curves, *old.curves)):
        before, after = old.curves.get(stage, {}), new.curves.get(stage, {})
        for figure in dict.fromkeys((*after, *before)):
            address = link("/runs/curve/{}/{}", stage, figure, old=old.id, new=new.id)
            yield CurveLink(stage, figure, address, _get_last(before.get(figure)), _get_last(after.get(figure)))


def _get_last(points: Sequence[tuple[int, float]] | None) -> float | None:
    return points[-1][1] if points else None


def _compare_answers(
    new: RunRecord, stored: tuple[_Answers | None, _Answers | None], paired: PairedRuns, query: Mapping[str, str]
) -> dict[str, Any]:
    """Return the fields of the screen that are about answers."""
    before, after = stored
    if before is None or after is None:
        reason = "The answers of one of these runs are no longer in the cache of DVC; only what the ledger keeps can be compared."
        return {"answers_reason": reason}
    common = [name for name in after if name in before]
    there = {system for name in common for system in after[name].answers if system in before[name].answers}
    requested = query.get("system", "")
    system = (
        requested if requested in there else next((name for name in JUDGED if name in there), min(there, default=""))
    )
    metric = query.get("metric", "") or new.primary or ""
    sort = query.get("sort", "") if query.get("sort", "") in SORTS else "loss"
    different = [name for name in common if before[name].answers.get(system) != after[name].answers.get(system)]
    values = [run.get(system, {}).get(metric, {}) for run in (paired.old, paired.new)]
    gains = {name: (values[0].get(name), values[1].get(name)) for name in different}
    if sort != "file" and any(None not in pair for pair in gains.values()):
        different.sort(key=lambda name: _sort_key(gains[name], metric, sort))
    at = find_page_start(query.get("at", ""), PAGE_SIZE, len(different))
    pairs = [_build_pair(name, system, gains[name], before, after) for name in different[at : at + PAGE_SIZE]]
    reason = "" if pairs else "Both runs gave the same answers, or were asked different questions."
    selection = {"system": system, "metric": metric, "sort": sort, "at": at, "answers": pairs, "answers_reason": reason}
    return {**selection, "different": len(different), "asked": len(common)}


def _sort_key(pair: tuple[float | None, float | None], metric: str, sort: str) -> float:
    """Return the sort key, ascending: the largest loss, or the largest gain, first; inputs without scores last."""
    old, new = pair
    if old is None or new is None:
        return float("inf")
    gain = (new - old) * (-1 if metrics.get_metric(metric).better == "lower" else 1)
    return gain if sort == "loss" else -gain


def _build_pair(
    name: str, system: str, scores: tuple[float | None, float | None], before: _Answers, after: _Answers
) -> AnswerPair:
    row = after[name]
    first, second = _mark_words(before[name].answers.get(system, ""), row.answers.get(system, ""))
    return AnswerPair(name, row.input, row.references[0] if row.references else "", first, second, *scores)


def _load_answers(context: ReadContext, record: RunRecord) -> _Answers | None:
    """Return the answers of a run by input; None where they are gone."""
    path = _find_file(context, record, results.ANSWERS)
    if path is None:
        return None
    answers: dict[str, AnswerRow] = context.cache.get(
        f"answers {path}", stamp_files([path]), lambda: {row.id: row for row in atomic_io.read_rows(path, AnswerRow)}
    )
    return answers


def _find_file(context: ReadContext, record: RunRecord, name: str) -> Path | None:
    """Return the path of a file of a run's evaluation: among the artifacts for the last run, else in DVC's cache."""
    stage = next((stage for stage in record.stages if stage.name == "evaluate"), None)
    if stage is None:
        return None
    folder = context.layout.artifact("evaluate")
    try:
        is_last = stage.manifest == atomic_io.sha256_json(manifest.read(folder))
    except (OSError, TunectlError):
        is_last = False
    if is_last and (folder / name).is_file():
        return folder / name
    return None if stage.output is None else dvc_cache.find_cached_file(context.layout.root, stage.output, name)


def _mark_words(old: str, new: str) -> tuple[list[AnswerWord], list[AnswerWord]]:
    """Return both texts in pieces; a piece that only one of them has is marked."""
    first, second = old.split(" "), new.split(" ")
    left: list[AnswerWord] = []
    right: list[AnswerWord] = []
    a = b = 0
    for run in [*_list_runs(align_words(first, second)), (len(first), len(second), 0)]:
        for words, start, end, marked in ((first, a, run[0], left), (second, b, run[1], right)):
            if words[start:end]:
                marked.append(AnswerWord(" ".join(words[start:end]), True))
            if run[2]:
                marked.append(AnswerWord(" ".join(words[end : end + run[2]]), False))
        a, b = run[0] + run[2], run[1] + run[2]
    return left, right


def _list_runs(pairs: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return common words that follow each other in both texts: where they begin in each, and how many they are."""
    runs: list[tuple[int, int, int]] = []
    for left, right in pairs:
        if runs and (left, right) == (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]):
            runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        else:
            runs.append((left, right, 1))
    return runs
