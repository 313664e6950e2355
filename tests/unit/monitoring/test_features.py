from __future__ import annotations

import numpy as np
from drift_fixtures import LEXICON
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.monitoring.features import BUCKETS, Sentiment, char_ngram_features, l2_normalize, smooth_by_neighbors

TONE = Sentiment({**LEXICON, ":)": 2.0})


@given(st.lists(st.text(max_size=40), max_size=6))
@settings(deadline=None)
def test_characters_of_a_text_do_not_depend_on_its_neighbors(texts: list[str]) -> None:
    together = char_ngram_features(texts)
    assert together.shape == (len(texts), BUCKETS)
    assert np.isfinite(together).all()
    for row, text in zip(together, texts, strict=True):
        assert np.array_equal(row, char_ngram_features([text])[0])
        assert np.linalg.norm(row) < 1 + 1e-5


def test_characters_of_other_scripts_and_of_many_texts() -> None:
    texts = ["Où est la gare ?", "駅はどこですか", "أين المحطة", "🎈🎈", ""] * 500
    found = char_ngram_features(texts)
    assert np.array_equal(found[:5], found[-5:])
    assert len({row.tobytes() for row in found[:5]}) == 5
    assert not found[4].any()


def test_unit_makes_zero_of_what_is_no_number() -> None:
    found = l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, np.inf]]))
    assert np.allclose(found, [[0.6, 0.8], [0, 0], [0, 0]])


def balance(text: str) -> float:
    return float(TONE.score([text])[0])


def test_tone_has_signs_degrees_and_negations() -> None:
    assert balance("a great day") > balance("a good day") > 0 > balance("a bad day")
    assert balance("a very good day") > balance("a good day") > balance("a slightly good day") > 0
    assert balance("not a good day") < 0 < balance("not a bad day")
    assert balance("this isn't good") < 0
    assert balance("isn\u2019t good") == balance("isn't good")
    assert balance("good!") > balance("good")
    assert balance("it was good, but the end was bad") < 0
    assert balance(":)") > 0
    assert balance("it does not start") < 0 == balance("it does start")
    assert balance("zwölf Boxkämpfer") == 0 == balance("")


@settings(deadline=None)
@given(st.text())
def test_tone_is_bounded(text: str) -> None:
    assert -1 < TONE.score([text])[0] < 1


def test_tone_of_no_texts() -> None:
    assert TONE.score([]).shape == (0,)


def test_texts_that_the_lexicon_does_not_know_are_told_by_their_neighbors() -> None:
    random = np.random.default_rng(1)
    truth = random.choice([-1.0, 1.0], 400)
    vectors = l2_normalize(np.outer(truth, np.eye(8)[0]) + random.normal(size=(400, 8)))
    known = random.random(400) < 0.5
    found = smooth_by_neighbors(truth * known, vectors)
    assert np.corrcoef(found[~known], truth[~known])[0, 1] > 0.6
    assert np.corrcoef(found, truth)[0, 1] > np.corrcoef(truth * known, truth)[0, 1]


def test_refining_treats_rows_alike_whatever_their_order() -> None:
    random = np.random.default_rng(2)
    balance, vectors, order = random.normal(size=60), random.normal(size=(60, 5)), random.permutation(60)
    assert np.allclose(
        smooth_by_neighbors(balance, vectors)[order], smooth_by_neighbors(balance[order], vectors[order])
    )


def test_refining_what_is_all_equal_says_nothing() -> None:
    assert not smooth_by_neighbors(np.full(9, 0.3), np.ones((9, 4))).any()
    assert np.isfinite(smooth_by_neighbors(np.arange(9.0), np.ones((9, 4)))).all()
    assert np.isfinite(smooth_by_neighbors(np.zeros(9), np.random.default_rng(3).normal(size=(9, 4)))).all()
