"""Do people agree, with one another and with themselves, and what sways them besides the answers?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from msgspec import Struct
from msgspec.structs import replace

from tunectl.artifacts.records import Choice, Comparison, Message, PreferencePair
from tunectl.chat import tool_calls
from tunectl.preferences.vote_aggregation import canonical_vote, comparison_key
from tunectl.stats.proportion_ci import wilson_interval

Alpha = Callable[[Sequence[Sequence[int | None]]], float | None]
"""Ratings (annotators, questions), None where somebody was not asked -> Krippendorff's alpha of nominal values."""
RESAMPLES = 500
UNNAMED = "(unnamed)"
LEVELS = (
    (0.8, "good agreement"),
    (0.667, "agreement enough for tentative conclusions"),
    (0.2, "weak agreement; talk about what makes an answer better, and ask again"),
    (float("-inf"), "hardly more than chance; settle what makes an answer better before you go on"),
)
"""Krippendorff's own limits (0.8 and 0.667), and one below them."""
SIDES: tuple[Choice, Choice] = ("first", "second")
CODES = {"both_good": 2, "both_bad": 3, "good": 4, "bad": 5}


class Proportion(Struct, frozen=True):
    """A share with its 95 % interval (Wilson)."""

    value: float
    low: float
    high: float
    of: int
    """How many it is a share of."""

    def __str__(self) -> str:
        """For people: ``60% (31% to 83%, of 10)``."""
        return f"{self.value:.0%} ({self.low:.0%} to {self.high:.0%}, of {self.of})"


class Person(Struct, frozen=True):
    """One annotator."""

    name: str
    judgments: int
    decided: int
    """Of them, those that preferred one of two answers."""
    left: Proportion | None
    """Of the decided ones with a known side: how often the left answer won; far from a half is a habit."""
    longer: Proportion | None
    """How often the longer answer won."""
    with_others: Proportion | None
    """How often they said what another person said of the same answers, over all such pairs of people."""
    with_self: Proportion | None
    """How often they said the same when asked again."""
    attention: Proportion | None
    """Attention checks passed."""
    seconds: float | None
    """Median time to a choice."""


class InterAnnotatorAgreement(Struct, frozen=True):
    """All of it."""

    judgments: int
    people: list[Person]
    shared: int
    """Questions that two or more people judged."""
    alpha: float | None
    """Krippendorff's alpha: 1 is perfect, 0 is chance; None where nothing was judged twice, or all said the same one thing."""
    alpha_low: float | None
    alpha_high: float | None
    """Percentile interval over resampled questions."""
    left: Proportion | None
    longer: Proportion | None


def inter_annotator_agreement(judgments: Sequence[Comparison], alpha: Alpha, *, seed: int) -> InterAnnotatorAgreement:
    """Return the agreement of ``judgments``; attention checks count for attention alone.

    A person's answers to a question asked again are compared with each other; the first of them counts beside other people's.
    Source: Krippendorff (2011), "Computing Krippendorff's alpha-reliability"; intervals as Hayes and Krippendorff (2007) advise.
    """
    asked = [one for one in judgments if one.check != "attention"]
    ratings = _ratings(asked)
    value, ends = _alpha(ratings, alpha, seed)
    names = sorted({one.annotation.annotator or UNNAMED for one in judgments})
    return InterAnnotatorAgreement(
        judgments=len(judgments),
        people=[
            _person(name, [one for one in judgments if (one.annotation.annotator or UNNAMED) == name], ratings)
            for name in names
        ],
        shared=sum(len(votes) > 1 for votes in ratings.values()),
        alpha=value,
        alpha_low=None if ends is None else ends[0],
        alpha_high=None if ends is None else ends[1],
        left=_left(asked),
        longer=longer_wins(found for one in asked if (found := _winner(one))),
    )


def longer_wins(texts: Iterable[tuple[str, str]]) -> Proportion | None:
    """Return the share of (winning, losing) texts in which the longer one won; those of equal length are left out."""
    found = [len(winner) > len(loser) for winner, loser in texts if len(winner) != len(loser)]
    return _share(sum(found), len(found))


def pair_texts(pair: PreferencePair) -> tuple[str, str]:
    """Return the winning and the losing text of a pair."""
    return _text(pair.chosen), _text(pair.rejected)


def _text(answer: Iterable[Message]) -> str:
    return "\n".join(map(tool_calls.render_tool_calls, answer))


