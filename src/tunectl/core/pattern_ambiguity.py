"""Find regular expressions that take exponential time, before they meet a text.

A pattern that can read one text in two ways within a loop, as ``(a+)+`` or ``(a|a)*``, doubles the work of a backtracking engine at
each round. That is decided on the position automaton of the pattern (Glushkov), as exponential degree of ambiguity (Weber & Seidl,
1991): exact for what is regular. Loops with assertions, references or atomic groups inside are not judged: what they need at run
time is bounded by ``DeclaredPattern``. That limit ends a run, maybe hours after its start; here a configuration is refused before
(docs/decisions/0019-exponential-patterns.md).
"""

from __future__ import annotations

import importlib
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

MAX_UNROLLED: Final = 64
"""Rounds up to which a bounded repetition is written out; a longer one counts as a loop."""
MAX_POSITIONS: Final = 300
"""Letters of a loop, repetitions written out, up to which it is judged: the work grows with their square."""
MAX_LETTERS: Final = 3000
"""Letters of a whole pattern up to which it is judged."""
ADVICE: Final = "write a+ for (a+)+, \\w+(?:\\s+\\w+)* for (\\w+\\s*)+, and branches that begin with different letters for (a|ab|a)+"
_parser: Any = importlib.import_module("re._parser")
_SAMPLES: Final = frozenset("aZé09_ \n\t-.,:;/@#'\"()<>[]{}&%+*=☃")
_CATEGORIES: Final[dict[str, Callable[[str], bool]]] = {
    "CATEGORY_DIGIT": str.isdecimal,
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_WORD": lambda letter: letter.isalnum() or letter == "_",
}


