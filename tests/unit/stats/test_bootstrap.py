"""Paired bootstrap from sufficient statistics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.stats import bootstrap


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def table(values):
    return np.column_stack([np.asarray(values, dtype=float), np.ones(len(values))])


def test_each_resample_draws_as_many_items_as_there_are():
    counts = bootstrap.resample_counts(7, 50, seed=1)
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert (counts == bootstrap.resample_counts(7, 50, seed=1)).all()
    assert (counts != bootstrap.resample_counts(7, 50, seed=2)).any()


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(10, 2, size=400)
    found = bootstrap.interval(table(values), mean, bootstrap.resample_counts(400, 4000, seed=1), 0.95)
    error = values.std(ddof=0) / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.03)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.03)


def test_a_paired_difference_is_narrower_than_two_intervals():
    random = np.random.default_rng(0)
    base = random.normal(10, 5, size=200)
    better = base + random.normal(0.5, 0.5, size=200)
    counts = bootstrap.resample_counts(200, 1000, seed=1)
    found = bootstrap.difference(table(better), table(base), mean, counts, 0.95)
    alone = bootstrap.interval(table(better), mean, counts, 0.95)
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < (alone.high - alone.low) / 4
    assert found.probability == 0


def test_coverage_of_a_nominal_95_percent_interval():
    random = np.random.default_rng(0)
    hits = 0
    counts = bootstrap.resample_counts(60, 400, seed=1)
    for _ in range(200):
        found = bootstrap.interval(table(random.normal(0, 1, size=60)), mean, counts, 0.95)
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_no_difference_has_a_large_p_value():
    same = table([1, 2, 3, 4, 5, 6])
    found = bootstrap.difference(same, same, mean, bootstrap.resample_counts(6, 200, seed=1), 0.95)
    assert (found.value, found.low, found.high, found.probability) == (0, 0, 0, 1)


def test_one_item_has_no_interval():
    counts = bootstrap.resample_counts(1, 100, seed=1)
    assert bootstrap.interval(table([3]), mean, counts, 0.95) is None
    assert bootstrap.difference(table([3]), table([2]), mean, counts, 0.95) is None


def test_gains_of_a_few_items_have_no_interval_because_chance_gives_them_too():
    for items, defined in ((2, False), (5, False), (6, True)):
        counts = bootstrap.resample_counts(items, 200, seed=1)
        gains, nothing = table(range(1, items + 1)), table([0] * items)
        assert (bootstrap.difference(gains, nothing, mean, counts, 0.95) is not None) == defined
        assert bootstrap.difference(gains, nothing, mean, counts, 0.5) is not None  # two items do, at this level


def test_no_item_has_no_interval():
    assert bootstrap.interval(np.zeros((0, 2)), mean, np.zeros((10, 0)), 0.95) is None


def test_a_measure_that_is_mostly_undefined_has_no_interval():
    statistics = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])

    def ratio(sums):
        with np.errstate(invalid="ignore"):
            return sums[..., 0] / sums[..., 1]

    assert bootstrap.interval(statistics, ratio, bootstrap.resample_counts(4, 500, seed=1), 0.95) is None


def test_undefined_resamples_do_not_count_in_the_p_value():
    first, second = np.zeros((6, 2)), np.zeros((6, 2))
    first[:2], second[:2] = [[3, 1], [-1, 1]], [0, 1]

    def ratio(sums):
        with np.errstate(invalid="ignore"):
            return sums[..., 0] / sums[..., 1]

    counts = bootstrap.resample_counts(6, 2000, seed=1)
    samples = ratio(counts @ first) - ratio(counts @ second)
    defined = samples[np.isfinite(samples)]
    found = bootstrap.difference(first, second, ratio, counts, 0.95)
    assert len(defined) < len(samples)
    assert found.probability == pytest.approx(2 * (defined <= 0).mean())


def test_groups_are_drawn_whole():
    statistics = np.array([[1.0, 1.0], [3.0, 1.0], [10.0, 1.0]])
    found = bootstrap.sum_by_group(statistics, ["a", "b", "a"])
    assert found.tolist() == [[11.0, 2.0], [3.0, 1.0]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.integers(0, 2**31))
def test_an_interval_of_a_mean_stays_within_the_data(values, seed):
    found = bootstrap.interval(table(values), mean, bootstrap.resample_counts(len(values), 100, seed), 0.9)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
