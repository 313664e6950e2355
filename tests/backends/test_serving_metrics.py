"""What the server counts: exactly the numbers that boards and rules were promised, from the first scrape on."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import pytest

from tunectl.serving.serving_metrics import ServingMetrics

PROMISED = {
    "time_to_first_token_seconds": ("histogram", set()),
    "inter_token_latency_seconds": ("histogram", set()),
    "e2e_request_latency_seconds": ("histogram", set()),
    "request_queue_time_seconds": ("histogram", set()),
    "requests_running": ("gauge", set()),
    "requests_waiting": ("gauge", set()),
    "requests_total": ("counter", {"finished_reason"}),
    "requests_rejected_total": ("counter", {"reason"}),
    "prompt_tokens_total": ("counter", set()),
    "generation_tokens_total": ("counter", set()),
    "model_info": ("gauge", {"release", "base", "variant"}),
    "feedback_total": ("counter", {"kind", "variant"}),
    "inference_log_errors_total": ("counter", set()),
}
"""By name after ``tunectl_``: type and labels."""


def samples(metrics: ServingMetrics) -> dict[str, float]:
    lines = [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_every_promised_number_is_there_and_no_other() -> None:
    metrics = ServingMetrics()
    metrics.set_model_info({"champion": ("0123456789abcdef", "tiny")})
    shown = metrics.render().decode()
    kinds = dict(re.findall(r"^# TYPE tunectl_(\w+) (\w+)$", shown, re.MULTILINE))
    labels = {name: set[str]() for name in kinds}
    for name, inside in re.findall(r"^tunectl_(\w+?)(?:_bucket|_count|_sum)?(?:\{(.*)\})? ", shown, re.MULTILINE):
        labels[name] |= set(re.findall(r'(\w+)="', inside)) - {"le"}
    assert {name: (kind, labels[name]) for name, kind in kinds.items()} == PROMISED


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
    metrics.set_model_info({"champion": ("a", "tiny"), "challenger": ("b", "tiny")})
    metrics.set_model_info({"champion": ("b", "tiny")})
    assert [line for line in samples(metrics) if "model_info" in line] == [
        'tunectl_model_info{base="tiny",release="b",variant="champion"}'
    ]


def test_nothing_is_written_where_other_servers_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    one, other = ServingMetrics(), ServingMetrics()
    one.prompt_tokens.inc(3)
    assert (samples(one)["tunectl_prompt_tokens_total"], samples(other)["tunectl_prompt_tokens_total"]) == (3, 0)
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert list(tmp_path.iterdir()) == []
