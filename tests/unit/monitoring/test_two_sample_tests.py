from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from tunectl.monitoring import text_kernel
from tunectl.monitoring import two_sample_tests as tests
from tunectl.stats.proportion_ci import wilson_interval


def deals(n: int, m: int, count: int = 199, seed: int = 3) -> tests.Permutations:
    return tests.Permutations(n, m, count, seed)


@pytest.mark.parametrize(("n", "m"), [(30, 80), (80, 30), (40, 40), (2, 500)])
def test_a_deal_has_the_right_sizes_and_the_first_is_what_was_seen(n: int, m: int) -> None:
    blocks = np.concatenate(list(deals(n, m).blocks()))
    assert blocks.shape == (200, n + m)
    assert set(blocks.sum(axis=1)) == {min(n, m)}
    seen = np.concatenate([np.ones(n), np.zeros(m)]) if n <= m else np.concatenate([np.zeros(n), np.ones(m)])
    assert np.array_equal(blocks[0], seen)
    assert abs(blocks[1:].mean(axis=0) - min(n, m) / (n + m)).max() < 0.2


def test_differences_are_differences_of_means() -> None:
    values = np.random.default_rng(1).normal(size=(50, 3))
    found = np.abs(deals(20, 30).differences(values)[0])
    assert np.allclose(found, np.abs(values[:20].mean(axis=0) - values[20:].mean(axis=0)), atol=1e-5)


def test_the_kernel_statistic_by_hand() -> None:
    """Two directions of equal variance: the means count alike in all; neighbors are looked for one by one."""
    values = np.random.default_rng(2).normal(size=(60, 2))
    values -= values.mean(axis=0)
    values @= np.linalg.inv(np.linalg.cholesky(values.T @ values / 60)).T
    unit, graph = values / np.linalg.norm(values, axis=1, keepdims=True), np.zeros((60, 60))
    for row in range(60):
        others = [other for other in np.argsort(-unit @ unit[row]) if other != row]
        graph[row, others[0]], graph[row, others[1]] = 1, 0.5  # 60 // 25 neighbors, by rank
    center = np.eye(60) - 1 / 60
    both, spread = center @ (graph + graph.T) @ center, values @ values.T
    kernel = 2 * both / np.linalg.norm(both) + spread / np.linalg.norm(spread)
    apart = np.concatenate([np.full(20, 1 / 20), np.full(40, -1 / 40)])
    weights = np.linalg.eigvalsh(kernel) / 60
    squared = apart @ kernel @ apart / ((1 / 20 + 1 / 40) * 60 / 59)
    found = tests.mmd([values], deals(20, 40), 0.05)
    assert found.score == pytest.approx((squared - weights.sum()) / np.sqrt(2 * (weights**2).sum()), rel=1e-3)
    null = text_kernel.build_kernel(values, seed=3).null
    assert [null.mean, null.variance, null.third] == pytest.approx(
        [weights.sum(), 2 * (weights**2).sum(), 8 * (weights**3).sum()], rel=1e-4
    )


def test_a_few_foreign_rows_are_seen_by_their_neighbors() -> None:
    """Fifteen of a hundred rows come from elsewhere; the distance of means, which they widen, has its p-value far higher."""
    random = np.random.default_rng(8)
    values = random.normal(size=(600, 60))
    values[:15] += 6 * random.normal(size=60) / np.sqrt(60)
    deal = deals(100, 500, count=199)
    assert tests.mmd([values], deal, 0.05).p_value < 1e-5
    axes = text_kernel.weigh_axes(values - values.mean(axis=0), values - values.mean(axis=0))
    assert tests.to_result((deal.differences(axes) ** 2).sum(axis=1), 0.05).p_value > 0.005


def test_equal_rows_join_neither_group() -> None:
    """Half the rows are one text: were ties broken by place, those of the window would be each other's neighbors."""
    values = np.random.default_rng(9).normal(size=(400, 8))
    values[::2] = values[0]
    found = [tests.mmd([values], deals(100, 300, count=99, seed=seed), 0.05).p_value for seed in range(30)]
    assert 0.2 < float(np.median(found)) < 0.8


def test_wasserstein_is_scipys_in_standard_deviations() -> None:
    random = np.random.default_rng(4)
    values = np.round(random.exponential(size=90), 1)
    found = tests.wasserstein(values, deals(30, 60), 0.05).score
    assert found == pytest.approx(stats.wasserstein_distance(values[:30], values[30:]) / values.std(), rel=1e-3)


