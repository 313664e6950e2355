import numpy as np
import pytest

from tunectl.stats.design_effect import effective_size
from tunectl.stats.proportion_ci import wilson_interval


def test_independent_rows_are_worth_themselves():
    codes = [n % 3 for n in range(90)]
    found = effective_size(codes, 3, [1.0] * 90, [str(n) for n in range(90)])
    assert found.each == pytest.approx([89] * 3)  # one is spent on the mean
    assert found.all == pytest.approx(89)


def test_copies_are_worth_nothing():
    codes = [n // 10 % 3 for n in range(600)]
    found = effective_size(codes, 3, [1.0] * 600, [str(n // 10) for n in range(600)])
    assert found.all == pytest.approx(59)


def test_weights_cost():
    codes = [n % 2 for n in range(200)]
    weights = [4.0 if n < 40 else 0.25 for n in range(200)]
    found = effective_size(codes, 2, weights, [str(n) for n in range(200)])
    assert found.all == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights), rel=0.02)


def test_never_more_than_the_rows():
    # each group holds one of each value, which is steadier than chance
    found = effective_size([0, 1] * 50, 2, [1.0] * 100, [str(n // 2) for n in range(100)])
    assert found.all <= 100


def test_one_group_is_one_row():
    assert effective_size([0, 0, 1], 2, [1.0] * 3, ["a"] * 3).all == 1.0


def test_one_value_only():
    found = effective_size([0] * 12, 2, [1.0] * 12, [str(n // 3) for n in range(12)])
    assert found.each == [4.0, 4.0]
    assert found.all == 4.0


def test_nothing():
    with pytest.raises(ValueError, match="codes is empty"):
        effective_size([], 2, [], [])


def test_coverage_with_groups_by_simulation():
    random = np.random.default_rng(5)
    hits = blind = 0
    for _ in range(400):
        kinds = random.random(60) < 0.3
        sizes = random.integers(1, 12, 60)
        codes = [int(kind) for kind, size in zip(kinds, sizes, strict=True) for _ in range(size)]
        names = [str(n) for n, size in enumerate(sizes) for _ in range(size)]
        share = sum(codes) / len(codes)
        size = effective_size(codes, 2, [1.0] * len(codes), names).each[1]
        low, high = wilson_interval(share * size, size)
        hits += low <= 0.3 <= high
        low, high = wilson_interval(sum(codes), len(codes))
        blind += low <= 0.3 <= high
    assert hits / 400 >= 0.91
    assert blind / 400 < 0.75  # what taking rows as independent would give
