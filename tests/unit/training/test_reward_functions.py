"""The declared reward: what each part gives, and what becomes of it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.artifacts.records import Message
from tunectl.config.schema.align import CheckTerm, LengthTerm, RepetitionTerm, RewardModelTerm
from tunectl.config.schema.evaluate import RegexCheck
from tunectl.training.reward.protocols import RewardScore, ScoredPrompt
from tunectl.training.rl.reward_functions import (
    RewardFunction,
    impute_mean,
    length_penalty,
    name_of,
    ngram_repetition,
    normalize_and_clip,
)
from tunectl.training.rl.rl_types import Completion, Prompt

PLAIN = {"weight": 1.0, "normalize": "none", "clip": None}
ASKED = Prompt("q", (Message("user", "Say a"),), "text", (1, 2), ("a",), {"k": "v"})


def length(**changes):
    return LengthTerm(**{**PLAIN, "method": "length", "min_tokens": 2, "max_tokens": 5, "soft": 4, **changes})


def model_term(**changes):
    return RewardModelTerm(**{**PLAIN, "method": "reward_model", "uncertainty_penalty": 0.0, **changes})


def check_term(**changes):
    check = RegexCheck(method="regex", name="has_a", pattern="a", expect="present")
    return CheckTerm(**{**PLAIN, "method": "check", "check": check, **changes})


def said(text, *, finished=True):
    return Completion((*range(10, 10 + len(text)), *([2] if finished else [])), text, finished)


class Model:
    def __init__(self, scores):
        self.scores = scores
        self.calls = []

    def score(self, prompts, answers):
        self.calls.append((list(prompts), list(answers)))
        return self.scores[: len(answers)]

    def close(self):
        pass


def rewards(*terms, model=None, checked=lambda check, answer, question, fields: float("a" in answer)):
    return RewardFunction(terms, checked=checked, model=model)


def test_parts_are_weighted_and_added_and_the_raw_values_are_reported():
    model = Model([RewardScore(0.5, 0.2), RewardScore(-1.0, 0.0)])
    found = rewards(model_term(weight=2.0, uncertainty_penalty=0.5), check_term(weight=0.5), length(), model=model)
    marks = found.score([ASKED, ASKED], [said("aaaa"), said("b")])
    assert marks[0].parts == {"reward_model": pytest.approx(0.4), "check_has_a": 1.0, "length": 0.0}
    assert marks[0].total == pytest.approx(2 * 0.4 + 0.5)
    assert marks[1].parts == {"reward_model": -1.0, "check_has_a": 0.0, "length": -0.25}
    assert marks[1].total == pytest.approx(-2.25)
    assert model.calls == [([ScoredPrompt(ASKED.messages)] * 2, ["aaaa", "b"])]


def test_an_answer_that_was_cut_is_never_rewarded_nor_counted_in_a_mean():
    model = Model([RewardScore(3.0, 0.0), RewardScore(1.0, 0.0)])
    found = rewards(model_term(normalize="step"), model=model)
    marks = found.score([ASKED] * 3, [said("a"), said("aaaa", finished=False), said("b")])
    assert math.isnan(marks[1].total)
    assert marks[1].parts == {}
    assert [marks[0].total, marks[2].total] == [pytest.approx(1), pytest.approx(-1)]
    assert model.calls[0][1] == ["a", "b"]


def test_all_cut_asks_no_model():
    model = Model([])
    assert math.isnan(rewards(model_term(), model=model).score([ASKED], [said("a", finished=False)])[0].total)
    assert model.calls == []


def test_normalizing_by_the_step_is_left_out_when_looks_are_compared():
    found = rewards(model_term(normalize="step", clip=3.0), model=Model([RewardScore(5.0, 0), RewardScore(7.0, 0)]))
    answers = [said("a"), said("b")]
    assert [mark.total for mark in found.score([ASKED] * 2, answers)] == [pytest.approx(-1), pytest.approx(1)]
    assert [mark.total for mark in found.score([ASKED] * 2, answers, fixed=True)] == [3.0, 3.0]


def test_a_check_that_does_not_apply_counts_as_the_mean_of_the_others():
    values = iter([None, 1.0, 0.5])
    found = rewards(check_term(), checked=lambda *_: next(values))
    assert [mark.total for mark in found.score([ASKED] * 3, [said("a")] * 3)] == [0.75, 1.0, 0.5]
    assert impute_mean([None, None]) == [0.0, 0.0]


def test_nan_of_a_reward_model_passes_so_that_it_is_named():
    found = rewards(model_term(clip=1.0), model=Model([RewardScore(math.nan, 0.0)]))
    assert math.isnan(found.score([ASKED], [said("a")])[0].total)


@pytest.mark.parametrize(("tokens", "penalty"), [(0, -0.5), (1, -0.25), (2, 0), (5, 0), (6, -0.25), (9, -1), (50, -1)])
def test_length_costs_nothing_inside_and_falls_evenly_outside(tokens, penalty):
    assert length_penalty(tokens, length()) == penalty


def test_a_range_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match=r"min_tokens \(9\) is more than max_tokens \(5\); swap them"):
        length(min_tokens=9)


def test_repetition():
    assert ngram_repetition(["a", "b", "c"], 2) == 0
    assert ngram_repetition(["a", "a", "a", "a"], 2) == pytest.approx(2 / 3)
    assert ngram_repetition([], 3) == ngram_repetition(["a"], 3) == 0
    term = RepetitionTerm(**PLAIN, method="repetition", size=1)
    assert rewards(term).score([ASKED], [said("x x")])[0].total == -0.5


def test_names():
    assert [name_of(term) for term in (model_term(), check_term(), length())] == [
        "reward_model",
        "check_has_a",
        "length",
    ]


numbers = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20)


@given(numbers, st.floats(0.1, 10))
def test_clipped_values_stay_within_and_keep_their_order(values, clip):
    found = normalize_and_clip(values, model_term(clip=clip), fixed=False)
    assert all(-clip <= value <= clip for value in found)
    ordered = [value for _, value in sorted(zip(values, found, strict=True))]
    assert ordered == sorted(ordered)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_normalized_values_have_mean_zero_and_spread_one(values):
    found = normalize_and_clip(values, model_term(normalize="step"), fixed=False)
    assert sum(found) == pytest.approx(0, abs=1e-3)
    if max(values) - min(values) > 1e-3:
        assert sum(value**2 for value in found) / len(found) == pytest.approx(1, rel=1e-3)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 4))
def test_repetition_is_a_share_and_grows_when_a_text_is_said_twice(words, size):
    assert 0 <= ngram_repetition(words, size) < 1
    if len(words) >= size:
        assert ngram_repetition(words * 2, size) >= ngram_repetition(words, size)