def validate_pattern(pattern: str, *, ignore_case: bool = False) -> str:
    """Return ``pattern`` unchanged. Raises  ValueError where it is not a regular expression, or a backtracking engine takes exponential time for it."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    reason = explain_ambiguity(pattern, ignore_case=ignore_case)
    if reason:
        raise ValueError(f"{pattern!r} {reason}")
    return pattern


@lru_cache(maxsize=2048)  # one process validates the same settings several times
def explain_ambiguity(pattern: str, *, ignore_case: bool = False) -> str:
    """Return why a valid pattern takes exponential time and what to write instead; empty where it does not, or cannot be judged."""
    tree = _parser.parse(pattern)
    automaton = _Automaton(_collect_samples(tree))
    try:
        automaton.add(tree, fold=ignore_case or bool(tree.state.flags & re.IGNORECASE), loop=False)
    except _NotJudgedError:
        return ""
    letters = automaton.find_ambiguous_letters()
    if not letters:
        return ""
    return f"takes exponential time: a repetition in it reads {letters * 2!r} in several ways; {ADVICE}"


class _NotJudgedError(Exception):
    """The pattern has parts in a loop that are not regular."""


class _Fragment(NamedTuple):
    """A part of a pattern: in how many ways it matches the empty text, and its first and last positions, as often as there are ways to them.

    Two stands for many.
    """

    empty: int
    first: list[int]
    last: list[int]


_EMPTY: Final = _Fragment(1, [], [])


def _build_fragment(empty: int, first: list[int], last: list[int]) -> _Fragment:
    """Return a part with its counts limited to two: they could double with each part."""
    limited = ([one for one, count in Counter(ends).items() for _ in range(min(count, 2))] for ends in (first, last))
    return _Fragment(min(empty, 2), *limited)


@dataclass
class _Automaton:
    """Positions of a pattern with the letters that each matches, and which position may follow which."""

    samples: frozenset[str]
    letters: list[frozenset[str]] = field(default_factory=list)
    follow: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    in_loops: set[int] = field(default_factory=set)
    """Positions inside a repetition without end: others lead to themselves in no way."""
    _matched: dict[tuple[str, str, bool], frozenset[str]] = field(default_factory=dict)

    def add(self, tree: Any, *, fold: bool, loop: bool) -> _Fragment:
        """Add a sequence of parts; ``fold``: without regard to case, ``loop``: inside a repetition without end."""
        result = _EMPTY
        for kind, value in tree:
            result = self._join(result, self._add_part(str(kind), value, fold=fold, loop=loop))
        return result

    def _add_part(self, kind: str, value: Any, *, fold: bool, loop: bool) -> _Fragment:
        match kind:
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                part = kind, str(value), fold
                if part not in self._matched:
                    self._matched[part] = frozenset(_match_letters(kind, value, self.samples, fold=fold))
                self.letters.append(self._matched[part])
                return _Fragment(0, [len(self.letters) - 1], [len(self.letters) - 1])
            case "SUBPATTERN":
                _, added, removed, body = value
                folded = (fold or bool(added & re.IGNORECASE)) and not removed & re.IGNORECASE
                return self.add(body, fold=folded, loop=loop)
            case "BRANCH":
                parts = [self.add(body, fold=fold, loop=loop) for body in value[1]]
                first = [one for part in parts for one in part.first]
                last = [one for part in parts for one in part.last]
                return _build_fragment(sum(part.empty for part in parts), first, last)
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, body = value
                return self._repeat(int(least), int(most), body, fold=fold, loop=loop)
        if loop:
            raise _NotJudgedError
        if kind in {"ASSERT", "ASSERT_NOT"}:
            self.add(value[1], fold=fold, loop=loop)
        return _EMPTY

    def _repeat(self, least: int, most: int, body: Any, *, fold: bool, loop: bool) -> _Fragment:
        def add_body(*, inside: bool) -> _Fragment:
            return self.add(body, fold=fold, loop=inside)

        if most > MAX_UNROLLED:
            start = len(self.letters)
            part = add_body(inside=True)
            self.in_loops.update(range(start, len(self.letters)))
            self._connect(part.last, part.first)
            return _build_fragment(part.empty + (least == 0), part.first, part.last)
        result = _EMPTY
        for _ in range(most - least):  # from the inside: x(x(x)?)?
            part = self._join(add_body(inside=loop), result)
            result = _build_fragment(part.empty + 1, part.first, part.last)
        for _ in range(least):
            result = self._join(add_body(inside=loop), result)
        return result

    def _join(self, before: _Fragment, after: _Fragment) -> _Fragment:
        self._connect(before.last, after.first)
        return _build_fragment(
            before.empty * after.empty,
            before.first + after.first * before.empty,
            after.last + before.last * after.empty,
        )

    def _connect(self, lasts: Iterable[int], firsts: list[int]) -> None:
        for last in lasts:
            self.follow[last] += firsts
            if len(self.letters) > MAX_LETTERS:
                raise _NotJudgedError

    def find_ambiguous_letters(self) -> str:
        """Return a text that a loop reads in two ways, from a position to itself; empty where there is none."""
        for loop in self._list_loops():
            if len(loop) <= MAX_POSITIONS:
                letters = self._find_in_loop(loop)
                if letters:
                    return letters
        return ""

    def _list_loops(self) -> Iterator[frozenset[int]]:
        """Yield the strongly connected sets of positions."""
        if not self.in_loops:
            return
        backward = defaultdict[int, list[int]](list)
        for position, followers in self.follow.items():
            for one in followers:
                backward[one].append(position)
        seen = set[int]()
        for position in sorted(self.in_loops):
            if position not in seen:
                loop = frozenset(_reach([position], self.follow) & _reach([position], backward))
                seen |= loop
                if loop:
                    yield loop

    def _find_in_loop(self, loop: frozenset[int]) -> str:
        """Search the pairs of positions that one text leads to from one position, until a pair meets again in one position."""
        inside = {position: [one for one in self.follow[position] if one in loop] for position in loop}
        inputs = {(position, position): "" for position in sorted(loop)}
        todo = deque(inputs)
        while todo:
            first, other = todo.popleft()
            for one in inside[first]:
                for two in inside[other]:
                    shared = self.letters[one] & self.letters[two]
                    if not shared or (first == other and one == two and inside[first].count(one) == 1):
                        continue  # no common letter, or both take the same step
                    longer = inputs[first, other] + min(shared, key=lambda letter: (not letter.isalpha(), letter))
                    if one == two:
                        return longer
                    if (one, two) not in inputs:
                        inputs[one, two] = longer
                        todo.append((one, two))
        return ""


def _reach(starts: Iterable[int], edges: dict[int, list[int]]) -> set[int]:
    """Return what one step or more leads to."""
    seen, todo = set[int](), list(starts)
    while todo:
        new = set(edges.get(todo.pop(), ())) - seen
        seen |= new
        todo += new
    return seen


def _collect_samples(tree: Any) -> frozenset[str]:
    """Return letters that tell the classes of a pattern apart: its own ones, the ends of its ranges and what is beside them."""
    codes = set[int]()

    def walk(part: Any) -> None:
        if isinstance(part, tuple) and len(part) == 2 and str(part[0]) in {"LITERAL", "NOT_LITERAL"}:
            codes.add(part[1])
        elif isinstance(part, tuple) and len(part) == 2 and str(part[0]) == "RANGE":
            codes.update((part[1][0] - 1, *part[1], part[1][1] + 1))
        elif isinstance(part, tuple | list | _parser.SubPattern):
            for one in part:
                walk(one)

    walk(tree)
    own = {chr(code) for code in codes if 0 <= code <= 0x10FFFF}
    return _SAMPLES | own | {letter.swapcase() for letter in own if len(letter.swapcase()) == 1}


def _match_letters(kind: str, value: Any, samples: Iterable[str], *, fold: bool) -> Iterator[str]:
    for letter in samples:
        forms = {letter, letter.lower(), letter.upper()} if fold else {letter}
        if any(_matches(kind, value, form) for form in forms):
            yield letter


def _matches(kind: str, value: Any, letter: str) -> bool:
    match kind:
        case "ANY":
            return letter != "\n"
        case "LITERAL":
            return letter == chr(value)
        case "NOT_LITERAL":
            return letter != chr(value)
        case "RANGE":
            return len(letter) == 1 and value[0] <= ord(letter) <= value[1]
        case "CATEGORY":
            name = str(value)
            return _CATEGORIES[name.replace("_NOT_", "_")](letter) != ("_NOT_" in name)
    negated = str(value[0][0]) == "NEGATE"
    return any(_matches(str(one), inner, letter) for one, inner in value[negated:]) != negated
