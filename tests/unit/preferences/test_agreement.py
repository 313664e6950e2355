"""Agreement between people and with themselves, habits, and alpha against a published example."""

from __future__ import annotations

import pytest

from tunectl.artifacts.records import AnnotationMetadata, Comparison, Message, Source
from tunectl.backends.text.krippendorff_alpha import alpha
from tunectl.preferences import agreement


def judgment(number, who, choice="first", *, answers=("a long good answer", "short"), **more):
    texts = [[Message("assistant", f"{text} {number}")] for text in answers]
    return Comparison(
        f"j{number}{who}",
        f"p{number}",
        [Message("user", "Q")],
        texts,
        choice,
        AnnotationMetadata(Source("f", 1), who),
        **more,
    )


def measure(judgments):
    return agreement.inter_annotator_agreement(judgments, alpha, seed=1)


def test_alpha_of_a_published_table():
    # Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", example C: four observers, twelve units, nominal 0.743.
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    assert alpha(table) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize("table", [[[1, None], [None, 1]], [[1, 1], [1, 1]]])
def test_alpha_is_unknown_where_nothing_can_be_compared(table):
    assert alpha(table) is None


def test_people_who_agree_on_everything():
    found = measure([judgment(n, who, "first" if n % 2 else "second") for n in range(10) for who in ("Ada", "Bo")])
    assert (found.shared, found.alpha, found.alpha_low, found.alpha_high) == (10, 1.0, 1.0, 1.0)
    assert [person.with_others.value for person in found.people] == [1.0, 1.0]
    assert "good agreement" in agreement.summary(found)


def test_people_who_never_agree():
    found = measure(
        [judgment(n, who, "first" if who == "Ada" else "second") for n in range(10) for who in ("Ada", "Bo")]
    )
    assert found.alpha < 0
    assert [person.with_others.value for person in found.people] == [0.0, 0.0]
    assert "settle what makes an answer better" in agreement.summary(found)


def test_it_does_not_matter_which_answer_comes_first():
    first = judgment(1, "Ada", "first", answers=("x", "y"))
    turned = judgment(1, "Bo", "second", answers=("y", "x"))
    other = [judgment(2, "Ada", "both_bad"), judgment(2, "Bo", "both_bad")]
    assert measure([first, turned, *other]).alpha == 1.0


def test_habits_of_side_and_length():
    by_side = [judgment(n, "Ada", "first" if n % 2 else "second", left=0 if n % 2 else 1) for n in range(20)]
    found = measure(by_side)
    assert (found.left.value, found.longer.value) == (1.0, 0.5)
    assert "people may choose by position" in agreement.summary(found)
    by_length = measure([judgment(n, "Ada", "first", left=n % 2) for n in range(20)])
    assert (by_length.left.value, by_length.longer.value) == (0.5, 1.0)
    assert "a reward model would learn length" in agreement.summary(by_length)


def test_asked_again_and_attention():
    found = measure(
        [
            judgment(1, "Ada"),
            judgment(2, "Ada"),
            judgment(1, "Ada", "first", check="repeat"),
            judgment(2, "Ada", "second", check="repeat"),
            judgment(3, "Ada", "first", check="attention"),
            judgment(4, "Ada", "both_bad", check="attention", seconds=4.0),
        ]
    )
    (ada,) = found.people
    assert (ada.with_self.value, ada.with_self.of) == (0.5, 2)
    assert (ada.attention.value, ada.attention.of) == (0.5, 2)
    assert (ada.judgments, ada.decided, ada.seconds) == (6, 4, None)
    assert (found.shared, found.alpha) == (0, None)
    assert "agreement is unknown" in agreement.summary(found)
