"""Our vectorised BLEU and chrF are sacrebleu's own."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.backends.text import scores
from tunectl.evaluation import metrics

sacrebleu = pytest.importorskip("sacrebleu")
WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "on",
    "mat,",
    "house.",
    "near!",
    "in",
    "is",
    "New-York",
    "don't",
    "5",
    "£20",
    "café",
]
sentence = st.lists(st.sampled_from(WORDS), min_size=0, max_size=14).map(" ".join)


def both(answers, references):
    found = scores.compute_bleu_and_chrf(answers, references)
    longest = max(map(len, references))
    streams = [[given[turn] if turn < len(given) else None for given in references] for turn in range(longest)]
    ours = [float(metrics.get_metric(name).combine(found[name].sum(axis=0))) for name in ("bleu", "chrf")]
    theirs = [sacrebleu.corpus_bleu(answers, streams).score, sacrebleu.corpus_chrf(answers, streams).score]
    return ours, theirs


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(sentence, st.lists(sentence.filter(bool), min_size=1, max_size=3)), min_size=1, max_size=6))
def test_equal_to_sacrebleu_with_any_number_of_references(rows):
    ours, theirs = both([answer for answer, _ in rows], [references for _, references in rows])
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_equal_to_sacrebleu_on_longer_texts():
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(20, 60))) for _ in range(30)]
    answers = [" ".join(word for word in text.split() if rng.random() > 0.15) for text in texts]
    ours, theirs = both(answers, [[text] for text in texts])
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert 20 < ours[0] < 100


def test_the_signature_names_the_tokenizer():
    assert "tok:13a|smooth:exp" in scores.bleu_signature()
