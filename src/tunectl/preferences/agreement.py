"""Measure agreement of annotators with each other and with themselves, and their biases."""

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
"""Returns Krippendorff's alpha of nominal values, from ratings (annotators, questions), None where somebody was not asked."""
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
    """Number of cases in the denominator."""

    def __str__(self) -> str:
        """For people: ``60% (31% to 83%, of 10)``."""
        return f"{self.value:.0%} ({self.low:.0%} to {self.high:.0%}, of {self.of})"


class Person(Struct, frozen=True):
    """Number, speed, agreement and biases of one annotator's judgments."""

    name: str
    judgments: int
    decided: int
    """Number of judgments that preferred one of two answers."""
    left: Proportion | None
    """Share of the decided ones with a known side in which the left answer won; far from one half is a bias."""
    longer: Proportion | None
    """Share in which the longer answer won."""
    with_others: Proportion | None
    """Agreement with other people's judgments of the same answers, over all such pairs of people."""
    with_self: Proportion | None
    """Share of repeated questions with the same judgment."""
    attention: Proportion | None
    """Share of passed attention checks."""
    seconds: float | None
    """Median time to a choice."""


class InterAnnotatorAgreement(Struct, frozen=True):
    """Krippendorff's alpha and biases over all annotators, and the results of each."""

    judgments: int
    people: list[Person]
    shared: int
    """Number of questions that two or more people judged."""
    alpha: float | None
    """Krippendorff's alpha: 1 is perfect, 0 is chance; None where nothing was judged twice, or all judgments are equal."""
    alpha_low: float | None
    alpha_high: float | None
    """Upper end of the percentile interval over resampled questions; ``alpha_low`` is the lower one."""
    left: Proportion | None
    longer: Proportion | None


def inter_annotator_agreement(judgments: Sequence[Comparison], alpha: Alpha, *, seed: int) -> InterAnnotatorAgreement:
    """Return the agreement of ``judgments``, with ``alpha`` to compute Krippendorff's alpha; attention checks count in ``attention`` only.

    A person's answers to a repeated task are compared with each other; the first of them is compared with other people's.
    Source: Krippendorff (2011), "Computing Krippendorff's alpha-reliability"; intervals as Hayes and Krippendorff (2007) advise.
    """
    comparisons = [judgment for judgment in judgments if judgment.check != "attention"]
    ratings = _ratings(comparisons)
    value, ends = _alpha(ratings, alpha, seed)
    names = sorted({judgment.annotation.annotator or UNNAMED for judgment in judgments})
    return InterAnnotatorAgreement(
        judgments=len(judgments),
        people=[
            _person(
                name,
                [judgment for judgment in judgments if (judgment.annotation.annotator or UNNAMED) == name],
                ratings,
            )
            for name in names
        ],
        shared=sum(len(votes) > 1 for votes in ratings.values()),
        alpha=value,
        alpha_low=None if ends is None else ends[0],
        alpha_high=None if ends is None else ends[1],
        left=_share_won_left(comparisons),
        longer=longer_wins(result for item in comparisons if (result := _winner(item))),
    )


def longer_wins(texts: Iterable[tuple[str, str]]) -> Proportion | None:
    """Return the share of (winning, losing) texts in which the longer one won; those of equal length are left out."""
    result = [len(winner) > len(loser) for winner, loser in texts if len(winner) != len(loser)]
    return _share(sum(result), len(result))


def pair_texts(pair: PreferencePair) -> tuple[str, str]:
    """Return (winning text, losing text) of a pair."""
    return _text(pair.chosen), _text(pair.rejected)


def _text(answer: Iterable[Message]) -> str:
    return "\n".join(map(tool_calls.render_tool_calls, answer))


def _person(name: str, comparisons: Sequence[Comparison], ratings: Mapping[str, Mapping[str, int]]) -> Person:
    regular = [item for item in comparisons if item.check != "attention"]
    checks = [item.choice == "first" for item in comparisons if item.check == "attention"]
    times = [item.seconds for item in regular if item.seconds is not None]
    same, both = _with_others(name, ratings)
    return Person(
        name=name,
        judgments=len(comparisons),
        decided=sum(item.choice in {"first", "second"} for item in regular),
        left=_share_won_left(regular),
        longer=longer_wins(result for item in regular if (result := _winner(item))),
        with_others=_share(same, both),
        with_self=_with_self(regular) if name != UNNAMED else None,
        attention=_share(sum(checks), len(checks)),
        seconds=round(median(times), 1) if times else None,
    )


