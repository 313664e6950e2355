"""ROUGE-L with several references."""

import pytest

from tunectl.backends.text import scores
from tunectl.evaluation import metrics

pytest.importorskip("rouge_score")


def test_the_best_reference_counts():
    found = scores.compute_rouge(["the cat sat", "x"], [["a dog ran", "the cat sat down"], ["y"]])["rouge_l"]
    assert found[0].tolist() == pytest.approx([6 / 7, 1])
    assert found[1].tolist() == [0, 1]
    assert float(metrics.get_metric("rouge_l").combine(found.sum(axis=0))) == pytest.approx(100 * 3 / 7)
