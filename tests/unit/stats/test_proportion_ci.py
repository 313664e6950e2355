import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.stats.proportion_ci import wilson_interval


@pytest.mark.parametrize(("share", "total"), [(0.02, 60), (0.1, 40), (0.5, 25), (0.9, 200)])
def test_coverage_by_simulation(share, total):
    draw = random.Random(7)
    hits = 0
    for _ in range(2000):
        low, high = wilson_interval(sum(draw.random() < share for _ in range(total)), total)
        hits += low <= share <= high
    assert 0.92 <= hits / 2000 <= 0.99


def test_known_value():
    low, high = wilson_interval(0, 10)
    assert low == 0.0
    assert high == pytest.approx(0.2775, abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_holds_the_share_and_mirrors(pair):
    k, n = pair
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert wilson_interval(n - k, n) == pytest.approx((1 - high, 1 - low))


def test_nothing_is_not_a_share():
    with pytest.raises(ValueError, match="0 of 0 is not a share"):
        wilson_interval(0, 0)
