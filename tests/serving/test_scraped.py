"""The real service, scraped by the real Prometheus with our configuration and a key of scope scrape."""

from __future__ import annotations

import re
from pathlib import Path

import prometheus_stack
import pytest
from monitoring_files import RULES, exposed
from serving_process import Server, free_port

HI = {"model": "shop", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6, "stream": True}


@pytest.mark.skipif(not prometheus_stack.INSTALLED, reason=prometheus_stack.NOT_INSTALLED)
def test_prometheus_gets_what_rules_and_boards_ask_for(server: Server, tmp_path: Path) -> None:
    targets = {"tunectl-serve": f"127.0.0.1:{server.port}"}
    secrets = {"scrape_key": server.keys["scrape"]}
    config = prometheus_stack.write_prometheus_config(tmp_path / "prom", targets, secrets, f"127.0.0.1:{free_port()}")
    with prometheus_stack.prometheus(config) as prometheus:
        prometheus_stack.wait(lambda: prometheus.ask('up{job="tunectl-serve"} == 1'), 60)
        for _ in range(3):
            assert server.call("/v1/chat/completions", HI)[0] == 200
        counted = 'sum(tunectl_requests_total{finished_reason=~"stop|length"}) >= 3'
        prometheus_stack.wait(lambda: prometheus.ask(counted), 30)
        served = {
            name for name in exposed() if not re.match(r"tunectl_(drift|retrain|promotions|champion|experiment)_", name)
        }
        there = set(prometheus.api("/api/v1/label/__name__/values"))
        assert {name for name in served if not name.endswith("_created")} <= there
        (samples,) = prometheus.ask("scrape_samples_scraped")
        assert float(samples["value"][1]) < 500
        recorded = [rule["record"] for rule in RULES if rule.get("record", "").endswith(":rate5m")]
        for name in recorded:
            assert prometheus_stack.wait(lambda name=name: prometheus.ask(name), 30), name
        assert prometheus.ask('ALERTS{alertname="TunectlServiceDown"}') == []
