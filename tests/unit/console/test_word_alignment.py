"""Words that two texts share, in linear pieces of time whatever the texts are."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from tunectl.console.screens.answers import measure_similarity
from tunectl.console.screens.compare import _mark_words
from tunectl.console.word_alignment import align_words


def measure_common(left: list[str], right: list[str]) -> int:
    """The textbook's table."""
    row = [0] * (len(right) + 1)
    for word in left:
        above, row = row, [0]
        for place, other in enumerate(right):
            row.append(above[place] + 1 if word == other else max(above[place + 1], row[place]))
    return row[-1]


def test_the_alignment_is_a_longest_common_sequence() -> None:
    rng = random.Random(0)
    for _ in range(300):
        left, right = ([rng.choice("abcd") for _ in range(rng.randrange(9))] for _ in range(2))
        pairs = align_words(left, right)
        assert [left[a] for a, _ in pairs] == [right[b] for _, b in pairs]
        assert all(a < c and b < d for (a, b), (c, d) in pairwise(pairs))
        assert len(pairs) == measure_common(left, right)


def test_similarity_is_the_share_of_words_in_the_same_order() -> None:
    assert measure_similarity("The cat sat", ["the CAT sat", "no"]) == 1.0
    assert measure_similarity("a b c d", ["a x c"]) == pytest.approx(4 / 7)
    assert measure_similarity("a", []) is None
    assert measure_similarity("", [""]) == 1.0


def test_marked_words_give_both_texts_back() -> None:
    rng = random.Random(1)
    for _ in range(200):
        old, new = (" ".join(rng.choice("abc") for _ in range(rng.randrange(1, 8))) for _ in range(2))
        left, right = _mark_words(old, new)
        assert (" ".join(one.text for one in left), " ".join(one.text for one in right)) == (old, new)
        assert [one.text for one in left if not one.differs] == [one.text for one in right if not one.differs]


WORDS = 8000


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("the " * WORDS, "the a " * (WORDS // 2)),
        ("a b " * (WORDS // 2), "b a " * (WORDS // 2)),
        (" ".join(map(str, range(WORDS))), " ".join(map(str, reversed(range(WORDS))))),
        ("the " * 100 * WORDS, "the a " * 100 * WORDS),
    ],
    ids=["repeated", "crossed", "reversed", "long"],
)
def test_hostile_texts_take_no_time(left: str, right: str) -> None:
    for act in (lambda: measure_similarity(left, [right]), lambda: _mark_words(left, right)):
        assert min(measure_seconds(act) for _ in range(3)) < (0.1 if len(left) < 100_000 else 0.5)


def measure_seconds(act: Callable[[], object]) -> float:
    begun = time.process_time()
    act()
    return time.process_time() - begun
