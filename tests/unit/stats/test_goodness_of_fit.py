import pytest
from scipy.stats import binomtest, chisquare

from tunectl.stats import goodness_of_fit


def test_large_counts_are_scipys_chi_square():
    found = goodness_of_fit.chi_square_test([50, 30, 20], [0.4, 0.4, 0.2], seed=1)
    assert found.method == "chi-square"
    assert found.p_value == pytest.approx(chisquare([50, 30, 20], [40, 40, 20]).pvalue)
    assert found.effect == pytest.approx((found.statistic / 100) ** 0.5)


def test_small_counts_are_exact():
    # at one half, Pearson's order of outcomes is the binomial test's order
    found = goodness_of_fit.chi_square_test([7, 1], [0.5, 0.5], seed=1)
    assert found.method == "exact"
    assert found.p_value == pytest.approx(binomtest(7, 8, 0.5).pvalue)


def test_monte_carlo_agrees_with_exact(monkeypatch):
    exact = goodness_of_fit.chi_square_test([6, 3, 1, 0], [0.3, 0.3, 0.3, 0.1], seed=1)
    monkeypatch.setattr(goodness_of_fit, "MAX_OUTCOMES", 0)
    drawn = goodness_of_fit.chi_square_test([6, 3, 1, 0], [0.3, 0.3, 0.3, 0.1], seed=1)
    assert (exact.method, drawn.method) == ("exact", "monte-carlo")
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.02)
    assert drawn == goodness_of_fit.chi_square_test([6, 3, 1, 0], [0.3, 0.3, 0.3, 0.1], seed=1)


def test_false_alarms_are_rare():
    import numpy as np

    draws = np.random.default_rng(3).multinomial(15, [0.6, 0.3, 0.1], size=400)
    alarms = sum(goodness_of_fit.chi_square_test(row.tolist(), [0.6, 0.3, 0.1], seed=1).p_value < 0.05 for row in draws)
    assert alarms / 400 <= 0.07


def test_a_value_of_share_zero_is_impossible():
    found = goodness_of_fit.chi_square_test([5, 1], [1.0, 0.0], seed=1)
    assert (found.p_value, found.statistic, goodness_of_fit.effect_size_label(found.effect)) == (
        0.0,
        None,
        "impossible by chance",
    )


def test_words():
    assert [goodness_of_fit.effect_size_label(w) for w in (0.05, 0.2, 0.4, 0.6)] == [
        "negligible",
        "small",
        "medium",
        "large",
    ]


def test_refuses_one_value():
    with pytest.raises(ValueError, match="1 counts of 3 rows cannot be tested against 1 shares"):
        goodness_of_fit.chi_square_test([3], [1.0], seed=1)
