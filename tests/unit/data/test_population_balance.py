import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import Example, Source
from tunectl.data.population_balance import measure_shares, raking_weights, resample_counts

PRICE = {"low": 0.5, "middle": 0.3, "high": 0.2}


def rows(**counts):
    return [{"price": value} for value, count in counts.items() for _ in range(count)]


def examples(**counts):
    made = [value for value, count in counts.items() for _ in range(count)]
    return [Example(f"e{n}", Source("f", n), fields={"price": value}) for n, value in enumerate(made)]


def test_shares_intervals_and_test():
    found = measure_shares([*rows(low=80, middle=15, high=5, free=4), {}], "price", PRICE, seed=1)
    assert (found.known, found.missing, found.unknown) == (100, 1, {"free": 4})
    low = found.values[0]
    assert (low.value, low.rows, low.share, low.target, low.out_of_balance) == ("low", 80, 0.8, 0.5, True)
    assert low.low < 0.8 < low.high
    assert found.test.p_value < 0.001
    assert found.size == "large"


def test_a_fair_sample_is_not_off():
    found = measure_shares(rows(low=52, middle=29, high=19), "price", PRICE, seed=1)
    assert not [value for value in found.values if value.out_of_balance]
    assert found.test.p_value > 0.5
    assert found.size == "negligible"


def test_small_counts_are_tested_exactly():
    assert measure_shares(rows(low=3, high=1), "price", PRICE, seed=1).test.method == "exact"


def test_nobody_known():
    found = measure_shares([{}, {"price": "free"}], "price", PRICE, seed=1)
    assert (found.known, found.test, found.size) == (0, None, "unknown")
    assert (found.values[0].low, found.values[0].high) == (0.0, 1.0)


def test_weights_use_the_effective_number():
    made = rows(low=80, high=20)
    plain = measure_shares(made, "price", {"low": 0.5, "high": 0.5}, seed=1)
    weighted = measure_shares(made, "price", {"low": 0.5, "high": 0.5}, seed=1, weights=[0.625] * 80 + [2.5] * 20)
    assert weighted.values[0].share == pytest.approx(0.5)
    assert weighted.test.p_value > 0.9
    assert weighted.values[0].high - weighted.values[0].low > plain.values[0].high - plain.values[0].low


def test_rows_of_one_group_count_once():
    made = rows(low=80, high=20)
    alone = measure_shares(made, "price", {"low": 0.6, "high": 0.4}, seed=1)
    together = measure_shares(
        made, "price", {"low": 0.6, "high": 0.4}, seed=1, clusters=[f"shop {n // 10}" for n in range(100)]
    )
    assert alone.worth == 100
    assert together.worth == pytest.approx(9, rel=0.01)  # ten shops, one degree of freedom spent
    assert (alone.values[0].out_of_balance, together.values[0].out_of_balance) == (True, False)
    assert alone.test.p_value < 0.001 < 0.1 < together.test.p_value


def test_weigh_reaches_all_fields_at_once():
    made = [
        Example(f"{n}", Source("f"), fields={"price": "low" if n % 3 else "high", "area": "a" if n % 5 else "b"})
        for n in range(150)
    ]
    population = {"price": {"low": 0.5, "high": 0.5}, "area": {"a": 0.6, "b": 0.4}}
    raked = raking_weights(made, population, low=0.01, high=100)
    for field, target in population.items():
        found = measure_shares([row.fields for row in made], field, target, seed=1, weights=raked.weights)
        assert [value.share for value in found.values] == pytest.approx(list(target.values()), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 80), st.integers(5, 40), st.integers(0, 99))
def test_copies_follow_the_weights(low, high, seed):
    made = examples(low=low, high=high)
    raked = raking_weights(made, {"price": {"low": 0.5, "high": 0.5}}, low=0.001, high=1000)
    times = resample_counts(made, raked.weights, fields=["price"], most=1000, seed=seed)
    assert abs(sum(times[:low]) - sum(times[low:])) <= 2
    assert abs(sum(times) - len(made)) <= 1


def test_copies_are_limited_and_free_of_order():
    made = examples(low=9, high=1)
    weights = [0.5] * 9 + [5.5]
    times = resample_counts(made, weights, fields=["price"], most=3, seed=1)
    assert max(times) == 3
    assert resample_counts(made[::-1], weights[::-1], fields=["price"], most=3, seed=1) == times[::-1]
