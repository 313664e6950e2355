import pytest

from tunectl.stats.power_law import fit, fit_many


def test_recovers_a_falling_loss():
    sizes = [100, 250, 500, 1000]
    law = fit(sizes, [1.0 + 8 * n**-0.4 for n in sizes], higher_is_better=False)
    assert law.predict(2000) == pytest.approx(1.0 + 8 * 2000**-0.4, rel=0.01)


def test_recovers_a_rising_score():
    sizes = [100, 250, 500, 1000]
    law = fit(sizes, [60 - 90 * n**-0.3 for n in sizes], higher_is_better=True)
    assert law.predict(2000) == pytest.approx(60 - 90 * 2000**-0.3, rel=0.01)


def test_worse_with_more_rows_is_flat():
    law = fit([10, 20, 40], [3.0, 2.0, 1.0], higher_is_better=True)
    assert (law.slope, law.limit) == (0.0, 2.0)


def test_many_at_once_are_the_same_curves():
    limits, slopes, decays = fit_many([10, 20, 40], [[1, 2, 2.5], [1, 1, 1]], higher_is_better=True)
    one = fit([10, 20, 40], [1, 2, 2.5], higher_is_better=True)
    assert (limits[0], slopes[0], decays[0]) == pytest.approx((one.limit, one.slope, one.decay))
    assert (limits[1], slopes[1]) == (1.0, 0.0)


def test_two_sizes_are_not_enough():
    with pytest.raises(ValueError, match="a power law needs three different sizes in rows, not 2"):
        fit([10, 10, 20], [1, 2, 3], higher_is_better=True)


def test_a_loss_never_falls_below_its_floor():
    sizes, losses = [58, 146, 291, 582], [1.594, 1.168, 0.630, 0.305]  # steeper than any power law with a limit
    law = fit(sizes, losses, higher_is_better=False, floor=0.0)
    assert law.limit == 0.0
    assert 0 < law.predict(1164) < law.predict(582)
    assert fit(sizes, losses, higher_is_better=False).predict(1164) < 0  # what the floor is for


def test_the_floor_changes_nothing_above_it():
    sizes = [100, 250, 500, 1000]
    losses = [1.0 + 8 * n**-0.4 for n in sizes]
    assert fit(sizes, losses, higher_is_better=False, floor=0.0) == fit(sizes, losses, higher_is_better=False)
