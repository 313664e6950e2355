"""Measures as functions of sums."""

import math

import numpy as np

from tunectl.evaluation import metrics


def test_bleu_by_hand():
    # 10 words against 12: precisions 8/10, 5/9, 3/8, 1/7
    sums = np.array([10, 12, 8, 5, 3, 1, 10, 9, 8, 7], dtype=float)
    expected = 100 * math.exp(1 - 12 / 10) * (8 / 10 * 5 / 9 * 3 / 8 * 1 / 7) ** 0.25
    assert math.isclose(float(metrics.bleu(sums)), expected)


def test_bleu_without_a_match_is_zero():
    assert float(metrics.bleu(np.array([5, 5, 0, 0, 0, 0, 5, 4, 3, 2]))) == 0
    assert float(metrics.bleu(np.zeros(10))) == 0


def test_measures_take_many_resamples_at_once():
    sums = np.tile(np.array([10, 12, 8, 5, 3, 1, 10, 9, 8, 7], dtype=float), (3, 1))
    assert metrics.bleu(sums).shape == (3,)


def test_perplexity_and_mean():
    assert math.isclose(float(metrics.perplexity(np.array([-20.0, 10.0]))), math.exp(2))
    assert math.isnan(float(metrics.mean(np.array([0.0, 0.0]))))
    assert float(metrics.percentage(np.array([1.0, 4.0]))) == 25


def test_order_and_names():
    assert metrics.sort_metrics(["check_b", "chrf", "bleu", "check_a"]) == ["bleu", "chrf", "check_a", "check_b"]
    assert metrics.get_metric("check_tone").title == "Check tone"
    names = [measure.name for measure in metrics.MEASURES]
    assert len(names) == len(set(names))
