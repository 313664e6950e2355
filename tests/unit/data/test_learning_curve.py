import pytest

from tunectl.artifacts.records import Example, Source
from tunectl.core.errors import DataError
from tunectl.data.learning_curve import Likelihood, MeasuredSize, fit_and_advise, take_nested_subsets

ROWS = [100, 250, 500, 1000]


def train(count):
    return [Example(f"e{n}", Source("f", n)) for n in range(count)]


def points(loss, *, noise=0.02, validation=200):
    """Losses of each size, with a part that differs between examples but not between sizes."""
    return [
        MeasuredSize(
            rows / 1000,
            rows,
            [Likelihood(f"v{n}", -20 * (loss(rows) + noise * ((7 * n) % 11 - 5)), 20) for n in range(validation)],
        )
        for rows in ROWS
    ]


def test_parts_are_nested_and_free_of_order():
    whole = train(200)
    found = dict(take_nested_subsets(whole, seed=1))
    ids = {share: {row.id for row in rows} for share, rows in found.items()}
    assert {share: len(rows) for share, rows in found.items()} == {0.1: 20, 0.25: 50, 0.5: 100, 1.0: 200}
    assert ids[0.1] < ids[0.25] < ids[0.5] < ids[1.0]
    assert {row.id for row in dict(take_nested_subsets(whole[::-1], seed=1))[0.1]} == ids[0.1]
    assert {row.id for row in dict(take_nested_subsets(whole, seed=2))[0.1]} != ids[0.1]


def test_a_steep_curve_asks_for_more():
    curve = fit_and_advise(points(lambda n: 0.5 + 10 * n**-0.5), worth=0.02, seed=1, clusters={})
    assert curve.verdict == "more helps"
    assert curve.doubled.value == pytest.approx(10 * (1000**-0.5 - 2000**-0.5), rel=0.1)
    assert curve.doubled.low <= curve.doubled.value <= curve.doubled.high
    assert curve.last.value == pytest.approx(10 * (500**-0.5 - 1000**-0.5), rel=0.01)
    assert curve.conclusion.startswith(
        "More data would help: 2,000 records instead of 1,000 are expected to lower the loss by 0.09"
    )
    assert curve.predict(1000) == pytest.approx(curve.marks[-1].loss, abs=0.01)


def test_a_flat_curve_is_enough():
    curve = fit_and_advise(points(lambda n: 1.0), worth=0.02, seed=1, clusters={})
    assert (curve.verdict, curve.doubled.high < 0.02) == ("enough", True)


def test_few_noisy_examples_cannot_tell():
    noisy = [
        MeasuredSize(
            rows / 1000,
            rows,
            [
                Likelihood(f"v{n}", -20 * (1 + 3 * rows**-0.4 + 0.2 * (((n + 1) * rows // 50) % 7 - 3)), 20)
                for n in range(6)
            ],
        )
        for rows in ROWS
    ]
    curve = fit_and_advise(noisy, worth=0.05, seed=1, clusters={})
    assert curve.verdict == "cannot tell"
    assert curve.conclusion.endswith("More validation examples would narrow it.")


def test_intervals_hold_the_loss():
    for mark in fit_and_advise(points(lambda n: 0.5 + 10 * n**-0.5), worth=0.02, seed=1, clusters={}).marks:
        assert mark.low <= mark.loss <= mark.high


def test_examples_of_one_group_are_drawn_together():
    same = [
        MeasuredSize(
            rows / 1000, rows, [Likelihood(f"v{n}", -20 * (5 * rows**-0.5 + n // 20 / 5), 20) for n in range(200)]
        )
        for rows in ROWS
    ]
    alone = fit_and_advise(same, worth=0.02, seed=1, clusters={})
    together = fit_and_advise(same, worth=0.02, seed=1, clusters={f"v{n}": f"shop {n // 20}" for n in range(200)})
    assert (alone.groups, together.groups, together.validation) == (200, 10, 200)
    assert together.marks[-1].loss == pytest.approx(alone.marks[-1].loss)
    assert together.marks[-1].high - together.marks[-1].low > 3 * (alone.marks[-1].high - alone.marks[-1].low)


def test_too_little_to_draw_a_curve():
    with pytest.raises(DataError) as error:
        list(take_nested_subsets(train(19), seed=1))
    assert (
        str(error.value)
        == "a learning curve needs at least 20 train records; there are 19\n  add data first: with so little, more always helps"
    )
    with pytest.raises(DataError) as error:
        fit_and_advise(
            [MeasuredSize(rows / 1000, rows, [Likelihood("v", -1.0, 2)]) for rows in ROWS],
            worth=0.02,
            seed=1,
            clusters={},
        )
    assert str(error.value) == (
        "a learning curve needs at least two groups of validation examples with answers; there are 1\n  raise split.shares.validation"
    )