def _person(name: str, own: Sequence[Comparison], ratings: Mapping[str, Mapping[str, int]]) -> Person:
    asked = [one for one in own if one.check != "attention"]
    checks = [one.choice == "first" for one in own if one.check == "attention"]
    times = [one.seconds for one in asked if one.seconds is not None]
    same, both = _with_others(name, ratings)
    return Person(
        name=name,
        judgments=len(own),
        decided=sum(one.choice in {"first", "second"} for one in asked),
        left=_left(asked),
        longer=longer_wins(found for one in asked if (found := _winner(one))),
        with_others=_share(same, both),
        with_self=_with_self(asked) if name != UNNAMED else None,
        attention=_share(sum(checks), len(checks)),
        seconds=round(median(times), 1) if times else None,
    )


def _share(hits: int, total: int) -> Proportion | None:
    if not total:
        return None
    return Proportion(hits / total, *wilson_interval(hits, total), total)


def _winner(one: Comparison) -> tuple[str, str] | None:
    if one.choice not in {"first", "second"}:
        return None
    texts = list(map(_text, one.answers))
    return (texts[0], texts[1]) if one.choice == "first" else (texts[1], texts[0])


def _left(judgments: Iterable[Comparison]) -> Proportion | None:
    won = [
        one.left == (0 if one.choice == "first" else 1)
        for one in judgments
        if one.left is not None and one.choice in {"first", "second"}
    ]
    return _share(sum(won), len(won))


def _ratings(judgments: Iterable[Comparison]) -> dict[str, dict[str, int]]:
    """Return question to annotator to the first opinion; unnamed people cannot be told apart and are left out."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for one in judgments:
        if one.annotation.annotator is not None:
            found[comparison_key(one)].setdefault(one.annotation.annotator, _code(one))
    return found


def _with_others(name: str, ratings: Mapping[str, Mapping[str, int]]) -> tuple[int, int]:
    same = both = 0
    for votes in ratings.values():
        if name in votes:
            others = [said for other, said in votes.items() if other != name]
            same += sum(said == votes[name] for said in others)
            both += len(others)
    return same, both


def _with_self(judgments: Iterable[Comparison]) -> Proportion | None:
    said: dict[str, list[int]] = defaultdict(list)
    for one in judgments:
        said[comparison_key(one)].append(_code(one))
    again = [later == votes[0] for votes in said.values() for later in votes[1:]]
    return _share(sum(again), len(again))


def _alpha(
    ratings: Mapping[str, Mapping[str, int]], alpha: Alpha, seed: int
) -> tuple[float | None, tuple[float, float] | None]:
    """Return alpha over questions that two or more people judged, with its interval."""
    import numpy as np

    shared = [votes for votes in ratings.values() if len(votes) > 1]
    if not shared:
        return None, None
    names = sorted({name for votes in shared for name in votes})
    columns = [[votes.get(name) for name in names] for votes in shared]
    value = alpha(_rows(columns))
    if value is None or len(shared) < 2:
        return value, None
    draws = np.random.default_rng(seed).integers(0, len(columns), (RESAMPLES, len(columns)))
    samples = [found for draw in draws if (found := alpha(_rows([columns[at] for at in draw]))) is not None]
    if len(samples) < RESAMPLES * 0.9:
        return value, None
    low, high = np.quantile(samples, [0.025, 0.975])
    return value, (float(low), float(high))


def _code(one: Comparison) -> int:
    """Return an opinion as a number; which of two answers is first is settled by their texts, so numbers mean the same to everybody."""
    if one.choice in CODES:
        return CODES[one.choice]
    digests = [canonical_vote(replace(one, choice=side)) for side in SIDES]
    return int(digests[SIDES.index(one.choice)] != min(digests))


def _rows(columns: Sequence[Sequence[int | None]]) -> list[list[int | None]]:
    return [list(row) for row in zip(*columns, strict=True)]


def summary(found: InterAnnotatorAgreement) -> str:
    """Return the outcome in sentences, with what to do about it."""
    said = [_agreement_words(found)]
    if found.left is not None and not found.left.low <= 0.5 <= found.left.high:
        side = "left" if found.left.value > 0.5 else "right"
        said.append(f"The {side} side wins more often than chance: people may choose by position.")
    if found.longer is not None and not found.longer.low <= 0.5 <= found.longer.high:
        size = "longer" if found.longer.value > 0.5 else "shorter"
        said.append(
            f"The {size} answer wins more often than chance ({found.longer.value:.0%}): a reward model would learn length."
        )
    return " ".join(said)


def _agreement_words(found: InterAnnotatorAgreement) -> str:
    if found.alpha is None:
        return "No question was judged by two people in a way that can be compared, so agreement is unknown."
    ends = "" if found.alpha_low is None else f" ({found.alpha_low:.2f} to {found.alpha_high:.2f})"
    level = next(word for limit, word in LEVELS if found.alpha >= limit)
    return f"Krippendorff's alpha is {found.alpha:.2f}{ends} over {found.shared} shared questions: {level}."
