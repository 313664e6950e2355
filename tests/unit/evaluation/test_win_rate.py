"""Win rates: symmetric, ties half, lengths beside them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import AnnotationMetadata, Comparison, Message, Source
from tunectl.evaluation import win_rate, win_rates_by_judge
from tunectl.evaluation.win_rate import PairOutcome, WinRateSettings

HOW = WinRateSettings(close=0.1, resamples=200, confidence=0.95, seed=3)

texts = st.lists(st.sampled_from(["good", "food", "by", "the", "river"]), max_size=12).map(" ".join)
outcomes = st.lists(
    st.builds(PairOutcome, st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from("abcdefgh"), texts, texts),
    min_size=1,
    max_size=40,
)


@given(outcomes)
@settings(max_examples=60, deadline=None)
def test_swapping_the_systems_mirrors_the_rate(pairs):
    one, other = win_rate.rate("reward", pairs, HOW), win_rate.rate("reward", [pair.swapped for pair in pairs], HOW)
    assert other.rate == pytest.approx(1 - one.rate)
    assert (other.low, other.high) == (pytest.approx(1 - one.high), pytest.approx(1 - one.low))
    assert (other.wins, other.losses, other.ties) == (one.losses, one.wins, one.ties)
    assert (other.winner_words, other.loser_words, other.longer_wins) == (
        one.winner_words,
        one.loser_words,
        one.longer_wins,
    )
    assert (one.close is None) == (other.close is None)
    if one.close is not None:
        assert other.close.pairs == one.close.pairs
        assert other.close.rate == pytest.approx(1 - one.close.rate)


@given(outcomes)
@settings(max_examples=60, deadline=None)
def test_counts_add_up_and_the_rate_lies_in_its_interval(pairs):
    one = win_rate.rate("reward", pairs, HOW)
    assert one.wins + one.ties + one.losses == one.pairs == len(pairs)
    assert one.rate == pytest.approx((one.wins + one.ties / 2) / one.pairs)
    assert 0 <= one.low <= one.high <= 1


def test_a_system_against_itself_is_even():
    one = win_rate.rate("reward", [PairOutcome(1.0, str(place), "same ", "same") for place in range(30)], HOW)
    assert (one.rate, one.ties, one.wins) == (0.5, 30, 0)
    assert one.low < 0.5 < one.high


def test_all_wins_have_an_interval_below_one():
    one = win_rate.rate("checks", [PairOutcome(1.0, str(place), "a b", "c d") for place in range(20)], HOW)
    assert (one.rate, one.high) == (1.0, 1.0)
    assert 0.8 < one.low < 0.9


def test_judgments_of_one_input_are_no_independent_draws():
    def wide(clusters: int) -> float:
        pairs = [PairOutcome(float(place % 2), str(place // 2 % clusters), "a b", "c d") for place in range(200)]
        pairs = [pair._replace(outcome=float(int(pair.cluster) % 2)) for pair in pairs]
        one = win_rate.rate("people", pairs, HOW)
        assert one.units == clusters
        return one.high - one.low

    assert wide(10) > 2 * wide(100)


def test_lengths_stand_beside_the_rate():
    long, short = "one two three four five six seven eight nine ten", "one two three"
    pairs = [PairOutcome(1.0, str(place), long, short) for place in range(8)]
    pairs += [PairOutcome(0.0, f"x{place}", "a b c", "d e f") for place in range(4)]
    one = win_rate.rate("reward", pairs, HOW)
    assert one.rate == pytest.approx(8 / 12)
    assert one.longer_wins == 1.0
    assert (one.winner_words, one.loser_words) == (pytest.approx(92 / 12), 3)
    assert (one.close.pairs, one.close.rate) == (4, 0.0)


def test_no_pair_is_said():
    one = win_rate.rate("people", [], HOW)
    assert (one.rate, one.pairs, one.absent) == (None, 0, "there is no pair to judge")
    assert win_rate.points_over_half(one) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "outcome"), [(1.0, 0.5, 1.0), (0.5, 1.0, 0.0), (1.0, 0.96, 0.5), (0.0, 0.0, 0.5)]
)
def test_scores_that_hardly_differ_are_a_tie(mine, theirs, outcome):
    assert win_rate.outcome(mine, theirs, 0.05) == outcome


def judgment(systems: list[str], choice: str, **more: object) -> Comparison:
    answers = [[Message("assistant", text)] for text in ("first", "second")]
    return Comparison(
        "j", "p", [Message("user", "?")], answers, choice, AnnotationMetadata(Source("f", 1)), systems=systems, **more
    )


def test_only_judgments_about_the_two_systems_count():
    found = list(
        win_rates_by_judge.from_annotations(
            [
                judgment(["align", "sft"], "first"),
                judgment(["sft", "align"], "first"),
                judgment(["tuned", "aligned"], "both_bad"),
                judgment(["sft", "sft"], "first"),
                judgment(["align", "sft"], "first", check="attention"),
                judgment([], "first"),
            ]
        )
    )
    assert found == [
        PairOutcome(1.0, "p", "first", "second"),
        PairOutcome(0.0, "p", "second", "first"),
        PairOutcome(0.5, "p", "second", "first"),
    ]
