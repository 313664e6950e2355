"""Two days of history and the state they end in, in the real Prometheus: every query is answered, what fires is heard by whom it concerns."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import prometheus_stack
import pytest
import yaml
from prometheus_stack import MONITORING, wait

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.retraining.run_store import RunStore
from tunectl.status.service_metrics import read_service_figures

BOARDS = sorted((MONITORING / "grafana" / "boards").glob("*.json"))
RULES = sorted((MONITORING / "prometheus" / "rules").glob("*.yml"))
SELECTOR = re.compile(r"\b((?:job:)?tunectl[\w:]*|up|scrape_\w+|alertmanager_\w+)(?![\w:])(\{[^}]*\})?")
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--no-sandbox"]


def rules() -> Iterator[dict]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def test_every_target_is_scraped_with_its_key(stack) -> None:
    wait(lambda: len(stack.prometheus.ask("up == 1")) == 5, 60, lambda: json.dumps(stack.prometheus.ask("up")))


def test_the_programs_of_the_story_are_refused_without_a_key(stack) -> None:
    targets = stack.prometheus.api("/api/v1/targets")["activeTargets"]
    for one in targets:
        if one["labels"]["job"].startswith("tunectl-"):
            assert prometheus_stack.get(one["scrapeUrl"])[0] == 401


def test_every_rule_is_healthy_and_every_recorded_one_has_data(stack) -> None:
    def evaluated() -> bool:
        found = [rule for group in stack.prometheus.api("/api/v1/rules")["groups"] for rule in group["rules"]]
        return len(found) == len(list(rules())) and all(rule["health"] == "ok" for rule in found)

    wait(evaluated, 60)
    for rule in rules():
        if "record" in rule:
            labels = ",".join(f'{name}="{value}"' for name, value in rule.get("labels", {}).items())
            assert wait(lambda: stack.prometheus.ask(f"{rule['record']}{{{labels}}}"), 30), rule  # noqa: B023 - now


def test_every_series_that_an_alert_asks_for_is_there(stack) -> None:
    for rule in rules():
        if "alert" in rule:
            for name, labels in SELECTOR.findall(rule["expr"]):
                assert wait(lambda: stack.prometheus.ask(f"{name}{labels}"), 30), (rule["alert"], name, labels)  # noqa: B023


def test_the_console_reads_the_figures_of_servers_and_monitor_from_prometheus(stack) -> None:
    layout = ProjectPaths(stack.project)
    root = checks.load_project_config(layout).root
    console = root.console.model_copy(update={"prometheus": stack.prometheus.url})
    figures = read_service_figures(layout, root.model_copy(update={"console": console}))
    assert (figures.prometheus, figures.problem) == (stack.prometheus.url, "")
    (server,) = figures.servers
    instances = {one["metric"]["job"]: one["metric"]["instance"] for one in stack.prometheus.ask("up")}
    assert server.address == instances["tunectl-serve"]
    assert "champion" in server.releases
    assert 0 < server.first_token.median < server.first_token.p95 < server.whole_answer.p95
    assert figures.monitor.address == instances["tunectl-monitor"]
    (required,) = stack.prometheus.ask("tunectl_drift_evidence_required")
    assert figures.monitor.evidence_required == float(required["value"][1])


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_query_of_every_panel_is_answered(stack, path: Path) -> None:
    board = json.loads(path.read_text())

    def answer(expr: str) -> list[dict]:
        now = time.time()  # what only the living say ends every range
        span = {"start": str(now - 48 * 3600), "end": str(now), "step": "600"}
        return stack.prometheus.api("/api/v1/query_range", query=expr, **span)["result"]

    asked = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
    asked += [(one["name"], one["expr"]) for one in board["annotations"]["list"]]
    silent = []
    for title, expr in asked:
        filled = expr.replace("$__rate_interval", "10m").replace("$__interval", "10m")
        with suppress(AssertionError):  # a rate needs two scrapes
            wait(lambda: answer(filled), 30)  # noqa: B023
        found = answer(filled)
        if not found or any(value == "NaN" for one in found for _, value in one["values"]):
            silent.append((title, filled, found[:2]))
    assert not silent
    for one in board["templating"]["list"]:
        name = re.search(r'name="(\w+)"', one["query"])[1]
        assert stack.prometheus.ask(f'tunectl:link:info{{name="{name}"}}')


def test_drift_reaches_the_controller_and_starts_one_retrain(stack) -> None:
    """The alert of the real rule, over the real Alertmanager with the token from a file; then Grafana tells the same."""
    book = RunStore(stack.project / ".tunectl" / "retrain")
    wait(lambda: book.runs() and book.runs()[0].ended, 240, lambda: (stack.project / "log.txt").read_text()[-3000:])
    run = book.runs()[0]
    assert (run.trigger.kind, run.trigger.author) == ("alert", "Alertmanager")
    assert run.trigger.facts["labels"]["alertname"] == "TunectlDriftSustained"
    assert run.trigger.message.startswith("Drift: live traffic has changed. Evidence ")
    assert run.state == "promoted"
    alert = {
        "status": "firing",
        "labels": {"alertname": "TunectlDriftSustained", "grafana_folder": "tunectl"},
        "startsAt": run.trigger.facts["startsAt"],
        "fingerprint": "0123456789abcdef",
    }
    body = {"version": "1", "alerts": [alert]}
    headers = {"Authorization": f"Bearer {stack.token}", "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{stack.controller}/webhook", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked, timeout=20) as answer:
        assert answer.status == 200
    wait(lambda: not book.list_pending_triggers(), 60)
    time.sleep(12)  # Alertmanager repeats
    assert len(book.runs()) == 1


def test_people_hear_of_the_rest_with_a_runbook_that_opens(stack) -> None:
    told = wait(lambda: [body for body in stack.heard if b"TunectlRetrainFailing" in body], 90)
    assert not [body for body in stack.heard if b"TunectlDriftSustained" in body]
    (url,) = set(re.findall(r"http://127\.0\.0\.1:\d+/user/TunectlRetrainFailing\.md", told[0].decode()))
    status, page = prometheus_stack.get(url)
    assert (status, page.splitlines()[0]) == (200, "# TunectlRetrainFailing")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_screenshots_show_every_panel(stack, tmp_path: Path) -> None:
    """Drawn by monitoring/preview.py and opened in Chromium. TUNECTL_SCREENSHOTS names a folder that keeps the pictures."""
    import os

    from playwright.sync_api import sync_playwright

    wait(lambda: stack.prometheus.ask('ALERTS{alertname="TunectlDriftSustained", alertstate="firing"}'), 60)
    wait(
        lambda: stack.prometheus.ask("increase(alertmanager_notifications_failed_total[1h])"), 60
    )  # a rate: two scrapes
    words = [sys.executable, str(MONITORING / "preview.py"), stack.prometheus.url, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    pictures = Path(os.environ.get("TUNECTL_SCREENSHOTS") or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1240, "height": 900})
        for path in BOARDS:
            panels = [one for one in json.loads(path.read_text())["panels"] if one["type"] != "row"]
            page.goto((tmp_path / f"{path.stem}.html").as_uri())
            assert page.locator(".panel").count() == len(panels)
            assert page.locator(".panel.empty h3").all_text_contents() == []
            assert page.evaluate("document.documentElement.scrollWidth") <= 1240
            page.screenshot(path=pictures / f"{path.stem}.png", full_page=True)
        browser.close()
