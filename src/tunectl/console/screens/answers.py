"""Every test input with the answers of all systems side by side, filtered by field, check, system and text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from tunectl.artifacts import atomic_io, manifest
from tunectl.console.paging import find_page_start
from tunectl.console.read_context import ProblemList, stamp_files
from tunectl.console.word_alignment import MAX_WORDS, align_words
from tunectl.core.errors import ConfigError
from tunectl.evaluation import declared_checks, results
from tunectl.evaluation.results import AnswerRow, Results

if TYPE_CHECKING:
    from pathlib import Path

    from tunectl.config.schema.evaluate import Check
    from tunectl.console.read_context import ReadContext

PAGE_SIZE: Final = 20
SORTS: Final = {
    "file": "as in the file",
    "gain": "largest gain first",
    "loss": "largest loss first",
    "longest": "longest answer first",
}
ORDER: Final = ("base", "prompted", "nearest", "tuned", "aligned")
"""Systems from left to right; others follow."""


class CheckResult(Struct, frozen=True):
    """Score of one declared check on one answer."""

    name: str
    score: float
    """0 to 1."""


class SystemAnswer(Struct, frozen=True):
    """Answer of one system (base, tuned, aligned) to a test input, and its scores."""

    system: str
    title: str
    text: str
    similarity: float | None
    """Similarity to the nearest reference, 0 to 1: the share of words in the same order. For sorting only; no verdict uses it."""
    checks: list[CheckResult] = field(default_factory=list)


class AnswerCard(Struct, frozen=True):
    """One test input with its references and the answers of all systems."""

    id: str
    input: str
    references: list[str]
    fields: dict[str, str]
    answers: list[SystemAnswer]
    why: str = ""
    """Why the report lists it: worst, lost, best ..."""


class FilterOption(Struct, frozen=True):
    """One value of a filter, and the number of inputs that have it."""

    value: str
    title: str
    count: int


class AnswersScreen(Struct, frozen=True):
    """One page of the screen Answers: filtered test inputs, and the filters' options."""

    total: int = 0
    """Number of inputs of the evaluation."""
    matching: int = 0
    """Number of inputs that pass the filters."""
    at: int = 0
    """Index of the first card among them."""
    size: int = PAGE_SIZE
    """Cards per page."""
    cards: list[AnswerCard] = field(default_factory=list)
    systems: dict[str, str] = field(default_factory=dict)
    """Titles by name, from left to right."""
    shown: list[str] = field(default_factory=list)
    """Systems that are shown."""
    against: list[str] = field(default_factory=list)
    """The two systems that gain and loss compare: the one expected to be better is first."""
    slices: dict[str, list[FilterOption]] = field(default_factory=dict)
    """Values of each field."""
    checks: list[str] = field(default_factory=list)
    kinds: list[FilterOption] = field(default_factory=list)
    query: dict[str, str] = field(default_factory=dict)
    """The filters that are set."""
    problems: dict[str, str] = field(default_factory=dict)


FILTERS: Final = ("system", "sort", "check", "slice", "kind", "q", "at")


def read_answers(context: ReadContext, query: Mapping[str, str]) -> AnswersScreen:
    """Return the test inputs of the last evaluation, with their answers, that pass the filters of ``query``.

    ``system``: only this one, beside the base. ``check``: NAME shows answers that fail it, NAME:passed those that pass. ``slice``:
    FIELD:VALUE. ``kind``: worst, lost, best ... as the report has them. ``q``: text in the input or an answer. ``sort``: see ``SORTS``.
    """
    problems = ProblemList()
    rows: Sequence[AnswerRow] = problems.attempt("answers", lambda: _load_rows(context), ())
    facts: Results | None = problems.attempt("results", lambda: _load_results(context), None)
    checks: Mapping[str, Check] = problems.attempt("settings", lambda: _load_checks(context), {})
    names = {system.name: system.title for system in facts.systems} if facts else {}
    systems = _order_systems(rows, names)
    kinds = {case.id: case.why for case in facts.cases} if facts else {}
    picked = {name: query[name] for name in FILTERS if query.get(name)}
    against = _choose_pair(systems, picked.get("system", ""))
    matches = [row for row in rows if _passes(row, picked, checks, kinds, against)]
    matches = _sort(matches, picked.get("sort", "file"), against)
    at = find_page_start(picked.get("at", ""), PAGE_SIZE, len(matches))
    only = [name for name in systems if not picked.get("system") or name in (picked["system"], "base")]
    return AnswersScreen(
        total=len(rows),
        matching=len(matches),
        at=at,
        cards=[
            _build_card(row, {name: systems[name] for name in only}, checks, kinds.get(row.id, ""))
            for row in matches[at : at + PAGE_SIZE]
        ],
        systems=systems,
        shown=only,
        against=list(against),
        slices=_count_slices(rows),
        checks=list(checks),
        kinds=[FilterOption(kind, kind.replace("_", " "), count) for kind, count in Counter(kinds.values()).items()],
        query=picked,
        problems=problems.problems,
    )


