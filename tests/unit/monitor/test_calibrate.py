from __future__ import annotations

import numpy as np
import pytest
from drift_parts import RULE, rows, tools

from tunectl.monitor import calibrate, exemplars, selftest, signals

FAST = calibrate.Rule(level=0.05, permutations=299, quantile=0.95, minimum=20, required=2)


@pytest.fixture(scope="module")
def pool():
    own, foreign = rows(600, seed=1), rows(200, seed=2, topics=["bread"])
    return {"prompt": signals.columns([*own, *foreign], "prompt", tools(), without=["prompt_tokens", "feedback"])}


def bench(pool) -> calibrate.Bench:
    return calibrate.Bench(pool, {"prompt": range(600)}, FAST, reference=250, rows=60)


def test_null_and_power(pool) -> None:
    quiet = bench(pool).run(60, seed=1)
    loud = bench(pool).run(20, seed=1, shift=calibrate.mixed("prompt", range(600, 800), 0.4))
    assert quiet.alone["prompt_text"].interval[0] <= 0.05
    assert quiet.window.interval[0] <= 0.05
    assert loud.alone["prompt_text"].share > 0.9
    assert loud.verdict.share > 0.9
    assert loud.verdict.count <= loud.window.count
    assert str(calibrate.Rate(1, 20)) == "5.0% (0.9% to 23.6%)"


def test_trials_can_be_repeated(pool) -> None:
    assert bench(pool).run(5, seed=3) == bench(pool).run(5, seed=3)


def test_a_tilt_raises_a_share_by_so_many_points() -> None:
    marked, window = np.arange(0, 100, 2), np.arange(50)
    shift = calibrate.tilted("prompt", marked, 0.2)
    changed = shift(np.random.default_rng(1), "prompt", window, np.arange(50, 100))
    assert np.isin(changed, marked).sum() == np.isin(window, marked).sum() + 10
    assert shift(np.random.default_rng(1), "answer", window, np.arange(50, 100)) is window


def test_the_self_test_measures_each_side_and_change() -> None:
    columns = signals.columns(rows(500, seed=4), "prompt", tools(), without=["prompt_language"])
    found = list(selftest.measured({"prompt": columns}, {"prompt": 500}, FAST, 80, 20, seed=1))
    by_change = {one.change: one for one in found}
    assert list(by_change) == [name for name, _, _ in selftest.CHANGES]
    assert by_change["nothing"].window[0] <= 0.2
    assert by_change["topic_30"].alone["prompt_text"] > by_change["nothing"].alone["prompt_text"]
    assert by_change["nothing"].verdict is not None
    assert (by_change["nothing"].rows, by_change["nothing"].reference) == (80, 500 - 3 * 80)


def test_a_small_reference_gives_smaller_windows_and_no_sequences() -> None:
    columns = signals.columns(rows(110, seed=5), "prompt", tools())
    found = next(iter(selftest.measured({"prompt": columns}, {"prompt": 110}, FAST, 300, 20, seed=1)))
    assert (found.rows, found.reference) == (27, 56)
    assert found.verdict is None
    assert not list(selftest.measured({"prompt": columns}, {"prompt": 50}, RULE, 300, 20, seed=1))


def test_exemplars_of_nothing_are_none() -> None:
    empty = np.zeros((0, 3))
    assert exemplars.most_different(empty, np.ones((5, 3)), 3) == []
    assert exemplars.most_different(np.ones((5, 3)), np.ones((5, 3)), 3) == []
    assert exemplars.slices([], rows(5, seed=1), 3) == []


def test_members_of_a_slice() -> None:
    assert exemplars.member("word:inman", "Ads for Inman Park?")
    assert not exemplars.member("word:inman", "Ads for Midtown?")
    with pytest.raises(ValueError, match="'topic 7' is no slice; slices are called word:WORD"):
        exemplars.member("topic 7", "")
