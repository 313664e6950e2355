"""What stands in monitoring/, read; and whether the programs expose the series that it names."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import promql
import synthetic_metrics
import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
PROMETHEUS = MONITORING / "prometheus"
RUNBOOKS = MONITORING / "runbooks"
ALERTING = MONITORING / "grafana" / "provisioning" / "alerting"
THEIRS = {
    "up": {"job", "instance"},
    "scrape_samples_scraped": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity", "job", "instance", "slo", "release"},
    "alertmanager_notifications_total": {"integration", "job", "instance"},
    "alertmanager_notifications_failed_total": {"integration", "reason", "job", "instance"},
}
"""What Prometheus and Alertmanager give; tests/stack asks the real ones for them."""


def read(path: Path):
    return yaml.safe_load(path.read_text())


RULES = [
    rule for path in sorted((PROMETHEUS / "rules").glob("*.yml")) for g in read(path)["groups"] for rule in g["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
TESTS = [test for path in sorted((PROMETHEUS / "tests").glob("*.yml")) for test in read(path)["tests"]]


@cache
def exposed() -> dict[str, set[str]]:
    return synthetic_metrics.list_exposed_series()


def unknown(expr: str) -> list[str]:
    """What is wrong with the series that an expression names: nobody exposes them, or not with such labels."""
    wrong = []
    for name, matchers in promql.selectors(expr):
        if name in RECORDED or name in THEIRS:
            continue
        if name not in exposed():
            wrong.append(f"nobody exposes {name}")
            continue
        labels = exposed()[name]
        for label, operator, value in matchers:
            if label in {"job", "instance"}:
                continue
            values = {one.split("=", 1)[1].strip('"') for one in labels if one.startswith(f"{label}=")}
            hit = {one for one in values if (one == value if "~" not in operator else re.fullmatch(value, one))}
            if not hit:
                wrong.append(f"{name} has no {label} {value!r}; it has {sorted(values)}")
            if operator == "=~" and "|" in value:
                wrong += [f"{name} has no {label} {part!r}" for part in value.split("|") if not _any(part, values)]
    return wrong


def _any(pattern: str, values: set[str]) -> bool:
    return any(re.fullmatch(pattern, one) for one in values)
