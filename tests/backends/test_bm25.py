"""Retrieval of near inputs."""

import pytest

from tunectl.backends.text.bm25 import Bm25Index

pytest.importorskip("bm25s")
TEXTS = ["a bakery in West End", "a florist in Midtown", "a cinema in Kirkwood", "a bakery in Midtown"]


def test_the_nearest_comes_first():
    index = Bm25Index(TEXTS)
    assert index.nearest(["bakery Midtown", "cinema"], 2)[0][0] == 3
    assert index.nearest(["bakery Midtown", "cinema"], 2)[1][0] == 2


def test_more_than_there_are_gives_all():
    assert sorted(Bm25Index(TEXTS).nearest(["florist"], 10)[0]) == [0, 1, 2, 3]


def test_nothing_asked_gives_nothing():
    assert Bm25Index(TEXTS).nearest([], 3) == []
    assert Bm25Index(TEXTS).nearest(["florist"], 0) == [[]]


def test_words_that_no_text_has_give_some_text():
    assert len(Bm25Index(TEXTS).nearest(["zebra"], 1)[0]) == 1
