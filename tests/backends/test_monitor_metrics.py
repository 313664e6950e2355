from __future__ import annotations

import re
from math import nan

from drift_fixtures import at
from msgspec.structs import replace

from tunectl.artifacts.records import DriftSignal, DriftWindow
from tunectl.monitoring.monitor_metrics import DriftMetrics

NAMES = {
    "tunectl_drift_evaluations_total",
    "tunectl_drift_evidence",
    "tunectl_drift_evidence_required",
    "tunectl_drift_last_success_timestamp_seconds",
    "tunectl_drift_p_value",
    "tunectl_drift_score",
    "tunectl_drift_threshold",
    "tunectl_drift_window_samples",
}


def window(**other) -> DriftWindow:
    signals = {
        "prompt_text": DriftSignal(
            "prompt_text", "mmd", 300, 900, score=4.5, threshold=2.0, p_value=0.0005, shifted=True
        ),
        "answer_text": DriftSignal("answer_text", "mmd", 300, 200, score=0.1, threshold=2.0, p_value=0.4),
        "mean_logprob": DriftSignal("mean_logprob", "wasserstein", 3, 200, reason="too few rows"),
    }
    values = {
        "id": "a" * 16, "since": at(1), "until": at(2), "rows": 300, "verdict": "ok", "evidence": 2.5, "evidence_required": 3.0,
        "shifted": True, "release": "r", "reference": "p", "signals": signals,
    }  # fmt: skip
    return DriftWindow(**{**values, **other})


def samples(metrics: DriftMetrics) -> dict[str, float]:
    lines = [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def test_the_newest_window_is_shown_and_counted() -> None:
    metrics = DriftMetrics(required=3)
    metrics.record_window(window())
    metrics.record_success(1234.5)
    found = samples(metrics)
    assert found['tunectl_drift_score{signal="prompt_text"}'] == 4.5
    assert found['tunectl_drift_p_value{signal="answer_text"}'] == 0.4
    assert found["tunectl_drift_evidence"] == 2.5
    assert found["tunectl_drift_evidence_required"] == 3
    assert found['tunectl_drift_window_samples{side="window"}'] == 300
    assert found['tunectl_drift_window_samples{side="reference"}'] == 200
    assert found['tunectl_drift_evaluations_total{verdict="ok"}'] == 1
    assert found["tunectl_drift_last_success_timestamp_seconds"] == 1234.5
    assert not [name for name in found if "mean_logprob" in name]
    assert {
        re.split(r"[{ ]", name)[0] for name in found if not name.startswith("tunectl_drift_evaluations_created")
    } == NAMES


def test_at_first_every_verdict_is_zero_and_there_is_no_success() -> None:
    found = samples(DriftMetrics(required=3))
    verdicts = [name for name in found if name.startswith("tunectl_drift_evaluations_total")]
    assert len(verdicts) == 4
    assert found["tunectl_drift_evidence"] == 0


def test_never_nan_and_nothing_old() -> None:
    metrics = DriftMetrics(required=3)
    metrics.record_window(window())
    bad = replace(window().signals["prompt_text"], score=nan)
    metrics.record_window(window(signals={"prompt_text": bad}, rows=0, verdict="insufficient"))
    text = metrics.render().decode()
    assert "nan" not in text.lower()
    found = samples(metrics)
    assert 'tunectl_drift_score{signal="answer_text"}' not in found
    assert found['tunectl_drift_window_samples{side="window"}'] == 0


def test_after_a_restart_it_shows_the_last_window_and_counts_it_not_again() -> None:
    metrics = DriftMetrics(required=3)
    metrics.restore(window())
    found = samples(metrics)
    assert found["tunectl_drift_evidence"] == 2.5
    assert found['tunectl_drift_evaluations_total{verdict="ok"}'] == 0
    metrics.reset()
    assert samples(metrics)["tunectl_drift_evidence"] == 0
    metrics.record_failure()
    assert samples(metrics)['tunectl_drift_evaluations_total{verdict="error"}'] == 1