def test_variation_and_share_by_hand() -> None:
    codes = np.array([0] * 8 + [1] * 2 + [0] * 10 + [1] * 5 + [2] * 5)
    assert tests.total_variation(codes, deals(10, 20), 0.05).score == pytest.approx(0.3, abs=1e-5)
    flags = np.array([1.0] * 5 + [0.0] * 5 + [1.0] * 2 + [0.0] * 18)
    assert tests.difference_of_shares(flags, deals(10, 20), 0.05).score == pytest.approx(0.4, abs=1e-5)


def test_the_p_value_passes_exactly_when_the_score_exceeds_the_threshold() -> None:
    random = np.random.default_rng(5)
    for _ in range(200):
        found = tests.difference_of_shares((random.random(60) < 0.5).astype(float), deals(20, 40), 0.05)
        assert (found.p_value <= 0.05) == (found.score > found.threshold * (1 + tests.TIE))
        assert found.bar == pytest.approx(found.threshold)


FAMILIES = {
    "kernel": lambda values, deal: tests.mmd([values, values[:, :2] ** 2], deal, 0.05),
    "wasserstein": lambda values, deal: tests.wasserstein(values[:, 0], deal, 0.05),
    "share": lambda values, deal: tests.difference_of_shares((values[:, 0] > 0).astype(float), deal, 0.05),
    "variation": lambda values, deal: tests.total_variation(np.digitize(values[:, 0], [-1, 0, 1]), deal, 0.05),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_false_alarms_keep_their_level(name: str) -> None:
    random, flagged, repetitions = np.random.default_rng(6), 0, 400
    for repetition in range(repetitions):
        values = random.standard_t(3, size=(90, 4)) * [1, 5, 0.1, 1]
        flagged += FAMILIES[name](values, deals(30, 60, count=99, seed=repetition)).p_value <= 0.05
    assert wilson_interval(flagged, repetitions)[0] <= 0.05


def test_a_rare_direction_is_seen_by_the_regularised_kernel_and_not_by_the_plain_one() -> None:
    random = np.random.default_rng(7)
    values = random.normal(size=(600, 40)) * ([1.0] * 39 + [0.1])  # a hundredth of the variance: the smallest ridge
    values[:100, 39] += 0.3
    deal = deals(100, 500, count=499)
    assert tests.mmd([values], deal, 0.05).p_value <= 0.01
    plain = (deal.differences(values) ** 2).sum(axis=1)
    assert tests.to_result(plain, 0.05).p_value > 0.05


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(4, 30), st.integers(1, 4)), elements=st.floats(-1e6, 1e6)),
    st.data(),
)
@settings(deadline=None, max_examples=60)
def test_nothing_makes_it_say_nan(values: np.ndarray, data: st.DataObject) -> None:
    n = data.draw(st.integers(2, len(values) - 2))
    deal = deals(n, len(values) - n, count=39)
    results = [tests.mmd([values], deal, 0.05), tests.wasserstein(values[:, 0], deal, 0.05)]
    for found in results:
        assert np.isfinite([found.score, found.threshold, found.p_value, found.effect, found.bar]).all()
        assert tests.SMALLEST <= found.p_value <= 1


def test_equal_rows_never_alarm() -> None:
    same = np.full((80, 3), 0.1)
    deal = deals(20, 60)
    assert tests.mmd([same], deal, 0.05).p_value == 1
    assert tests.wasserstein(same[:, 0], deal, 0.05).p_value == 1
    assert tests.total_variation(np.zeros(80, dtype=int), deal, 0.05).p_value == 1
    assert tests.difference_of_shares(np.ones(80), deal, 0.05).p_value == 1


def test_too_few_permutations_for_the_level() -> None:
    with pytest.raises(ValueError, match="9 permutations cannot reach a level"):
        tests.difference_of_shares(np.ones(80), deals(20, 60, count=9), 0.05)


def test_signals_of_one_size_share_their_deals() -> None:
    dealer = tests.PermutationCache(19, 1)
    assert dealer.get_permutations(5, 9) is dealer.get_permutations(5, 9)
    first = dealer.get_permutations(5, 9)
    for size in range(6, 10):
        dealer.get_permutations(size, 9)
    assert dealer.get_permutations(5, 9) is not first