def read_inputs(context: ReadContext, problems: ProblemList) -> Sequence[AnswerRow]:
    """Return all test inputs of the last evaluation; empty where there is none."""
    return problems.attempt("answers", lambda: _load_rows(context), ())


def _load_rows(context: ReadContext) -> Sequence[AnswerRow]:
    path = context.layout.artifact("evaluate") / results.ANSWERS
    if not (path.parent / manifest.NAME).is_file():
        return ()
    return context.cache.get(f"rows {path}", stamp_files([path]), lambda: tuple(atomic_io.read_rows(path, AnswerRow)))


def _load_results(context: ReadContext) -> Results | None:
    path: Path = context.layout.artifact("evaluate") / results.NAME
    evaluation: Results | None = context.read_json(path, Results)
    return evaluation


def _load_checks(context: ReadContext) -> Mapping[str, Check]:
    return {check.name: check for check in context.load_settings().evaluate.checks or ()}


def _order_systems(rows: Sequence[AnswerRow], titles: Mapping[str, str]) -> dict[str, str]:
    there = dict.fromkeys(name for row in rows[:1] for name in row.answers)
    ranked = sorted(there, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    return {name: titles.get(name, name) for name in ranked}


def _choose_pair(systems: Mapping[str, str], requested: str) -> tuple[str, str] | tuple[()]:
    """Return the system whose gain is meant, and what it is compared with."""
    names = list(systems)
    if len(names) < 2:
        return ()
    mine = requested if requested in systems and requested != "base" else "tuned" if "tuned" in systems else names[-1]
    theirs = "tuned" if mine == "aligned" else "base" if "base" in systems and mine != "base" else names[0]
    return (mine, theirs)


def _passes(
    row: AnswerRow,
    picked: Mapping[str, str],
    checks: Mapping[str, Check],
    kinds: Mapping[str, str],
    against: Sequence[str],
) -> bool:
    if "slice" in picked:
        name, _, value = picked["slice"].partition(":")
        if row.fields.get(name, "") != value:
            return False
    if "kind" in picked and kinds.get(row.id) != picked["kind"]:
        return False
    if "q" in picked:
        phrase = picked["q"].casefold()
        if phrase not in row.id.casefold() and not any(
            phrase in text.casefold() for text in (row.input, *row.answers.values())
        ):
            return False
    if "check" in picked and against:
        name, _, state = picked["check"].partition(":")
        score = _score(checks[name], row, row.answers.get(against[0], "")) if name in checks else None
        if score is None or (score >= 1) != (state == "passed"):
            return False
    return True


def _score(check: Check, row: AnswerRow, answer: str) -> float | None:
    from tunectl.config.schema.evaluate import SchemaCheck

    if isinstance(check, SchemaCheck):
        return None  # it takes a library that a page does not load
    try:
        return declared_checks.score(check, answer, row.input, row.fields, lambda *_: False)
    except ConfigError:  # its pattern took too long on this answer; evaluate says so
        return None


def _sort(rows: list[AnswerRow], order: str, against: Sequence[str]) -> list[AnswerRow]:
    if order in {"gain", "loss"} and against:
        mine, theirs = against

        def gain(row: AnswerRow) -> float:
            return _compare(row, mine) - _compare(row, theirs)

        key: Callable[[AnswerRow], float] = gain
        return sorted(rows, key=key, reverse=order == "gain")
    if order == "longest" and against:
        return sorted(rows, key=lambda row: len(row.answers.get(against[0], "")), reverse=True)
    return rows


def _compare(row: AnswerRow, system: str) -> float:
    return measure_similarity(row.answers.get(system, ""), row.references) or 0.0


def measure_similarity(answer: str, references: Sequence[str]) -> float | None:
    """Return the share, 0 to 1, of words that an answer has in common, in order, with its nearest reference; None without one."""
    words = answer.casefold().split()
    return max((_share_words(words, text.casefold().split()) for text in references), default=None)


def _share_words(left: Sequence[str], right: Sequence[str]) -> float:
    total = min(len(left), MAX_WORDS) + min(len(right), MAX_WORDS)
    return 2 * len(align_words(left, right)) / total if total else 1.0


def _build_card(row: AnswerRow, systems: Mapping[str, str], checks: Mapping[str, Check], why: str) -> AnswerCard:
    answers = [
        SystemAnswer(
            name,
            title,
            row.answers.get(name, ""),
            measure_similarity(row.answers.get(name, ""), row.references),
            [
                CheckResult(check, score)
                for check, declared in checks.items()
                if (score := _score(declared, row, row.answers.get(name, ""))) is not None
            ],
        )
        for name, title in systems.items()
    ]
    return AnswerCard(row.id, row.input, row.references, row.fields, answers, why.replace("_", " "))


def _count_slices(rows: Sequence[AnswerRow]) -> dict[str, list[FilterOption]]:
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in row.fields.items():
            counts.setdefault(name, Counter())[value] += 1
    return {
        name: [FilterOption(f"{name}:{value}", value or "(empty)", count) for value, count in values.most_common(12)]
        for name, values in counts.items()
        if 1 < len(values) <= 200
    }
