from __future__ import annotations

import numpy as np
from drift_parts import LEXICON
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.monitor.features import BUCKETS, Tone, characters, unit

TONE = Tone({**LEXICON, ":)": 2.0})


@given(st.lists(st.text(max_size=40), max_size=6))
@settings(deadline=None)
def test_characters_of_a_text_do_not_depend_on_its_neighbours(texts: list[str]) -> None:
    together = characters(texts)
    assert together.shape == (len(texts), BUCKETS)
    assert np.isfinite(together).all()
    for row, text in zip(together, texts, strict=True):
        assert np.array_equal(row, characters([text])[0])
        assert np.linalg.norm(row) < 1 + 1e-5


def test_characters_of_other_scripts_and_of_many_texts() -> None:
    texts = ["Où est la gare ?", "駅はどこですか", "أين المحطة", "🎈🎈", ""] * 500
    found = characters(texts)
    assert np.array_equal(found[:5], found[-5:])
    assert len({row.tobytes() for row in found[:5]}) == 5
    assert not found[4].any()


def test_unit_makes_zero_of_what_is_no_number() -> None:
    found = unit(np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, np.inf]]))
    assert np.allclose(found, [[0.6, 0.8], [0, 0], [0, 0]])


def balance(text: str) -> float:
    return float(TONE.score([text])[0, 0])


def test_tone_has_signs_degrees_and_negations() -> None:
    assert balance("a great day") > balance("a good day") > 0 > balance("a bad day")
    assert balance("a very good day") > balance("a good day") > balance("a slightly good day") > 0
    assert balance("not a good day") < 0 < balance("not a bad day")
    assert balance("this isn't good") < 0
    assert balance("isn\u2019t good") == balance("isn't good")
    assert balance("good!") > balance("good")
    assert balance("it was good, but the end was bad") < 0
    assert balance(":)") > 0
    assert balance("zwölf Boxkämpfer") == 0 == balance("")


@settings(deadline=None)
@given(st.text())
def test_tone_is_bounded(text: str) -> None:
    found = TONE.score([text])[0]
    assert -1 < found[0] < 1
    assert 0 <= found[1] < 1
    assert 0 <= found[2] < 1


def test_tone_of_no_texts() -> None:
    assert TONE.score([]).shape == (0, 3)
