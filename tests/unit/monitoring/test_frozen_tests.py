"""Simulated windows get the p-values that the monitor's own tests would give them."""

from __future__ import annotations

from math import log10

import numpy as np
from drift_fixtures import rows, tools

from tunectl.monitoring import frozen_tests, signals, two_sample_tests


def test_p_values_are_those_of_the_real_tests() -> None:
    pool = rows(1500, seed=1)
    random, dealer = np.random.default_rng(1), two_sample_tests.PermutationCache(999, 1)
    apart: dict[str, list[float]] = {}
    for side in signals.SIDES:
        columns = signals.compute_signal_values(pool, side, tools())
        frozen = frozen_tests.freeze(columns, range(1500), seed=1)
        for _ in range(12):
            order = random.permutation(1500)
            window, reference = order[:150], order[150:750]
            found = signals.run_all_tests(
                signals.subset(columns, window), signals.subset(columns, reference), {}, dealer, level=0.05, minimum=50
            )
            real = {one.name: one.p_value for one in found}
            for one in frozen:
                p_value = one.p_value(one.sum_rows(window), one.sum_rows(reference))
                assert 0 < p_value <= 1 + 1e-9
                apart.setdefault(one.spec.name, []).append(log10(p_value) - log10(real[one.spec.name] or 1))
    assert set(apart) == set(signals.WEIGHTS)
    for name, logs in apart.items():
        assert abs(float(np.median(logs))) < 0.15, name
        assert float(np.quantile(np.abs(logs), 0.75)) < 0.4, name


def test_a_signal_without_values_is_left_out() -> None:
    columns = signals.compute_signal_values(
        [signals.MonitoredInference(str(number), prompt="soil") for number in range(60)], "prompt", tools()
    )
    frozen = {one.spec.name: one for one in frozen_tests.freeze(columns, range(60), seed=1)}
    assert "prompt_tokens" not in frozen
    some = frozen["prompt_text"]
    assert some.p_value(some.sum_rows(np.arange(20)), some.sum_rows(np.arange(20, 60))) > 0.1