def _share(hits: int, total: int) -> Proportion | None:
    if not total:
        return None
    return Proportion(hits / total, *wilson_interval(hits, total), total)


def _winner(comparison: Comparison) -> tuple[str, str] | None:
    if comparison.choice not in {"first", "second"}:
        return None
    texts = list(map(_text, comparison.answers))
    return (texts[0], texts[1]) if comparison.choice == "first" else (texts[1], texts[0])


def _share_won_left(judgments: Iterable[Comparison]) -> Proportion | None:
    won = [
        judgment.left == (0 if judgment.choice == "first" else 1)
        for judgment in judgments
        if judgment.left is not None and judgment.choice in {"first", "second"}
    ]
    return _share(sum(won), len(won))


def _ratings(judgments: Iterable[Comparison]) -> dict[str, dict[str, int]]:
    """Return the first opinion by question and annotator; unnamed people cannot be distinguished and are left out."""
    result: dict[str, dict[str, int]] = defaultdict(dict)
    for judgment in judgments:
        if judgment.annotation.annotator is not None:
            result[comparison_key(judgment)].setdefault(judgment.annotation.annotator, _code(judgment))
    return result


def _with_others(name: str, ratings: Mapping[str, Mapping[str, int]]) -> tuple[int, int]:
    same = both = 0
    for votes in ratings.values():
        if name in votes:
            others = [vote for other, vote in votes.items() if other != name]
            same += sum(vote == votes[name] for vote in others)
            both += len(others)
    return same, both


def _with_self(judgments: Iterable[Comparison]) -> Proportion | None:
    codes: dict[str, list[int]] = defaultdict(list)
    for judgment in judgments:
        codes[comparison_key(judgment)].append(_code(judgment))
    agreements = [later == votes[0] for votes in codes.values() for later in votes[1:]]
    return _share(sum(agreements), len(agreements))


def _alpha(
    ratings: Mapping[str, Mapping[str, int]], alpha: Alpha, seed: int
) -> tuple[float | None, tuple[float, float] | None]:
    """Return alpha over questions that two or more people judged, with its interval."""
    shared = [votes for votes in ratings.values() if len(votes) > 1]
    if not shared:
        return None, None
    names = sorted({name for votes in shared for name in votes})
    columns = [[votes.get(name) for name in names] for votes in shared]
    value = alpha(_rows(columns))
    if value is None or len(shared) < 2:
        return value, None
    import numpy as np  # here: a page that asks for no alpha is spared 12 MB

    draws = np.random.default_rng(seed).integers(0, len(columns), (RESAMPLES, len(columns)))
    samples = [result for draw in draws if (result := alpha(_rows([columns[index] for index in draw]))) is not None]
    if len(samples) < RESAMPLES * 0.9:
        return value, None
    low, high = np.quantile(samples, [0.025, 0.975])
    return value, (float(low), float(high))


def _code(comparison: Comparison) -> int:
    """Return an opinion as a number; the order of two answers is determined by their texts, so numbers mean the same for all people."""
    if comparison.choice in CODES:
        return CODES[comparison.choice]
    digests = [canonical_vote(replace(comparison, choice=side)) for side in SIDES]
    return int(digests[SIDES.index(comparison.choice)] != min(digests))


def _rows(columns: Sequence[Sequence[int | None]]) -> list[list[int | None]]:
    return [list(row) for row in zip(*columns, strict=True)]


def summary(result: InterAnnotatorAgreement) -> str:
    """Return the agreement as sentences, with what to do about it."""
    sentences = [_describe_agreement(result)]
    if result.left is not None and not result.left.low <= 0.5 <= result.left.high:
        side = "left" if result.left.value > 0.5 else "right"
        sentences.append(f"The {side} side wins more often than chance: people may choose by position.")
    if result.longer is not None and not result.longer.low <= 0.5 <= result.longer.high:
        size = "longer" if result.longer.value > 0.5 else "shorter"
        sentences.append(
            f"The {size} answer wins more often than chance ({result.longer.value:.0%}): a reward model would learn length."
        )
    return " ".join(sentences)


def _describe_agreement(result: InterAnnotatorAgreement) -> str:
    if result.alpha is None:
        return "No question was judged by two people in a way that can be compared, so agreement is unknown."
    ends = "" if result.alpha_low is None else f" ({result.alpha_low:.2f} to {result.alpha_high:.2f})"
    level = next(level_name for limit, level_name in LEVELS if result.alpha >= limit)
    return f"Krippendorff's alpha is {result.alpha:.2f}{ends} over {result.shared} shared questions: {level}."
