"""kill -9 at any moment: nothing that was confirmed is missing. All two hundred runs: benchmarks/fault_inference_log.py."""

from __future__ import annotations

from kill_writer import killed


def test_kill_loses_nothing_that_was_confirmed(url, tmp_path):
    runs = list(killed(url, tmp_path, runs=4, seed=17))
    assert [run.missing for run in runs] == [()] * 4
    assert all(run.accepted for run in runs)
    assert sum(run.finished for run in runs) > 0
