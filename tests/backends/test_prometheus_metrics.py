"""What the server counts: exactly the numbers that boards and rules were promised, from the first scrape on."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import pytest

from tunectl.backends.prometheus_metrics import ServingMetrics

HISTOGRAMS = {"time_to_first_token", "inter_token_latency", "e2e_request_latency", "request_queue_time"}
PROMISED = {
    **{f"tunectl_{name}_seconds": "histogram" for name in HISTOGRAMS},
    "tunectl_requests_running": "gauge",
    "tunectl_requests_waiting": "gauge",
    "tunectl_requests_total": "counter",
    "tunectl_requests_rejected_total": "counter",
    "tunectl_prompt_tokens_total": "counter",
    "tunectl_generation_tokens_total": "counter",
    "tunectl_model_info": "gauge",
    "tunectl_feedback_total": "counter",
    "tunectl_live_store_errors_total": "counter",
}


def samples(metrics: ServingMetrics) -> dict[str, float]:
    lines = [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_every_promised_number_is_there_and_no_other() -> None:
    found = dict(re.findall(r"^# TYPE (\w+) (\w+)$", ServingMetrics().text().decode(), re.MULTILINE))
    assert found == PROMISED


def test_labels_are_closed_sets_that_start_at_zero() -> None:
    metrics = ServingMetrics()
    before = samples(metrics)
    assert set(before.values()) == {0.0}
    labels = {
        "tunectl_requests_total": {"stop", "length", "cancelled", "error", "timeout"},
        "tunectl_requests_rejected_total": {"queue_full", "token_budget", "rate_limit", "draining", "not_ready"},
    }
    for name, values in labels.items():
        assert {re.split('"', line)[1] for line in before if line.startswith(f"{name}{{")} == values
    assert sum(line.startswith("tunectl_feedback_total{") for line in before) == 6 * 3
    metrics.first.observe(0.1)
    metrics.requests.labels("stop").inc()
    after = samples(metrics)
    assert set(after) == set(before)
    assert not any(map(math.isnan, after.values()))


def test_what_is_loaded_replaces_what_was() -> None:
    metrics = ServingMetrics()
    metrics.loaded({"champion": ("a", "tiny"), "challenger": ("b", "tiny")})
    metrics.loaded({"champion": ("b", "tiny")})
    assert [line for line in samples(metrics) if "model_info" in line] == [
        'tunectl_model_info{arm="champion",base="tiny",release="b"}'
    ]


def test_nothing_is_written_where_other_servers_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    one, other = ServingMetrics(), ServingMetrics()
    one.prompt_tokens.inc(3)
    assert (samples(one)["tunectl_prompt_tokens_total"], samples(other)["tunectl_prompt_tokens_total"]) == (3, 0)
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert list(tmp_path.iterdir()) == []
