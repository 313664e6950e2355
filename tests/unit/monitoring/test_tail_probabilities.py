"""Each tail against permutations of the same rows: exact ones where they can be counted, else a hundred thousand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tunectl.monitoring import tail_probabilities as tails
from tunectl.monitoring import text_kernel
from tunectl.monitoring import two_sample_tests as tests

COUNT = 100_000
SAMPLES = {
    "normal": lambda random: random.normal(size=600),
    "skewed": lambda random: random.exponential(size=600),
    "heavy": lambda random: random.standard_t(3, size=600),
}


def sums(values: np.ndarray, n: int) -> np.ndarray:
    """Sums of ``n`` rows, drawn at random so many times; ``values`` (rows, d)."""
    random, found = np.random.default_rng(1), []
    for _ in range(COUNT // 5000):
        chosen = np.argpartition(random.random((5000, len(values)), dtype=np.float32), n, axis=1)[:, :n]
        mask = np.zeros((5000, len(values)), dtype=np.float32)
        np.put_along_axis(mask, chosen, 1.0, axis=1)
        found.append(mask @ values.astype(np.float32))
    return np.concatenate(found)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_difference_of_means(name: str) -> None:
    values = SAMPLES[name](np.random.default_rng(2))
    total = sums(values[:, None], 100)[:, 0]
    ordered = np.sort(np.abs(total / 100 - (values.sum() - total) / 500))
    for level in (1e-1, 1e-2, 1e-3, 1e-4):
        found = tails.mean_difference_tail(values, 100, float(ordered[-round(level * COUNT)]))
        assert found == pytest.approx(level, rel=0.1 + 3 / np.sqrt(level * COUNT))


def test_a_difference_of_means_that_all_deals_can_be_counted_of() -> None:
    values = np.array([0.0, 0.3, 0.4, 1.0, 1.7, 2.0, 2.2, 2.9, 3.1, 3.3, 4.0, 4.4, 5.1, 5.2, 6.0, 6.6])
    found = np.array([abs(sum(each) / 8 - (values.sum() - sum(each)) / 8) for each in combinations(values, 8)])
    for difference in (1.5, 2.5, 3.0):
        exact = (found >= difference - 1e-9).mean()
        assert tails.mean_difference_tail(values, 8, difference) == pytest.approx(exact, rel=0.25)
    assert tails.mean_difference_tail(values, 8, float(found.max())) == 0
    assert tails.mean_difference_tail(np.ones(9), 3, 0.0) == 1


@pytest.mark.parametrize("shape", ["heavy", "clusters", "copies"])
def test_the_statistic_of_texts_is_never_far_too_small(shape: str) -> None:
    random = np.random.default_rng(3)
    values = random.standard_t(5, size=(600, 12)) * np.geomspace(1, 0.05, 12)
    values[:, 3] = random.random(600) < 0.03  # a rare word
    if shape == "clusters":
        values[:, :4] += 6 * random.integers(0, 3, size=(600, 4))
    if shape == "copies":
        values[:200] = values[0]
    kernel = text_kernel.build_kernel(values, seed=1)
    assert kernel is not None
    scale, found = 1 / 100 + 1 / 500, []
    for _ in range(COUNT // 5000):
        chosen = np.argpartition(random.random((5000, 600), dtype=np.float32), 100, axis=1)[:, :100]
        mask = np.zeros((5000, 600), dtype=np.float32)
        np.put_along_axis(mask, chosen, 1.0, axis=1)
        found.append(((mask @ kernel.axes) ** 2).sum(axis=1) + kernel.graph_form(mask))
    scores = np.sort(np.concatenate(found) * scale / (600 / 599))
    for level in (1e-1, 1e-2, 1e-3, 1e-4):
        standard = (float(scores[-round(level * COUNT)]) - kernel.null.mean) / kernel.null.spread
        assert level / 2 <= kernel.null.tail(standard, 100, 500) <= 3 * level


def test_a_chi_square_has_the_tail_of_its_skewness() -> None:
    from scipy.stats import chi2, norm

    for freedom in (1, 2, 30):
        for level in (1e-2, 1e-4, 1e-6):
            standard = (float(chi2.isf(level, freedom)) - freedom) / (2 * freedom) ** 0.5
            assert tails.pearson_tail(standard, (8 / freedom) ** 0.5) == pytest.approx(level, rel=1e-6)
    assert tails.pearson_tail(3.0, -1.0) == pytest.approx(float(norm.sf(3.0)))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_earth_movers_distance(name: str) -> None:
    values = np.sort(SAMPLES[name](np.random.default_rng(4)))
    gaps, scale = np.diff(values), 1 / 100 + 1 / 500
    random, found = np.random.default_rng(5), []
    for _ in range(20):
        chosen = np.argpartition(random.random((2500, 600), dtype=np.float32), 100, axis=1)[:, :100]
        mask = np.full((2500, 600), -1 / 500, dtype=np.float32)
        np.put_along_axis(mask, chosen, np.float32(scale - 1 / 500), axis=1)
        found.append(np.abs(np.cumsum(mask, axis=1)[:, :-1]) @ gaps.astype(np.float32))
    ordered = np.sort(np.concatenate(found))
    for level in (1e-2, 1e-3):
        p_value = tails.wasserstein_tail(values, 100, 500, float(ordered[-round(level * len(ordered))]), seed=1)
        assert level / 1.6 <= p_value <= 3 * level, "a margin, on the safe side"
    assert tails.wasserstein_tail(np.ones(50), 20, 30, 0.0, seed=1) == 1


def test_shares_are_exact() -> None:
    """Fisher's tea: eight cups, four of them with the milk first, all told right."""
    assert tails.share_difference_tail(4, 4, 4, 1.0) == pytest.approx(2 / 70)
    assert tails.share_difference_tail(4, 4, 4, 0.0) == pytest.approx(1.0)


def test_categories() -> None:
    codes = np.array([0] * 90 + [1] * 6 + [2] * 4 + [0] * 400 + [1] * 60 + [2] * 40)
    found = tails.variation_tail(codes, 100, seed=1)
    deals = tests.Permutations(100, 500, 20_000, 1)
    members = np.eye(3)[codes]
    variation = np.abs(deals.differences(members)).sum(axis=1) / 2
    assert found == pytest.approx(float((variation[1:] >= variation[0] - 1e-6).mean()), rel=0.2)
    many = np.concatenate([np.arange(30), np.arange(30)])
    assert tails.variation_tail(many, 30, seed=1) == 1, "the rarest are taken together"
    assert tails.variation_tail(np.array([0, 1] * 20), 10, seed=1) == pytest.approx(1)


def test_a_test_says_a_smaller_p_value_than_its_permutations_could() -> None:
    random = np.random.default_rng(6)
    values = np.concatenate([random.normal(0.6, 1, size=(200, 5)), random.normal(size=(800, 5))])
    deals = tests.Permutations(200, 800, 199, 1)
    for found in (
        tests.mmd([values], deals, 0.05), tests.difference_of_means(values[:, 0], deals, 0.05),
        tests.wasserstein(values[:, 0], deals, 0.05), tests.difference_of_shares((values[:, 0] > 0).astype(float), deals, 0.05),
        tests.total_variation(np.digitize(values[:, 0], [-1, 0, 1]), deals, 0.05),
    ):  # fmt: skip
        assert tests.SMALLEST <= found.p_value < 2e-4
