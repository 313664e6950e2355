import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.stats.raking import Margin, effective_sample_size, rake


def reached(codes, weights, values):
    total = sum(w for c, w in zip(codes, weights, strict=True) if c >= 0)
    return [sum(w for c, w in zip(codes, weights, strict=True) if c == v) / total for v in range(values)]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_reaches_both_targets(data):
    rows = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=20, max_size=200))
    rows += [(a, b) for a in range(3) for b in range(2)] * 4  # every pair of values occurs
    first, second = [a for a, _ in rows], [b for _, b in rows]
    raked = rake([Margin(first, [0.3, 0.3, 0.4]), Margin(second, [0.6, 0.4])], len(rows), low=0.001, high=1000)
    assert raked.gap < 1e-6
    assert reached(first, raked.weights, 3) == pytest.approx([0.3, 0.3, 0.4], abs=1e-5)
    assert reached(second, raked.weights, 2) == pytest.approx([0.6, 0.4], abs=1e-5)
    assert sum(raked.weights) / len(rows) == pytest.approx(1)
    assert raked.effective <= len(rows) + 1e-6


def test_limits_hold_and_the_gap_is_reported():
    codes = [0] * 99 + [1]
    raked = rake([Margin(codes, [0.5, 0.5])], 100, low=0.2, high=5)
    assert min(raked.weights) >= 0.2
    assert max(raked.weights) <= 5 + 1e-9
    assert raked.gap > 0.4
    assert sum(raked.weights) == pytest.approx(100)


def test_absent_value_is_spread_over_the_others():
    raked = rake([Margin([0, 0, 0, 1], [0.4, 0.4, 0.2])], 4, low=0.01, high=100)
    assert reached([0, 0, 0, 1], raked.weights, 3) == pytest.approx([0.5, 0.5, 0.0])


def test_unknown_rows_are_left_alone():
    raked = rake([Margin([0, 0, 1, -1], [0.5, 0.5])], 4, low=0.01, high=100)
    assert raked.weights[3] == pytest.approx(1.0)
    assert raked.weights[2] == pytest.approx(2 * raked.weights[0])


def test_nobody_known():
    assert rake([Margin([-1, -1], [0.5, 0.5])], 2, low=0.5, high=2).weights == pytest.approx([1, 1])


def test_effective_number():
    assert effective_sample_size([1, 1, 1, 1]) == 4
    assert effective_sample_size([2, 0]) == 1


def test_refuses_limits_without_one():
    with pytest.raises(ValueError, match="4 rows cannot be weighted between 2 and 3"):
        rake([], 4, low=2, high=3)
